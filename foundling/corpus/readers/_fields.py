"""Which field of rows holds their text, and values as JSON can hold them."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from foundling.core.errors import UserError

TEXT_FIELD = "text"
NUM_ROWS_TO_GUESS = 100
MAX_BYTES_TO_GUESS = 1 << 20
"""Rows that are looked at for a guess: at most so many, and of so many bytes (and one more)."""
_SURE_NAMES = (
    *("text", "content", "body", "document", "article", "raw_content", "paragraph", "passage", "sentence"),
    *("正文", "内容", "文本", "文章", "全文", "內容", "文字"),
)
_NAMES = (
    *_SURE_NAMES,
    *("text_content", "plain_text", "main_text", "full_text", "story", "abstract", "review", "comment", "message"),
)
_NO_TEXTS = {"id", "title", "url", "name", "date", "label", "lang", "language", "source", "author", "key", "split"}
# A column of prose has long values, and longer ones than those beside it: 40 characters are half a line.
PROSE_CHARACTERS, _PROSE_FACTOR = 40, 2


def guess_text_field(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The field that most likely holds the text, or None where none or several could be meant.

    In this order: a known name, upper or lower case; the only field with text; the field whose values are at least 40
    characters long on average and twice as long as those of any other.
    """
    lengths: dict[str, list[int]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str):
                lengths.setdefault(key, []).append(len(value))
    by_name = {key.strip().casefold(): key for key in reversed(lengths)}
    for name in _NAMES:
        if name in by_name:
            return by_name[name]
    if len(lengths) == 1 and not by_name.keys() & _NO_TEXTS:
        return next(iter(lengths))
    means = sorted(((sum(found) / len(found), key) for key, found in lengths.items()), reverse=True)
    if means and means[0][0] >= PROSE_CHARACTERS and (len(means) == 1 or means[0][0] >= _PROSE_FACTOR * means[1][0]):
        return means[0][1]
    return None


def names_a_text(field: str) -> bool:
    """Whether a field of this name is a text wherever it stands."""
    return field.strip().casefold() in _SURE_NAMES


def no_text_field(fields: Sequence[str]) -> str:
    """What to say of a file where no field can be guessed."""
    return str(
        UserError(
            f"its text must be in a field that can be guessed ({', '.join(_NAMES[:3])}, ...)",
            got=f"the fields {', '.join(map(str, fields[:12]))}",
            do="set text_field=KEY",
        )
    )


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dates as ISO 8601, other things as text; bytes and what is not finite as None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return None if isinstance(value, bytes) else str(value)
