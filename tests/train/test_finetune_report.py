"""The page of a fine-tuning shows what its folder says, for answers of every shape, and stands alone."""

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.train.cases import NOTHING, cases_of, confusion
from foundling.train.finetune import finetune
from foundling.train.finetune_report import _matrix, write_finetune_report
from foundling.train.run import Run
from tests.tasks.small import base_folder, recipe, write_rows
from tests.train.test_report import Tags

ROWS = [{"text": f"w{7 + i} w{8 + (i * 3) % 9} <b>w{20 + i}</b>", "label": "abc"[i % 3]} for i in range(20)]


def answer(said: str, sure: float = 0.8) -> dict[str, Any]:
    others = [label for label in "abc" if label != said]
    return {"label": said, "probabilities": {said: sure, **dict.fromkeys(others, (1 - sure) / 2)}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    files = {split: str(write_rows(folder / f"{split}.jsonl", ROWS)) for split in ("train", "dev", "test")}
    task = {"kind": "classification", **files}
    return finetune(recipe(folder / "run", base_folder(folder, "bert"), task, length="8 steps", log_every=2))


def page_of(folder: Path) -> str:
    return write_finetune_report(folder).read_text(encoding="utf-8")


def test_a_run_leaves_its_page(run: Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.open == []
    assert tags.seen.count("svg") == 7, "loss, four figures of dev, the rate, calibration"
    test = run.summary["test"]
    low, high = test["intervals"]["accuracy"]
    for text in (
        f"{test['accuracy']:.4f}",
        f"{low:.4f} to {high:.4f}",
        "20 train, 20 dev, 20 test examples",
        "8 steps",
    ):
        assert text in page, text
    assert f"temperature {run.summary['facts']['temperature']:g}" in page
    for line in test["settings"].values():
        assert line in page


def test_the_page_is_made_of_the_folder_alone_and_again(run: Run, tmp_path: Path) -> None:
    there = (run.folder / "report.html").read_bytes()
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("model", "checkpoint-*", "*.html"))
    assert write_finetune_report(tmp_path / "run").read_bytes() == there


def test_texts_are_escaped_and_nothing_is_loaded(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("model", "checkpoint-*"))
    row = {"text": "<script>alert(1)</script>", "label": "a", "answer": answer("b")}
    write_rows(tmp_path / "run" / "answers-test.jsonl", [row] * 3)
    page = page_of(tmp_path / "run")
    assert "script" not in Tags(page).seen
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=|url\(|@import|https?:", page)


def test_several_seeds_are_shown_with_mean_and_spread(tmp_path: Path) -> None:
    train = str(write_rows(tmp_path / "rows.jsonl", ROWS))
    task = {"kind": "classification", "train": train, "dev": train}
    given = recipe(tmp_path / "run", base_folder(tmp_path, "bert"), task, length="2 steps")
    found = finetune(given.model_copy(update={"seeds": 2}))
    spread = found.summary["seeds"]["dev"]["nll"]
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert f"{spread['mean']:.4f} ± {spread['std']:.4f}" in page
    assert f"of seed {found.summary['best_seed']}, the best one on dev" in page


def test_confusion_by_hand() -> None:
    rows = [
        {"text": "x", "label": true, "answer": answer(said)}
        for true, said in [("a", "a"), ("a", "b"), ("a", "b"), ("b", "b"), ("c", "a")]
    ]
    found = cases_of(rows)
    assert found is not None
    assert found.confusion is not None
    assert found.confusion.labels == ["a", "b", "c"]
    assert found.confusion.counts_KK.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    by_label = {one.label: one for one in found.labels}
    assert (by_label["b"].right, by_label["b"].said, by_label["b"].true) == (1, 3, 1)
    assert (by_label["a"].precision, by_label["a"].recall, by_label["a"].f1) == (1 / 2, 1 / 3, 2 / 5)
    assert by_label["c"].f1 == 0


def test_entities_are_confused_by_type_and_with_nothing() -> None:
    row = {
        "tokens": ["Ada", "saw", "New", "York", "and", "Rome"],
        "tags": ["B-PER", "O", "B-LOC", "I-LOC", "O", "B-LOC"],
        "answer": {
            "tags": ["B-PER", "B-PER", "B-ORG", "I-ORG", "O", "O"],
            "entities": [
                {"start": 0, "end": 1, "label": "PER", "score": 0.99},
                {"start": 1, "end": 2, "label": "PER", "score": 0.4},
                {"start": 2, "end": 4, "label": "ORG", "score": 0.7},
            ],
        },
    }
    found = cases_of([row])
    assert found is not None
    assert found.confusion is not None
    labels, counts = found.confusion.labels, found.confusion.counts_KK
    at = {label: k for k, label in enumerate(labels)}
    assert labels == ["LOC", "ORG", "PER", NOTHING]
    expected = np.zeros((4, 4), dtype=int)
    for pair in [("PER", "PER"), (NOTHING, "PER"), ("LOC", "ORG"), ("LOC", NOTHING)]:
        expected[at[pair[0]], at[pair[1]]] += 1
    assert counts.tolist() == expected.tolist()
    (case,) = found.worst(5)
    assert case.text == "Ada saw New York and Rome"
    assert case.said == "PER: Ada; PER: saw; ORG: New York"
    assert case.confidence == 0.7, "of the likeliest mistake"
    points = [(one.confidence, one.accuracy, one.num_examples) for one in found.curve]
    assert points == [(0.4, 0.0, 1), (0.7, 0.0, 1), (0.99, 1.0, 1)], "entities that are right, by their probability"


def test_the_worst_are_wrong_and_sure() -> None:
    rows = [
        {"text": name, "label": true, "answer": answer("a", sure)}
        for name, true, sure in [("right", "a", 0.99), ("doubtful", "b", 0.4), ("sure", "c", 0.95)]
    ]
    found = cases_of(rows)
    assert found is not None
    assert [case.text for case in found.worst(5)] == ["sure", "doubtful"]


@pytest.mark.parametrize(
    ("rows", "text", "said"),
    [
        ([{"source": "s", "targets": ["der Hund"], "answer": {"text": "die Katze"}},
          {"source": "t", "targets": ["der Hund"], "answer": {"text": "der Hut"}}], "s", "die Katze"),
        ([{"question": "q", "context": "c", "answers": ["the sea"], "answer": {"answer": "a hill", "score": 0.5}},
          {"question": "r", "context": "c", "answers": ["the sea"], "answer": {"answer": "sea", "score": 0.9}}],
         "q\nc", "a hill"),
        ([{"text": "x", "label": 1.0, "answer": {"number": 3.0}},
          {"text": "y", "label": 1.0, "answer": {"number": 1.5}}],
         "x", "3"),
        ([{"text": "x", "label": ["a", "b"], "answer": {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.1}}},
          {"text": "y", "label": ["a", "b"], "answer": {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.4}}}],
         "x", "a"),
        ([{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
           "answer": {"text": "bye"}}], "user: hi", "bye"),
    ],
    ids=["text", "answer", "number", "labels", "messages"],
)  # fmt: skip
def test_answers_of_every_shape_have_a_worst_one(rows: list[dict[str, Any]], text: str, said: str) -> None:
    found = cases_of(rows)
    assert found is not None
    assert (found.worst(1)[0].text, found.worst(1)[0].said) == (text, said)


def test_answers_and_labels_have_a_reliability_curve() -> None:
    qa = [
        {"question": "q", "context": "c", "answers": ["the sea"], "answer": {"answer": said, "score": sure}}
        for said, sure in (("sea", 0.9), ("a sea here", 0.5))
    ]
    labels = [{"text": "x", "label": ["a"], "answer": {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.3}}}]
    for rows, expected in ((qa, [(0.5, 0.0), (0.9, 1.0)]), (labels, [(0.3, 0.0), (0.9, 1.0)])):
        found = cases_of(rows)
        assert found is not None
        assert [(one.confidence, one.accuracy) for one in found.curve] == expected


def test_lengths_fall_into_groups_that_hold_all() -> None:
    rows = [{"text": "x" * (1 + i // 2), "label": "a", "answer": answer("a" if i < 20 else "b")} for i in range(40)]
    found = cases_of(rows)
    assert found is not None
    groups = found.by_length()
    assert sum(number for _, _, number, _ in groups) == 40
    assert all(a[1] < b[0] for a, b in pairwise(groups))
    assert groups[0][3] == 1.0
    assert groups[-1][3] == 0.0


def test_the_relation_s_entities_are_marked() -> None:
    row = {"text": "the dog bit a man", "label": "a", "head": [4, 7], "tail": [14, 17], "answer": answer("b")}
    found = cases_of([row])
    assert found is not None
    assert found.cases[0].text == "the [dog]e1 bit a [man]e2"


def test_shapes_that_nobody_knows_leave_the_figures(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("model", "checkpoint-*"))
    write_rows(tmp_path / "run" / "answers-test.jsonl", [{"text": "x", "answer": {"tree": "(S)"}}])
    page = page_of(tmp_path / "run")
    assert Tags(page).open == []
    assert "Worst errors" not in page
    assert "accuracy on test" in page


def test_many_labels_are_put_together() -> None:
    many = confusion([(f"l{i:02}", f"l{i:02}") for i in range(40) for _ in range(1 + i)])
    found = _matrix(many)
    assert len(found["labels"]) == 20
    assert found["labels"][-1] == "21 others"
    assert sum(cell["count"] for row in found["rows"] for cell in row["cells"]) == many.counts_KK.sum()


def test_a_folder_without_a_summary_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary.json is missing"):
        write_finetune_report(tmp_path)
