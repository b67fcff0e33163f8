"""The elements of a JSON file: a list, or the list under `data`; one of them in memory at a time."""

from collections.abc import Iterator
from typing import Any

from foundling.core.errors import UserError
from foundling.corpus.readers.base import Problem
from foundling.corpus.readers.json import Buffer, Decoded, Walk
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import Fault, is_sound, lost, pieces_of

_LIST = "data"


def elements(stream: Stream, encoding: str | None) -> Iterator[tuple[str, dict[str, Any] | Fault]]:
    """(its place, the object or what is wrong with it) of each element. UserError: no text, or no such list in it."""
    # What is not UTF-8 becomes surrogates, by which the element that holds it is known.
    walk = Walk(Buffer(Decoded(pieces_of(stream, encoding), "surrogateescape")), _LIST)
    for number, item in walk.items(guess=False):
        where = f"element {number}"
        if isinstance(item, Problem):
            yield where, Fault(where, _reason(item.detail, where))
        elif not isinstance(item, dict):
            yield where, Fault(where, "it is not an object")
        elif not walk.has_list:
            break  # an object that begins no list: what follows it is no element either
        elif not is_sound(item):
            yield where, Fault(where, "it holds bytes that are not UTF-8, or half a character")
        elif encoding not in (None, "utf-8") and lost(str(item), encoding):
            yield where, Fault(where, f"it holds what is not {encoding}")
        else:
            yield where, item
    if not walk.has_list:
        got = f"an object with {', '.join(walk.keys[:8])}" if walk.keys else "no list"
        raise UserError(f'{stream.path.name} must be a list of objects, or {{"{_LIST}": [...]}}', got=got)


def _reason(detail: str, where: str) -> str:
    """`element 3 (line 7) is left out: ...` and `element 3 is no object`, told without their place."""
    return detail.replace(where, "it", 1) if detail.startswith(f"{where} ") else detail
