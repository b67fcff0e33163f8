"""Decontamination: what is found is what a plain search over word lists finds; cuts; what is told."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import decontaminate

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]


def words(seed: int, count: int) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=count)


def step(folder: Path, rows: list[Any], **settings: Any) -> decontaminate.Decontaminate:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return decontaminate.Config(kind="decontaminate", against=[str(path)], **settings).build()


def answer(built: decontaminate.Decontaminate, text: str) -> Document | Drop:
    return built.apply(Document("d", text, "s", "d"))


def test_a_shared_run_drops_and_names_its_row(tmp_path: Path) -> None:
    row, text = words(1, 40), words(2, 100)
    built = step(tmp_path, [{"text": " ".join(words(3, 30))}, {"text": " ".join(row)}])
    clean = " ".join(text + row[5:17])
    assert answer(built, clean) == Document("d", clean, "s", "d")
    shared = [word.upper() + "," for word in row[5:18]]
    drop = answer(built, "\n".join([*text, *shared, *text]))
    assert isinstance(drop, Drop)
    assert drop.reason == "contaminated"
    assert drop.detail is not None
    assert drop.detail.startswith(f"test.jsonl, line 2: '{shared[0]} {shared[1]}")
    assert len(drop.detail) < 120


def test_the_same_as_a_plain_search(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [" ".join(rng.choices("abcd", k=rng.randrange(1, 9))) for _ in range(40)]
    settings = {"num_words": 6, "min_words": 4}
    built = step(tmp_path, rows, **settings)
    wanted = set()
    for row in map(str.split, rows):
        if len(row) >= 6:
            runs = {tuple(row[at : at + 6]) for at in range(len(row) - 5)}
            wanted |= {run for run in runs if len(set(run)) >= 3}
        elif len(row) >= 4:
            wanted.add(tuple(row))
    num_dropped = 0
    for _ in range(1500):
        text = rng.choices("abcd", k=rng.randrange(1, 30))
        runs = {tuple(text[at : at + n]) for n in (4, 5, 6) for at in range(len(text) - n + 1)}
        is_dropped = isinstance(answer(built, " ".join(text)), Drop)
        assert is_dropped == bool(runs & wanted), text
        num_dropped += is_dropped
    assert 100 < num_dropped < 1400


def test_runs_do_not_cross_from_row_to_row(tmp_path: Path) -> None:
    rows = [" ".join(words(seed, 14)) for seed in range(50)]
    built = step(tmp_path, rows)
    between = " ".join(rows).split()[7:23]  # seven of one row, nine of the next
    assert isinstance(answer(built, " ".join(between)), Document)
    assert isinstance(answer(built, rows[30]), Drop)


def test_characters_where_the_script_has_no_spaces(tmp_path: Path) -> None:
    poem = "國破山河在，城春草木深。感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。"
    built = step(tmp_path, [{"poem": poem}, {"short": "白日依山盡，黃河入海流。欲窮千里目"}, "海上生明月"])
    assert isinstance(answer(built, "前言" + poem[3:25] + "後記"), Document)  # 19 characters without punctuation
    assert isinstance(answer(built, "前言" + poem[3:28] + "後記"), Drop)
    assert isinstance(answer(built, "唐詩：白日依山盡\n黃河入海流\n欲窮千里目\n更上一層樓"), Drop)
    assert isinstance(answer(built, "海上生明月，天涯共此時。"), Document)


def test_fields_and_tables_of_numbers(tmp_path: Path) -> None:
    row, other = " ".join(words(4, 20)), " ".join(words(5, 20))
    built = step(
        tmp_path, [{"question": row, "source": other, "table": "0 0 0 1 0 " * 10}], fields=["question", "table"]
    )
    assert isinstance(answer(built, row), Drop)
    assert isinstance(answer(built, other), Document)
    assert isinstance(answer(built, "0 0 0 1 0 " * 10), Document)


def test_cut_takes_the_overlap_and_its_margins(tmp_path: Path) -> None:
    row = words(6, 20)
    built = step(tmp_path, [" ".join(row)], action="cut", margin=50)
    before, after = " ".join(words(7, 60)) + " 𝒳🙂", "🙂 " + " ".join(words(8, 60))
    given = answer(built, f"{before} {' '.join(row)} {after}")
    assert isinstance(given, Document)
    left, right = given.text.split("\n\n")
    assert before.startswith(left)
    assert after.endswith(right)
    assert 45 <= len(before) - len(left) <= 50
    assert 45 <= len(after) - len(right) <= 50
    assert given.found == {"overlaps": 8}
    assert isinstance(answer(built, " ".join(row) + " too little is left"), Drop)
    many = " ".join(f"{' '.join(words(seed, 60))} {' '.join(row)}" for seed in range(12))
    assert isinstance(answer(built, many), Drop)


def test_fewest_runs(tmp_path: Path) -> None:
    row = words(9, 40)
    built = step(tmp_path, [" ".join(row)], min_runs=5)
    assert isinstance(answer(built, " ".join(row[:16])), Document)
    assert isinstance(answer(built, " ".join(row[:13] * 9)), Document)
    assert isinstance(answer(built, " ".join(row[:17])), Drop)


def test_the_files_are_inputs(tmp_path: Path) -> None:
    built = step(tmp_path, ["some text"])
    (name,) = built.config.input_hashes()
    assert re.fullmatch(r"decontaminate\.against:.*test\.jsonl", name)
    with pytest.raises(UserError, match="must be given evaluation files"):
        decontaminate.Config(kind="decontaminate").input_hashes()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UserError, match="min_words must be at most num_words"):
        validate(decontaminate.Config, {"num_words": 5}, "decontaminate")
