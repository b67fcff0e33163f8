"""Lines that belong to a page and not to its text: menus, share buttons, cookie and JavaScript notices, shop buttons.

C4 removes lines with "javascript" and with the words of policies (Raffel et al. 2020, section 2.2), and with them
sentences of texts about such things. Here a line goes only if nothing but known phrases stands on it (`furniture.yaml`
has them, in several languages), or if it begins as notices do. Names such as "Home" or "News" are furniture only in
company. What this list does not know, the step `boilerplate` finds by its standing in many documents.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import words_of

REASONS = {"only_furniture": "all of its lines are a page's furniture: menus, notices, buttons; no text is left"}

Kind = Literal["sure", "likely"]
_LONGEST_CHARACTERS = {"list": 160, "notice": 320}
_FEWEST_LIKELY = 3
"""Lines that are likely furniture are it for sure where nothing else stands in a text of so many."""
_APART = re.compile(r"[|·•>»/\t]|  |[0-9]")
_NUMBER_WORD = "%"
_NO_LIST = re.compile(r"[=\"“”„`{}$\\，。]|\w\(|\('|::|^#|^>>>")
"""Speech, sentences of scripts without spaces, and program text."""
_FIRST_WORD = re.compile(r"©|c\)|[a-zà-ÿа-яё']+|[0-9]+|.")
_BLANK_LINES = re.compile(r"\n{3,}")
_EDGES = "\"'“”‘’«»‹›()[]{}<>|·•*#—–-→←↑↓▲▼.,:;!?…&/+ \t"


class Config(PartConfig):
    """Removes lines; drops what is empty then."""

    max_lines: Annotated[int, Field(ge=1)] | None = None
    """Most lines to remove from one document; one with more stays as it is. None: no bound."""

    def build(self) -> "Furniture":
        return Furniture(self.max_lines)


@dataclass(frozen=True)
class Furniture:
    max_lines: int | None

    def apply(self, document: Document) -> Document | Drop:
        phrases = _phrases()
        lines = document.text.split("\n")
        kinds: dict[int, Kind] = {}
        for number, line in enumerate(lines):
            if line and len(line) <= _LONGEST_CHARACTERS["notice"] and (kind := phrases.kind_of(line)):
                kinds[number] = kind
        all_likely = len(kinds) >= _FEWEST_LIKELY and len(kinds) == sum(map(bool, map(str.strip, lines)))
        if not all_likely and "sure" not in kinds.values():
            return document
        if self.max_lines is not None and len(kinds) > self.max_lines:
            return document
        text = "\n".join(line for number, line in enumerate(lines) if number not in kinds).strip()
        if not text:
            return Drop("only_furniture", f"{len(kinds)} lines")
        return document.with_text(_BLANK_LINES.sub("\n\n", text), furniture_lines=len(kinds))


class _Phrases:
    """The phrases of `furniture.yaml`, by their first word."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._lists: dict[str, dict[tuple[str, ...], Kind]] = {}
        kinds: tuple[tuple[str, Kind], ...] = (("sure", "sure"), ("likely", "likely"), ("dates", "likely"))
        for name, kind in kinds:
            for pattern in data[name]:
                for phrase in _expanded(pattern):
                    self._lists.setdefault(phrase[0], {}).setdefault(phrase, kind)
        self._dates = {phrase for pattern in data["dates"] for phrase in _expanded(pattern)}
        self._longest = {first: max(map(len, phrases)) for first, phrases in self._lists.items()}
        self._notices = {word: re.compile(rest) for word, rest in data["notices"].items()}
        self._likely_notices = {word: re.compile(rest) for word, rest in data["likely_notices"].items()}
        self._first = frozenset([*self._lists, *self._notices, *self._likely_notices])

    def kind_of(self, line: str) -> Kind | None:
        """Whether a line is furniture for sure, likely furniture, or none."""
        head = line.split(None, 1)
        if not head:
            return None
        first = head[0].strip(_EDGES).lower()
        # Most lines end here. Numbers, bare symbols and characters of scripts without spaces need a closer look.
        if first not in self._first and first[:1] not in self._first and first[:1].isalpha():
            return None
        line = line.strip().lower().replace("’", "'")
        if kind := self._notice(line):
            return kind
        if len(line) > _LONGEST_CHARACTERS["list"] or _NO_LIST.search(line):
            return None
        return self._list(line)

    def _notice(self, line: str) -> Kind | None:
        found_word = _FIRST_WORD.match(line.lstrip(_EDGES))
        if found_word is None:
            return None
        word = found_word.group()
        rest = line[line.index(word) + len(word) :]
        word = _NUMBER_WORD if word.isdigit() else word
        if word in self._notices and self._notices[word].match(rest):
            return "sure"
        if len(line) <= _LONGEST_CHARACTERS["list"]:
            likely = self._likely_notices.get(word)
            return "likely" if likely is not None and likely.match(rest) else None
        return None

    def _list(self, line: str) -> Kind | None:
        """Whether known phrases and numbers tile the line."""
        words = [_NUMBER_WORD if word[0].isdigit() else word for word in words_of(line)]
        if not words or all(word == _NUMBER_WORD for word in words):
            return None
        # ways[i]: the phrases of a tiling of the first i words, or None. Longer phrases are tried first.
        ways: list[tuple[tuple[str, ...], ...] | None] = [(), *[None] * len(words)]
        for start, word in enumerate(words):
            way = ways[start]
            if way is None:
                continue
            for length in range(min(self._longest.get(word, 0), len(words) - start), 0, -1):
                phrase = tuple(words[start : start + length])
                if phrase in self._lists[word] and ways[start + length] is None:
                    ways[start + length] = (*way, phrase)
            if word == _NUMBER_WORD and ways[start + 1] is None:
                ways[start + 1] = way
        if (tiling := ways[-1]) is None:
            return None
        if any(self._lists[phrase[0]][phrase] == "sure" for phrase in tiling):
            return "sure"
        num_different = len(set(tiling) - self._dates)
        return "sure" if num_different > 2 or (num_different == 2 and _APART.search(line)) else "likely"


def _expanded(pattern: str) -> list[tuple[str, ...]]:
    """All phrases that a pattern stands for, as words."""
    slots = []
    for slot in pattern.split():
        choices = slot.removeprefix("?").split("|")
        slots.append([*choices, ""] if slot.startswith("?") else choices)
    phrases = (" ".join(choice.replace("_", " ") for choice in chosen if choice) for chosen in product(*slots))
    return [words for phrase in phrases if (words := tuple(_words(phrase)))]


def _words(phrase: str) -> list[str]:
    return [word for part in phrase.split() for word in ([part] if part == _NUMBER_WORD else words_of(part))]


@cache
def _phrases() -> _Phrases:
    return _Phrases(yaml.safe_load(files("foundling.corpus.steps").joinpath("furniture.yaml").read_text("utf-8")))
