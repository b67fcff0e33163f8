"""Which language a text is in: first by its script, then, where several languages share one, by a model.

The model is that of py3langid 0.4 (Barbaresi; after Lui and Baldwin, "langid.py: An Off-the-shelf Language
Identification Tool", ACL 2012 demonstrations): naive Bayes over byte n-grams, in the package, under its licence. We
ask it only among the languages of the text's script, and add a prior, because short texts are otherwise given to
languages that hardly anybody writes. `benchmarks/language_identification.py` has the comparison that chose it.
"""

import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import yaml
from py3langid.langid import MODEL_FILE, LanguageIdentifier

_PIECE_CHARACTERS = 160
_NO_LANGUAGE = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+|<[A-Z_0-9]+>|[0-9]+")
_UNLISTED_PRIOR = -6.0
_MIN_KANA_SHARE = 0.1
"""Least share of kana among Han and kana in Japanese text; Chinese has them as ornament only."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The language of a text."""

    language: str | None
    """ISO 639-1 code, ISO 639-3 where there is none; None for a text without letters."""
    probability: float
    """In [0, 1]: how sure the model is, times the share of the text that is in the language's script."""
    script: Literal["Hans", "Hant"] | None = None
    """For Chinese: simplified or traditional (ISO 15924), where any character tells."""


def identify(text: str) -> Identified:
    """The language of a text, from a sample of its start, middle and end."""
    sample = _NO_LANGUAGE.sub(" ", _sample(text))
    name, share = _main_script(sample)
    if name is None:
        return Identified(None, 0.0)
    languages = _table()["scripts"][name]["languages"]
    if len(languages) == 1:
        script = _chinese_script(sample) if languages == ["zh"] else None
        return Identified(languages[0], share, script)
    language, probability = _ask_model(sample, name)
    return Identified(language, share * probability)


def known_languages() -> list[str]:
    """All codes that `identify` may answer with, sorted."""
    return sorted(_table()["known"])


def _sample(text: str) -> str:
    if len(text) <= 3 * _PIECE_CHARACTERS:
        return text
    middle = (len(text) - _PIECE_CHARACTERS) // 2
    pieces = text[:_PIECE_CHARACTERS], text[middle : middle + _PIECE_CHARACTERS], text[-_PIECE_CHARACTERS:]
    return "\n".join(pieces)


def _main_script(sample: str) -> tuple[str | None, float]:
    """The script with the greatest weight of letters, and its share of the weight of all."""
    if sample.isascii():
        return ("Latn", 1.0) if any(map(str.isalpha, sample)) else (None, 0.0)
    names, bounds, script_of_range, weights = _ranges()
    code_points = np.frombuffer(sample.encode("utf-32-le", "replace"), dtype=np.uint32)
    found = script_of_range[np.searchsorted(bounds, code_points, side="right")]
    counts = np.bincount(found, minlength=len(names) + 1)[: len(names)].astype(float)
    han, kana = names.index("Hani"), names.index("Kana")
    if counts[kana] > (1 if counts[han] else 0) and counts[kana] >= _MIN_KANA_SHARE * (counts[kana] + counts[han]):
        counts[kana] += counts[han]
        counts[han] = 0
    counts *= weights
    if not counts.any():
        return None, 0.0
    best = int(counts.argmax())
    return names[best], float(counts[best] / counts.sum())


def _ask_model(sample: str, script: str) -> tuple[str | None, float]:
    languages = _model_languages(script)
    scores = {label: score + languages[label][1] for label, score in _model().rank(sample) if label in languages}
    best = max(scores, key=scores.__getitem__)
    # The model's own calibration: a temperature of the root of the length in bytes.
    temperature = math.sqrt(len(sample.encode("utf-8", "replace")))
    language, of_language, of_all = languages[best][0], 0.0, 0.0
    for label, score in scores.items():
        odds = math.exp((score - scores[best]) / temperature)
        of_all += odds
        of_language += odds if languages[label][0] == language else 0.0
    return language, of_language / of_all


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(files("foundling.corpus").joinpath("languages.yaml").read_text(encoding="utf-8"))


@cache
def _model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE)


@cache
def _model_languages(script: str) -> dict[str, tuple[str | None, float]]:
    """The model's labels for a script: what we call each, and its prior."""
    table, labels = _table(), set(_model().labels)
    if table["scripts"][script]["languages"]:
        labels &= set(table["scripts"][script]["languages"])
    else:
        elsewhere = {language for entry in table["scripts"].values() for language in entry["languages"]}
        labels -= elsewhere - set(table["latin_as_well"]) | set(table["never"])
    priors = {label: float(odds) for odds, group in table["prior"].items() for label in group}
    return {label: (table["rename"].get(label, label), priors.get(label, _UNLISTED_PRIOR)) for label in sorted(labels)}


@cache
def _ranges() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Script names; first code points of all ranges and gaps, sorted; the script of each (one past the last: none);
    weights by script."""
    scripts = _table()["scripts"]
    names = list(scripts)
    limits = sorted(
        (int(first, 16), int(last, 16), number)
        for number, entry in enumerate(scripts.values())
        for first, last in (letters.split("-") for letters in entry["letters"].split())
    )
    starts, owners = [], [len(names)]
    for first, last, number in limits:
        starts += [first, last + 1]
        owners += [number, len(names)]
    weights = np.array([entry["weight"] for entry in scripts.values()], dtype=float)
    return names, np.array(starts, dtype=np.uint32), np.array(owners), weights


def _chinese_script(sample: str) -> Literal["Hans", "Hant"] | None:
    simplified, traditional = _telling_characters()
    num_simplified = sum(map(simplified.__contains__, sample))
    num_traditional = sum(map(traditional.__contains__, sample))
    if num_simplified == num_traditional:
        return None
    return "Hans" if num_simplified > num_traditional else "Hant"


@cache
def _telling_characters() -> tuple[frozenset[str], frozenset[str]]:
    """Characters that only the mainland's standard GB 2312 has, and those that only Taiwan's Big5 has."""
    han = [chr(code_point) for code_point in range(0x4E00, 0xA000)]
    mainland = {character for character in han if character.encode("gb2312", "ignore")}
    taiwan = {character for character in han if character.encode("big5", "ignore")}
    return frozenset(mainland - taiwan), frozenset(taiwan - mainland)
