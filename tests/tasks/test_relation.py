"""Relations of two entities: learnt by heart by every family, in both directions, marked where they are, never cut
through; what is true is what is decoded from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.evaluation.judge import judge
from foundling.models.hub import save_model
from foundling.serve.load import load
from foundling.tasks.base import RowFault
from foundling.tasks.model import TaskShape
from foundling.tasks.relation import Config, Relation, kept_pieces
from foundling.tokenizers.base import Tokenizer
from foundling.train.finetune import finetune
from tests.tasks.small import FAMILIES, base_folder, recipe, write_rows
from tests.tiny import sentences, tiny_model, tiny_tokenizer

MARKERS = ["w46", "w47", "w48", "w49"]
FORWARD = "w9 <e1>w1{0}</e1> w11 w2{0} <e2>w3{0} w12</e2> w13"
BACKWARD = "w9 <e2>w1{0}</e2> w11 w2{0} <e1>w3{0} w12</e1> w13"
ROWS = [
    *({"text": FORWARD.format(i), "label": f"{'AB'[i % 2]}(e1,e2)"} for i in range(4)),
    *({"text": BACKWARD.format(i), "label": f"{'AB'[i % 2]}(e2,e1)"} for i in range(4)),
    *({"text": FORWARD.format(i), "label": "Other"} for i in (5, 6)),
]
"""The same words in both directions: only the marks tell them apart."""


def relates(path: Path | str = "x", **changes: Any) -> dict[str, Any]:
    return {"kind": "relation", "train": str(path), "markers": MARKERS, **changes}


def relation_task(family: str = "bert", **changes: Any) -> Relation:
    """A task without a model."""
    body = tiny_model(family, max_positions=changes.pop("max_positions", 64)).config
    facts = {"labels": ["a", "b"], "counts": {"a": 1, "b": 1}, "no_relation": None}
    return Config.model_validate(relates(**changes)).build(tiny_tokenizer(), body, facts)


def read_rows(task: Relation, *rows: dict[str, Any]) -> list[str]:
    """What a model reads of them."""
    found = task.rows([task.config.example(row, known=False) for row in rows])
    return [task.tokenizer.decode(row.tokens, skip_special=False) for row in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_examples_are_learnt_by_heart_and_answered_from_the_folder(tmp_path: Path, family: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    task = relates(path, dev=str(path))
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, family), task, length="80 steps"))
    assert run.summary["dev"]["f1_macro"] == run.summary["dev"]["accuracy"] == 1.0
    assert "SemEval" in run.summary["dev"]["settings"]["semeval"]
    assert run.summary["facts"]["no_relation"] == "Other"
    lm = load(run.folder)
    answers = lm.predict(ROWS)
    assert [answer["label"] for answer in answers] == [row["label"] for row in ROWS]
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-5 for answer in answers)
    written = [json.loads(line) for line in (run.folder / "answers-dev.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in written] == answers, "to the last digit of the probabilities"
    (alone,) = lm.predict([ROWS[5]["text"]])
    assert alone["label"] == answers[5]["label"]
    # the last digit that is written: products of one row and of ten add up in another order
    assert alone["probabilities"] == pytest.approx(answers[5]["probabilities"], abs=1.5e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_positions", [64, 20])
def test_what_is_true_is_what_is_decoded_from_it(family: str, max_positions: int) -> None:
    """Also of texts that are cut around their entities; figures are full marks, and those of another label are not."""
    labels = ["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "B(e2,e1)", "Other"]
    task = relation_task(family, max_positions=max_positions)
    task.facts |= {"labels": labels, "no_relation": "Other"}
    task = task.config.build(task.tokenizer, task.body, task.facts)
    given = [*ROWS, *({**row, "text": f"{'w9 ' * 30}{row['text']}"} for row in ROWS)]
    examples = [task.config.example(row, known=True) for row in given]
    rows = task.rows(examples)
    true_R = np.concatenate([row.targets for row in rows if row.targets is not None])
    eye = np.eye(len(labels), dtype=np.float32) * 20
    answers = task.decode(examples, rows, list(eye[true_R]))
    assert [answer["label"] for answer in answers] == [row["label"] for row in given]
    assert all(answer["probabilities"][row["label"]] > 0.999 for answer, row in zip(answers, given, strict=True))
    assert judge(task.measured(examples, answers)).figures["f1_macro"] == 1.0
    others = task.decode(examples, rows, list(eye[(true_R + 1) % len(labels)]))
    assert judge(task.measured(examples, others)).figures["f1_macro"] == 0.0


def test_marks_stand_around_the_entities_as_they_lie() -> None:
    texts = [
        "w9 <e1>w10</e1> w11 <e2>w12 w13</e2>",
        "<e2>w10</e2><e1> w11 w12</e1> w13",
        "w9 <e1>w10 <e2>w11</e2></e1> w12",
        "w9 <e2>w10</e2> w14 <e1>w10</e1>",
        "w9 <e1><e2>w10</e2></e1> w11",
        "w9 <e2><e1>w10</e1></e2> w11",
    ]
    assert read_rows(relation_task(), *({"text": text} for text in texts)) == [
        "[CLS] w9 w46 w10 w47 w11 w48 w12 w13 w49 [SEP]",
        "[CLS] w48 w10 w49 w46 w11 w12 w47 w13 [SEP]",
        "[CLS] w9 w46 w10 w48 w11 w49 w47 w12 [SEP]",
        "[CLS] w9 w48 w10 w49 w14 w46 w10 w47 [SEP]",
        "[CLS] w9 w46 w48 w10 w49 w47 w11 [SEP]",
        "[CLS] w9 w46 w48 w10 w49 w47 w11 [SEP]",
    ]
    assert read_rows(relation_task("gpt"), {"text": texts[1]}) == [
        "w48 w10 w49 w46 w11 w12 w47 w13 [EOS] w46 w11 w12 w47 w48 w10 w49 [EOS]"
    ]
    assert read_rows(relation_task("xlnet"), {"text": texts[0]}) == ["w9 w46 w10 w47 w11 w48 w12 w13 w49 [SEP] [CLS]"]


@pytest.mark.parametrize(
    ("family", "read"), [("bert", ["w46", "w48"]), ("xlnet", ["w46", "w48"]), ("gpt", ["w47", "w49"])]
)
def test_the_label_is_read_from_the_marks(family: str, read: list[str]) -> None:
    """In the order of the entities, not of the text."""
    task = relation_task(family)
    for text in ("w9 <e1>w10 w11</e1> w11 <e2>w12</e2>", "w9 <e2>w10</e2> <e1>w11</e1> w9"):
        (row,) = task.rows([task.config.example({"text": text}, known=False)])
        assert [task.tokenizer.token_of(token) for token in row.tokens[row.places]] == read


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_the_text_is_read(family: str) -> None:
    """Also by a decoder, and also what stands behind both entities."""
    task = relation_task(family)
    body = tiny_model(family, max_positions=64, init_std=0.2).config
    model = TaskShape(family=family, body=body, head=task.head()).build()
    model.initialize(torch.Generator().manual_seed(0))
    texts = ["w9 <e1>w10</e1> w11 <e2>w12</e2> w13", "w9 <e1>w10</e1> w11 <e2>w12</e2> w14"]
    rows = task.rows([task.config.example({"text": text}, known=False) for text in texts])
    first, second = task.outputs(model, rows)
    assert np.abs(first - second).max() > 1e-6


def test_places_and_tokens_are_read_as_marks_are() -> None:
    words = ["w9", "w10", "w11", "w12", "w13"]
    spans = {"head": {"start": 3, "end": 5}, "tail": {"start": 1, "end": 2}}
    letters = {"head": {"start": 11, "end": 18}, "tail": {"start": 3, "end": 6}}
    marked = {"text": "w9 <e2>w10</e2> w11 <e1>w12 w13</e1>"}
    examples = [
        Config(train=("x",)).example(row, known=False)
        for row in (marked, {"tokens": words, **spans}, {"text": " ".join(words), **letters})
    ]
    assert examples[0] == examples[1] == examples[2]
    assert (examples[0].text[slice(*examples[0].head)], examples[0].text[slice(*examples[0].tail)]) == (
        "w12 w13",
        "w10",
    )


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char"])
def test_marks_enclose_the_tokens_of_the_entities(kind: str) -> None:
    """Of tokenizers that cut words into pieces, in two scripts."""
    special = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    size = {"bpe": 330, "wordpiece": 100, "char": 70}[kind]
    config = load_part("tokenizers", kind).Config(
        kind=kind,
        vocab_size=size,
        special_tokens=special,
        extra_tokens=["[unused1]", "[unused2]", "[unused3]", "[unused4]"],
    )
    tokenizer: Tokenizer = config.build().train(sentences(60))
    facts = {"labels": ["a", "b"], "counts": {}, "no_relation": None}
    body = tiny_model("bert", tokenizer.vocab_size, max_positions=512).config
    task = Config(train=("x",)).build(tokenizer, body, facts)
    for text in sentences(10, seed=2):
        marked = f"{text[:20]}<e1>{text[20:30]}</e1>{text[30:33]}<e2>{text[33:41]}</e2>{text[41:]}"
        (row,) = task.rows([task.config.example({"text": marked}, known=False)])
        ids = row.tokens.tolist()
        marks = [ids.index(tokenizer.id_of(f"[unused{number}]")) for number in (1, 2, 3, 4)]
        assert marks == sorted(marks)
        assert row.places.tolist() == [marks[0], marks[2]]
        pieces = list(zip(*tokenizer.encode_offsets(text), strict=True))
        for at, end, entity in ((marks[0], marks[1], range(20, 30)), (marks[2], marks[3], range(33, 41))):
            of_entity = [token for token, (first, stop) in pieces if first < entity.stop and stop > entity.start]
            assert ids[at + 1 : end] == of_entity
        assert [token for token in ids[1:-1] if token not in [ids[at] for at in marks]] == tokenizer.encode(text)


def test_kept_pieces_hold_both_entities_whole_and_as_much_around_as_there_is_room_for() -> None:
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(3000):
        size = int(rng.integers(2, 40))
        head, tail = (tuple(sorted(rng.choice(size + 1, 2, replace=False).tolist())) for _ in range(2))
        if head[0] < tail[0] < head[1] < tail[1] or tail[0] < head[0] < tail[1] < head[1]:
            continue
        room = int(rng.integers(1, 45))
        pieces = kept_pieces(size, head, tail, room)
        if not pieces:
            inside = {*range(*head), *range(*tail)}
            assert len(inside) > room
            num_refused += 1
            continue
        kept = [token for piece in pieces for token in range(*piece)]
        assert kept == sorted(set(kept))
        assert set(kept) <= set(range(size))
        assert min(size, room) - len(kept) in ((0,) if len(pieces) == 1 else (0, 1))
        for start, end in (head, tail):
            assert any(at <= start and end <= stop for at, stop in pieces)
    assert num_refused > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_long_texts_are_cut_around_the_entities(family: str, caplog: pytest.LogCaptureFixture) -> None:
    task = relation_task(family, max_positions=20)
    far = "<e1>w20 w21</e1> " + "w9 " * 40 + "<e2>w22</e2>" + " w9" * 25_000
    near = "w9 " * 40 + "<e1>w20 w21</e1> w10 <e2>w22</e2>" + " w9" * 40
    found = read_rows(task, {"text": far}, {"text": near}, {"text": "<e1>w20</e1> <e2>w21</e2>"})
    for text in found[:2]:
        assert "w46 w20 w21 w47" in text
        assert "w48 w22 w49" in text
        assert len(text.split()) in (19, 20)
    assert "2 of 3 texts" in caplog.text
    caplog.clear()
    other = relation_task(family, max_positions=20)
    with other.adding_up_cuts():
        for text in (near, far, "<e1>w20</e1> <e2>w21</e2>", near):
            read_rows(other, {"text": text})
        assert not caplog.text, "told when all parts are known"
    assert "3 of 4 texts" in caplog.text
    with pytest.raises(UserError, match=r"example's entities must .* in 'w20 w20"):
        read_rows(task, {"text": near}, {"text": f"<e1>{'w20 ' * 30}</e1> <e2>w21</e2>"})


def test_figures_are_semevals_where_the_labels_are_and_leave_no_relation_out_elsewhere() -> None:
    def measured(labels: list[str], **facts: Any) -> list[Any]:
        task = relation_task()
        task.facts, task.labels = {"no_relation": None, **facts}, labels
        answers = [{"label": label, "probabilities": {label: 1.0}} for label in labels]
        return task.measured(
            [task.config.example({**ROWS[0], "label": label}, known=True) for label in labels], answers
        )

    directed = ["A(e1,e2)", "A(e2,e1)", "Other"]
    assert [one.metric for one in measured(directed, no_relation="Other")] == ["semeval", "calibration"]
    f1, accuracy, _ = measured(["born_in", "no_relation"], no_relation="no_relation")
    assert (f1.metric, accuracy.metric) == ("f1", "accuracy")
    assert f1.settings == {"labels": ["born_in"]}


@pytest.mark.parametrize(
    ("labels", "none"), [("xyN", None), (["a", "NA"], "NA"), (["a", "no relation"], "no relation")]
)
def test_the_label_of_no_relation_is_found(labels: list[str], none: str | None) -> None:
    config = Config(train=("x",))
    examples = [config.example({**ROWS[0], "label": label}, known=True) for label in labels]
    assert config.learn({"train": examples})["no_relation"] == none
    with pytest.raises(UserError, match="no_relation must be one of the labels"):
        Config(train=("x",), no_relation="z").learn({"train": examples})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"text": "w9 w10"}, "<e1>, </e1>, <e2> and </e2> once each"),
        ({"text": "<e1>w9</e1> <e1>w10</e1>"}, "once each"),
        ({"text": "<e1>w9</e1> <e2>w10</e2> <e2>w11</e2>"}, "once each"),
        ({"text": "</e1>w9<e1> <e2>w10</e2>"}, "<e1> must stand before </e1>"),
        ({"text": "<e1>w9</e1> <e2> </e2>"}, "<e2> must stand before </e2>, with a character"),
        ({"text": "<e1>w9 <e2>w10</e1> w11</e2>"}, "must not cross"),
        ({"text": "  "}, "text must be text"),
        ({"text": "w9 w10", "head": {"start": 0, "end": 2}, "tail": {"start": 3, "end": 7}}, "tail must lie in 0 to 6"),
        ({"text": "w9 w10", "head": {"start": 2, "end": 2}, "tail": {"start": 3, "end": 6}}, "head must lie in 0 to 6"),
        (
            {"text": "w9 w10", "head": {"start": 2, "end": 3}, "tail": {"start": 3, "end": 6}},
            "head must hold a character",
        ),
        ({"text": "w9 w10", "head": {"start": 0, "end": 2}, "tail": "w10"}, "tail must be {start, end}"),
        ({"text": "w9 w10", "head": {"start": 0, "end": 2}}, "no tail"),
        ({"text": None, "tokens": "w9 w10", "head": [0, 1], "tail": [1, 2]}, "tokens must be a list of words"),
        ({"label": " "}, "label must be"),
    ],
)
def test_rows_that_make_no_example(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        Config(train=("x",)).example({**ROWS[0], **changes}, known=True)


def test_marks_must_be_tokens_of_the_vocabulary() -> None:
    with pytest.raises(UserError, match=r"task\.markers must name four tokens .*; got neither"):
        relation_task(markers=None)
    with pytest.raises(UserError, match="got w46, w47, w48, w999"):
        relation_task(markers=["w46", "w47", "w48", "w999"])


def test_a_layer_that_reads_one_token_is_not_taken_for_one_that_reads_two(tmp_path: Path) -> None:
    save_model(
        tiny_model("bert", width=32, heads=4, max_positions=64, top="pooler"), tmp_path / "pooled",
        tokenizer=tiny_tokenizer(),
    )  # fmt: skip
    train = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", tmp_path / "pooled", relates(train), length="1 steps"))
    assert run.summary["finished"]


def test_a_label_is_not_read_where_nothing_asks_for_it() -> None:
    assert Config(train=("x",)).example({"text": FORWARD.format(1), "label": ""}, known=False).label is None
