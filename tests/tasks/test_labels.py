"""Labels are learnt from training examples, and odd ones told."""

import json
import logging

import pytest

from foundling.core.errors import UserError
from foundling.tasks.labels import learn_labels


def sets(**splits: str) -> dict[str, list[list[str]]]:
    """`a a,b -`: three examples, the last without a label."""
    return {split: [[] if one == "-" else one.split(",") for one in text.split()] for split, text in splits.items()}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("b a c a", ["a", "b", "c"]),
        ("10 9 -1 1.5 02", ["-1", "1.5", "02", "9", "10"]),
        ("b 10 9 nan inf", ["9", "10", "b", "inf", "nan"]),
        ("a,c b,a -", ["a", "b", "c"]),
        ("é e 字", ["e", "é", "字"]),
    ],
)
def test_labels_are_sorted_numbers_as_numbers(train: str, expected: list[str]) -> None:
    for text in (train, " ".join(reversed(train.split()))):
        assert learn_labels(sets(train=text)) == expected


def test_examples_are_counted_by_split() -> None:
    labels = learn_labels(sets(train="a,b,b a b -", dev="b -"))
    assert labels.counts == {"train": {"a": 2, "b": 2}, "dev": {"b": 1}}
    assert json.loads(json.dumps(labels)) == ["a", "b"]


def test_one_label_is_none_to_tell_apart() -> None:
    with pytest.raises(UserError, match="at least 2 labels to tell apart; got a 3 in 3 training examples"):
        learn_labels(sets(train="a a a"))
    with pytest.raises(UserError, match="got none in 2 training examples"):
        learn_labels(sets(train="- -"))
    assert learn_labels(sets(train="a a a"), fewest=1) == ["a"]


def test_labels_that_train_lacks_are_named_with_counts_and_rows() -> None:
    found = sets(train="a b", dev="a c", test="d c c a c")
    with pytest.raises(UserError) as told:
        learn_labels(found)
    assert "every label must be among those of train (a, b)" in str(told.value)
    assert "in dev c 1 (example 2); in test c 3, d 1 (example 1, example 2, example 3 and 1 more)" in str(told.value)
    with pytest.raises(UserError, match=r"in dev c 1 \(dev.jsonl:8\)"):
        learn_labels(sets(train="a b", dev="a c"), places={"dev": ["dev.jsonl:7", "dev.jsonl:8"]})


def test_labels_are_told_and_rare_ones_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    learn_labels(sets(train="a " * 1500 + "b " * 5 + "c " * 4 + "-"))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "labels: a 1,500, b 5, c 4"),
        ("WARNING", "labels: fewer than 5 training examples: c 4"),
        ("INFO", "labels: 1 of 1,510 training examples have none"),
    ]
    caplog.clear()
    learn_labels(sets(train="a b"), few=1)
    assert caplog.messages == ["labels: a 1, b 1"]


def test_of_many_labels_some_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    learn_labels(sets(train=" ".join(f"{n}" for n in range(30))), few=0)
    assert caplog.messages == ["labels: 0 1, 1 1, 2 1, 3 1, 4 1, 5 1, 6 1, 7 1 and 22 more"]
