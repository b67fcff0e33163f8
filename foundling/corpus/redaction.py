"""What people may be shown of the texts of a build: samples of what was dropped, and before and after of changes.

A corpus whose privacy step masks an address must not show that address in its own report, where the step before saw it
still. So what any step would hide is hidden in all samples, of all steps, before they are stored: in the manifest, the
report and `dropped/`. Ids of documents and names of files stay as they are.
"""

import re
from collections.abc import Sequence
from html import unescape
from itertools import pairwise
from typing import Any, Protocol, get_type_hints, runtime_checkable

from foundling.core.config import PartConfig

_SEEN_CHARACTERS = 1000
"""How far beyond both ends of a sample is looked, so that what is cut by an end is found."""
_INVISIBLE = r"\x00-\x08\x0e-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
_VEIL = re.compile(
    rf"[&<{_INVISIBLE}\uff01-\uff5e]"  # the engine looks for one of these, and only then behind it
    r"(?:(?<=&)(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,10});"
    r"|(?<=<)(?i:/?(?:a|b|i|u|em|strong|span|font|small|mark|wbr)\b[^<>]{0,300}>)"
    r"|(?<![&<]))"
)
"""What other steps take away or write otherwise before a privacy step sees the text."""
_FULL_WIDTH = 0xFEE0


@runtime_checkable
class Redacting(Protocol):
    """A step that hides what nobody may read."""

    def redact(self, text: str) -> str:
        """The text, as long as before, with other characters in the place of those that nobody may read."""
        ...


class Redactor:
    """Hides in samples what the redacting steps among `configs` would hide in a text."""

    def __init__(self, configs: Sequence[PartConfig] = ()) -> None:
        self._steps: list[Redacting] = [config.build() for config in configs if _redacts(config)]

    def shown(self, text: str, start: int = 0, end: int | None = None) -> str:
        """`text[start:end]` as it may be shown. Its length is that of the slice."""
        end = len(text) if end is None else min(end, len(text))
        if not self._steps:
            return text[start:end]
        first = max(0, start - _SEEN_CHARACTERS)
        window = self._unveiled(text[first : end + _SEEN_CHARACTERS])
        return window[start - first : end - first]

    def shown_in(self, value: Any) -> Any:
        """Plain data with all its strings, but for keys, as they may be shown."""
        if isinstance(value, str):
            return self.shown(value)
        if isinstance(value, list | tuple):
            return [self.shown_in(item) for item in value]
        return {key: self.shown_in(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _unveiled(self, text: str) -> str:
        hidden = self._hidden(text)
        if _VEIL.search(text) is None:
            return hidden
        pieces: list[str] = []
        ends = [0]  # of each character of the pieces, in the text
        end = 0
        for match in _VEIL.finditer(text):
            plain = text[end : match.start()]
            pieces += plain
            ends += range(end + 1, match.start() + 1)
            for character in _without_veil(match[0]):
                pieces.append(character)
                ends.append(match.end())
            end = match.end()
        pieces += text[end:]
        ends += range(end + 1, len(text) + 1)
        result = list(hidden)
        for (first, last), before, after in zip(pairwise(ends), pieces, self._hidden("".join(pieces)), strict=True):
            if before != after:
                result[first:last] = after * (last - first)
        return "".join(result)

    def _hidden(self, text: str) -> str:
        for step in self._steps:
            text = step.redact(text)
        return text


def _without_veil(found: str) -> str:
    if found[0] == "&":
        return unescape(found)
    return chr(ord(found) - _FULL_WIDTH) if "\uff01" <= found <= "\uff5e" else ""


def _redacts(config: PartConfig) -> bool:
    given = get_type_hints(type(config).build).get("return")
    return isinstance(given, type) and hasattr(given, "redact")
