"""XHTML chapters through the whole `crawl` preset, against the plain reading of their bodies.

    python -m benchmarks.chapters FOLDER

FOLDER holds `BOOK/CHAPTER.xhtml`. The plain reading is all text of the body, tags left out. Words are runs of letters
and digits, compared in order: the words that both have, as a share of the longer text. Prints the mean, the least, and
the files in which markup is left; one line of JSON at the end.
"""

import argparse
import json
import re
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from xml.etree import ElementTree

from foundling.corpus.build import Config, build_corpus

_BODY = "{http://www.w3.org/1999/xhtml}body"
_MARKUP = re.compile(r"</?[a-zA-Z!?]|&#?\w+;|epub:|xmlns")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.replace("\u2060", ""))  # a word joiner stands inside a word


def agreement(plain: list[str], got: list[str]) -> float:
    """The words of both, in order, as a share of the longer text."""
    blocks = SequenceMatcher(None, plain, got).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(plain), len(got), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory() as place:
        corpus = build_corpus([folder], Path(place) / "out", Config())
        texts = {document.id: document.text for document in corpus.documents()}
    scores, with_markup = {}, []
    for path in sorted(folder.glob("*/*.xhtml")):
        name = path.relative_to(folder.parent).as_posix()
        body = ElementTree.fromstring(path.read_bytes()).find(_BODY)
        text = texts.get(name, "")  # a chapter that was dropped agrees in nothing
        scores[name] = agreement(words("".join(body.itertext()) if body is not None else ""), words(text))
        if _MARKUP.search(text):
            with_markup.append(name)
    least = min(scores, key=scores.__getitem__)
    mean = sum(scores.values()) / len(scores)
    print(f"{len(scores)} chapters: mean {mean:.5f}, least {scores[least]:.5f} ({least}); markup left in {with_markup}")
    told = {"chapters": len(scores), "mean": mean, "least": scores[least], "least_file": least, "markup": with_markup}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
