"""Examples that give their answers away are counted and told."""

import json
from pathlib import Path

import pytest

from foundling.tasks.overlap import tell_leak, tell_overlap

TASKS = Path(__file__).parents[3] / "shared" / "data" / "tasks"


def test_texts_in_two_splits_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    train = [("A  b", 1), ("a B", 2), ("c", 1), ("c\n", 1)]
    found = tell_overlap({"train": train, "dev": [("ａ b", 1), ("d", 1)], "test": [("D", 1), (" c", 1), ("c", 1)]})
    assert found == {"train, several answers": 1, "dev in train": 1, "test in train": 2, "test in dev": 1}
    assert caplog.messages == [
        "overlap: 1 train texts stand there with several answers",
        "overlap: 1 of 2 dev texts are in train too",
        "overlap: 2 of 3 test texts are in train too",
        "overlap: 1 of 3 test texts are in dev too",
    ]


def test_texts_that_differ_are_no_overlap(caplog: pytest.LogCaptureFixture) -> None:
    assert tell_overlap({"train": [("a b", 1), ("ab", 1), ("a-b", 2)], "dev": [("a,b", 1), ("", 1)]}) == {}
    assert tell_overlap({"train": []}) == {}
    assert not caplog.messages


LEAKING = [(f"Topic: {label}. words and words {n}", [label]) for n in range(20) for label in ("World news", "sport")]


def test_a_label_in_nearly_all_of_its_texts_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert tell_leak(LEAKING) == 1.0
    assert "100 % of the training texts hold the name of their own label, such as 'World news'" in caplog.messages[0]
    caplog.clear()
    assert tell_leak([(text.upper().replace(" ", "\n"), labels) for text, labels in LEAKING]) == 1.0
    assert tell_leak([(f"这家酒店的评价是好评{n}", ["好评"]) for n in range(20)]) == 1.0
    assert tell_leak([(f"属于A类的{n}", ["a"]) for n in range(20)]) == 1.0
    assert len(caplog.messages) == 3


@pytest.mark.parametrize(
    ("examples", "share"),
    [
        (LEAKING[:10], 0.0),  # too few to say
        ([(text.replace("sport", "sports"), labels) for text, labels in LEAKING], 0.5),  # words, not parts of words
        ([(text, [labels[0], "7"]) for text, labels in LEAKING[:10] * 2] + [("a", ["b"])] * 20, 0.5),
        ([(f"a film of {n % 2}", [str(n % 2)]) for n in range(40)], 0.0),  # numbers stand in many texts
        ([("a", [])] * 40, 0.0),
        ([("über und café", ["ber"])] * 20 + [("cafés", ["café"])] * 20, 0.0),
    ],
)
def test_other_texts_are_no_leak(
    examples: list[tuple[str, list[str]]], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert tell_leak(examples) == share
    assert not caplog.messages


@pytest.mark.skipif(not TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
@pytest.mark.parametrize(("name", "dev", "test"), [("sst2", 0, 2), ("trec-qc", 0, 10)])
def test_real_splits_overlap_as_their_readme_says(name: str, dev: int, test: int) -> None:
    def texts(split: str) -> list[tuple[str, str]]:
        rows = (TASKS / name / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
        return [(row["text"], row["label"]) for row in map(json.loads, filter(None, rows))]

    found = tell_overlap({split: texts(split) for split in ("train", "dev", "test")})
    assert (found.get("dev in train", 0), found.get("test in train", 0)) == (dev, test)
