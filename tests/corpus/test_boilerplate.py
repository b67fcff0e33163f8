"""Boilerplate lines: what goes, what stays, and the counts against a plain loop."""

import random
from typing import Any

import pytest

from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import boilerplate

BANNER = "Harbour News Online | Fishing | Weather | Boats for sale"
FOOTER = "Harbour News Online is a service of Quay Media"
NOTICE = "Harbour News is read by ten thousand people on both sides of the bay every day."


def story(number: int) -> str:
    """Three lines that no other document has."""
    rng = random.Random(number)
    lines = (" ".join(f"{rng.choice('bdgklmnprst')}{rng.randrange(1000)}o" for _ in range(n)) for n in (5, 30, 9))
    return "\n".join(lines)


def answers(texts: list[str], **settings: Any) -> tuple[list[str | None], boilerplate.Boilerplate]:
    """The texts that stay; None for one that is dropped."""
    step = boilerplate.Config(kind="boilerplate", **settings).build()
    documents = [Document(f"d{number}", text, "s", "d") for number, text in enumerate(texts)]
    step.survey(iter([step.signature(document) for document in documents]))
    given = [step.decide(number, document) for number, document in enumerate(documents)]
    return [None if isinstance(answer, Drop) else answer.text for answer in given], step


def test_lines_at_both_edges_of_many_documents_go() -> None:
    stories = [story(number) for number in range(40)]
    pages = [f"{BANNER}\nAll about the harbour and its people\n\n{text}\n\n{FOOTER}" for text in stories]
    given, step = answers([*pages, story(99)])
    assert given == [*stories, story(99)]
    assert step.summary()["needed_documents"] == 3
    assert step.summary()["lines"][0]["num_removed"] == 40


def test_a_document_of_nothing_else_is_dropped() -> None:
    pages = [f"{BANNER}\n{story(number)}\n{FOOTER}" for number in range(10)]
    given, _ = answers([*pages, f"{FOOTER}\n\n{BANNER}"])
    assert given[-1] is None


def test_too_few_documents() -> None:
    pages = [f"{text}\n{FOOTER}" for text in map(story, range(2))]
    assert answers(pages)[0] == pages
    pages = [f"{text}\n{FOOTER}" if number % 200 == 0 else text for number, text in enumerate(map(story, range(1000)))]
    given, step = answers(pages)
    assert step.summary()["needed_documents"] == 10
    assert given == pages
    given, step = answers(pages, min_share=0.004)
    assert given == [story(number) for number in range(1000)]


def test_copies_of_one_document_are_counted_once() -> None:
    page = f"{story(1)}\n{FOOTER}"
    assert answers([page] * 30)[0] == [page] * 30


def test_the_middle_of_a_document_stays() -> None:
    pages = [f"{story(2 * number)}\n{FOOTER}\n{story(2 * number + 1)}" for number in range(30)]
    assert answers(pages)[0] == pages


def test_a_run_jumps_over_one_short_line() -> None:
    pages = [
        f"{BANNER}\n{FOOTER}\nBy P{number}\nMore from this part of the coast\n{story(number)}" for number in range(30)
    ]
    assert answers(pages)[0] == [f"By P{number}\n{story(number)}" for number in range(30)]
    given, _ = answers(pages, jumps=0)
    assert given[3] is not None
    assert given[3].startswith("By P3\nMore from this")


def test_first_lines_and_sentences_need_more() -> None:
    pages = [f"{FOOTER}\n{story(number)}\n{NOTICE}" if number < 9 else story(number) for number in range(100)]
    assert answers(pages)[0] == pages
    pages = [f"{FOOTER}\n{story(number)}\n{NOTICE}" if number < 12 else story(number) for number in range(100)]
    assert answers(pages)[0] == [story(number) for number in range(100)]


@pytest.mark.parametrize(
    "line",
    [
        "XVII",
        "The End",
        "CHAPTER THE FIRST",
        "Book Two: 1805",
        "Act III, Scene II",
        "第三章",
        "* * * * * * * * * *",
        "from __future__ import annotations",
        "#include <stdio.h>",
        "if __name__ == '__main__':",
        "    main(sys.argv[1:])",
        "## Unresolved questions",
        "public static void main(String[] args)",
    ],
)
def test_headings_and_program_text_stay(line: str) -> None:
    pages = [f"{line}\n{line}\n{story(number)}\n{line}" for number in range(100)]
    assert answers(pages)[0] == pages


def test_case_white_space_and_copyright_years_do_not_tell_lines_apart() -> None:
    footers = [
        f"© {2000 + number}–{2010 + number}  Quay media{' and Sons' if number % 2 else ' AND sons'}"
        for number in range(20)
    ]
    pages = [f"{story(number)}\n{footer}" for number, footer in enumerate(footers)]
    assert answers(pages)[0] == [story(number) for number in range(20)]
    pages = [f"{story(number)}\nHarbour weather of the year {2000 + number}" for number in range(20)]
    assert answers(pages)[0] == pages


def test_counts_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boilerplate, "_PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(boilerplate, "_BUCKETS", 16)
    rng = random.Random(0)
    lines = [f"Footer of the kind {chr(97 + number)} on this page" for number in range(20)]
    texts = ["\n".join([*rng.sample(lines, 3), story(rng.randrange(30))]) for _ in range(200)]
    _, step = answers(texts, min_share=0.1)
    seen: dict[str, set[str]] = {}
    for text in texts:
        for line in text.split("\n")[:3]:
            seen.setdefault(line, set()).add(max(text.split("\n"), key=len))
    wanted = {int.from_bytes(boilerplate._key(line), "little"): len(longest) for line, longest in seen.items()}
    assert {key: count for key, count in step._counts.items() if key in wanted} == {
        key: count for key, count in wanted.items() if count >= 20
    }


def test_empty_and_blank_documents_stay() -> None:
    assert answers(["", " \n\n"])[0] == ["", " \n\n"]
