"""Questions answered from a text: learnt by heart by every family, cut from the text as it is, the same in windows,
in transformers and after loading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.serve.load import load
from foundling.tasks.base import RowFault
from foundling.tasks.qa import Config, Qa, Window, best_pieces, fitted_threshold
from foundling.tokenizers.base import Tokenizer
from foundling.train.finetune import finetune
from tests.tasks.small import FAMILIES, base_folder, recipe, write_rows
from tests.tiny import sentences, tiny_model, tiny_tokenizer

CONTEXT = "w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20 w21"
ANSWERS = ("w10", "w12 w13", "w15", "w19 w20 w21", "w17", "w11 w12", "w21", "w13 w14", "w18", "w16 w17")
ROWS = [
    {
        "id": f"q{i}",
        "question": f"w{30 + i} w{29 - i % 3}",
        "context": CONTEXT,
        "answers": {"text": [text], "answer_start": [CONTEXT.index(text)]},
    }
    for i, text in enumerate(ANSWERS)
]


def asks(path: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "qa", "train": str(path), **changes}


def qa_task(tokenizer: Tokenizer, *, max_positions: int = 64, unanswerable: bool = False, **settings: Any) -> Qa:
    """A task without a model."""
    body = tiny_model("bert", tokenizer.vocab_size, max_positions=max_positions).config
    found = validate(Config, {"train": ["x"], **settings}, "task")
    return found.build(tokenizer, body, {"unanswerable": unanswerable})


def trained_tokenizer(kind: str) -> Tokenizer:
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    size = {"bpe": 330, "wordpiece": 100, "unigram": 380, "char": 70}[kind]
    config = load_part("tokenizers", kind).Config(kind=kind, vocab_size=size, special_tokens=special)
    tokenizer: Tokenizer = config.build().train(sentences(60))
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_examples_are_learnt_by_heart_and_answered_from_the_folder(tmp_path: Path, family: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(
        recipe(tmp_path / "run", base_folder(tmp_path, family), asks(path, dev=str(path)), length="80 steps")
    )
    assert run.summary["dev"]["exact_match"] == 1.0
    lm = load(run.folder)
    answers = lm.predict([{"question": row["question"], "context": row["context"]} for row in ROWS])
    assert tuple(answer["answer"] for answer in answers) == ANSWERS
    for answer in answers:
        assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"]
        assert answer["no_answer"] == 0.0
        assert answer["score"] == answer["candidates"][0]["score"] == max(c["score"] for c in answer["candidates"])
    (alone,) = lm.predict([ROWS[3]])  # products of another size may round otherwise, and scores have six decimals
    for one, other in zip([alone, *alone["candidates"]], [answers[3], *answers[3]["candidates"]], strict=True):
        assert (one["answer"], one["start"], one["end"]) == (other["answer"], other["start"], other["end"])
        assert one["score"] == pytest.approx(other["score"], abs=3e-6)
    written = [json.loads(line) for line in (run.folder / "answers-dev.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in written] == answers
    assert written[1]["answers"] == ["w12 w13"]


@pytest.mark.parametrize("family", FAMILIES)
def test_that_nothing_answers_is_learnt_too(tmp_path: Path, family: str) -> None:
    """As in SQuAD 2.0; the run fits how sure an absence must be."""
    rows = [
        row if i % 2 else {**row, "answers": {"text": [], "answer_start": []}, "is_impossible": True}
        for i, row in enumerate(ROWS)
    ]
    path = write_rows(tmp_path / "train.jsonl", rows)
    run = finetune(
        recipe(tmp_path / "run", base_folder(tmp_path, family), asks(path, dev=str(path)), length="80 steps")
    )
    assert run.summary["dev"]["exact_match/answerable"] == run.summary["dev"]["exact_match/unanswerable"] == 1.0
    assert "threshold" in run.summary["facts"]
    for row, answer in zip(rows, load(run.folder).predict(rows), strict=True):
        if row["answers"]["text"]:
            assert answer["no_answer"] < answer["score"]
        else:
            assert (answer["answer"], answer["start"], answer["end"]) == ("", None, None)
            assert answer["score"] == answer["no_answer"] > answer["candidates"][0]["score"]


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt", "llama", "gpt2", "xlnet"])
def test_transformers_reads_the_folder_and_computes_the_same_scores(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), asks(path), length="2 steps"))
    lm = load(run.folder)
    kind = transformers.AutoModelForQuestionAnswering
    theirs, told = kind.from_pretrained(run.model_dir, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    rows = lm.task.rows([lm.task.config.example(row, known=True) for row in ROWS[:3]])
    for row, expected in zip(rows, lm.task.outputs(lm.model, rows), strict=True):
        given = {"input_ids": torch.from_numpy(row.tokens)[None]}
        if name in ("bert", "xlnet"):
            given["token_type_ids"] = torch.from_numpy(row.segments)[None]
        with torch.no_grad():
            said = theirs.eval()(**given)
        scores = torch.stack([said.start_logits[0], said.end_logits[0]], -1).numpy()[row.places]
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)


def gold_scores(rows: list[Window]) -> list[np.ndarray]:
    """What a model would say that knows the truth."""
    found = []
    for row in rows:
        assert row.truth is not None
        scores_P2 = np.zeros((len(row.places), 2), np.float32)
        scores_P2[row.truth, [0, 1]] = 9.0
        found.append(scores_P2)
    return found


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "char"])
@pytest.mark.parametrize("max_length", [None, 40])
def test_decoding_the_truth_gives_the_answer(kind: str, max_length: int | None) -> None:
    """Of texts in two scripts with odd white space, for answers of whole tokens; in windows or whole."""
    task = qa_task(trained_tokenizer(kind), max_positions=512, max_length=max_length, stride=12, unanswerable=True)
    rng = np.random.default_rng(0)
    examples = []
    for number, text in enumerate(sentences(15, seed=3)):
        context = ("  " + text.replace(". ", ".\n\n ").replace("，", "， "))[:180]
        _, offsets = task.tokenizer.encode_offsets(context)
        spans = offsets[offsets[:, 0] < offsets[:, 1]]
        for _ in range(4):
            first = int(rng.integers(len(spans) - 6))
            start, end = int(spans[first, 0]), int(spans[first + int(rng.integers(5)), 1])
            data = {"question": "why " * 40, "context": context, "id": number}
            data["answers"] = [{"text": context[start:end], "answer_start": start}]
            examples.append(task.config.example(data, known=True))
        examples.append(task.config.example({**data, "answers": []}, known=True))
    rows = task.rows(examples)
    assert max(len(row.tokens) for row in rows) <= task.max_length
    assert (len(rows) > len(examples)) == (max_length is not None)
    answers = task.decode(examples, rows, gold_scores(rows))
    assert [a["answer"] for a in answers] == [e.answers[0].text if e.answers else "" for e in examples]
    assert [a["start"] for a in answers] == [e.answers[0].start if e.answers else None for e in examples]


def test_windows_answer_as_the_whole_context_does() -> None:
    """Where a token's scores do not depend on what is around it."""
    rng = np.random.default_rng(1)
    tokenizer = tiny_tokenizer(300)
    scores_V2 = rng.normal(size=(tokenizer.vocab_size, 2)).astype(np.float32)
    context = " ".join(f"w{i}" for i in rng.permutation(np.arange(20, 220)))
    examples = [Config(train=("x",)).example({"question": "w7 w8", "context": context}, known=False)]
    answers, num_rows = [], []
    for max_length in (None, 30):
        settings = {"max_length": max_length, "longest_answer": 6, "num_answers": 20}
        task = qa_task(tokenizer, max_positions=512, unanswerable=True, **settings)
        rows = task.rows(examples)
        num_rows.append(len(rows))
        answers += task.decode(examples, rows, [scores_V2[row.tokens[row.places]] for row in rows])
    assert answers[0] == answers[1]
    assert num_rows[0] == 1 < 10 < num_rows[1]


@pytest.mark.parametrize("loss", [{"kind": "label_smoothing", "smoothing": 0.2, "z_loss": 0.01}, {"kind": "focal"}])
def test_places_are_weighed_as_the_loss_says(loss: dict[str, Any]) -> None:
    task = qa_task(tiny_tokenizer(), loss=loss)
    rows = task.rows([task.config.example(row, known=True) for row in ROWS])
    batch = task.collate(rows)
    logits_M2 = torch.randn(len(batch.target_index_M), 2, generator=torch.Generator().manual_seed(0))
    plain = task.config.loss.build()
    parts = logits_M2.split([len(row.places) for row in rows])
    expected = [plain.of_logits(p.T, torch.from_numpy(r.truth)).mean() for r, p in zip(rows, parts, strict=True)]
    torch.testing.assert_close(task.losses(logits_M2, batch), torch.stack(expected))


def test_loss_of_packed_rows_is_that_of_each_row_alone_and_torchs() -> None:
    task = qa_task(tiny_tokenizer())
    rows = task.rows(
        [task.config.example({**row, "context": f"{CONTEXT} {'w9 ' * i}"}, known=True) for i, row in enumerate(ROWS)]
    )
    batch = task.collate(rows)
    logits_M2 = torch.randn(len(batch.target_index_M), 2, generator=torch.Generator().manual_seed(0)) * 30
    logits_M2.requires_grad_()
    losses_R = task.losses(logits_M2, batch)
    losses_R.sum().backward()
    parts = logits_M2.detach().split([len(row.places) for row in rows])
    assert len({len(part) for part in parts}) > 3
    for number, (row, part_P2) in enumerate(zip(rows, parts, strict=True)):
        expected = F.cross_entropy(part_P2.T, torch.from_numpy(row.truth)).item()
        assert losses_R[number].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert task.losses(part_P2, task.collate([row])).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    sums_R2 = torch.stack([part.sum(0) for part in logits_M2.grad.split([len(row.places) for row in rows])])
    torch.testing.assert_close(sums_R2, torch.zeros_like(sums_R2), atol=1e-6, rtol=0)


def test_best_pieces_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        scores = rng.normal(size=(size, 2))
        pairs = [(scores[i, 0] + scores[j, 1], i, j) for i in range(size) for j in range(i, min(size, i + 4))]
        assert best_pieces(scores, 4, 5) == sorted(pairs, key=lambda x: -x[0])[:5]
    assert best_pieces(np.zeros((0, 2)), 4, 5) == []


def test_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        gaps = rng.integers(-5, 6, size=12).astype(float)
        lacking = rng.random(12) < 0.4
        said = np.where(lacking, 0.0, rng.random(12))
        bounds = [fitted_threshold(gaps, said, lacking), *np.arange(-6, 7, 0.5)]
        worth, *all_worth = (np.where(gaps > bound, lacking, said).sum() for bound in bounds)
        assert worth == pytest.approx(max(all_worth))


def test_a_question_longer_than_a_row_and_a_context_without_tokens_are_answered() -> None:
    task = qa_task(tiny_tokenizer(), max_positions=16)
    examples = [
        task.config.example({"question": "w7 " * 500, "context": "w8 " * 40}, known=False),
        task.config.example({"question": "w7", "context": "\u200b"}, known=False),
    ]
    rows = [row for row in task.rows(examples) if row.example == 0]
    assert all(len(row.tokens) <= 16 and len(row.places) > 1 for row in rows)
    nothing = [Window(0, 0, 1, np.array([2, 3, 3]), example=1, places=np.array([0]))]
    (_, answer) = task.decode(examples, [*rows, *nothing], [np.zeros((len(r.places), 2)) for r in rows] + [np.zeros(2)])
    assert (answer["answer"], answer["no_answer"], answer["candidates"]) == ("", 1.0, [])


def test_a_very_long_context_is_answered_from_its_end() -> None:
    task = qa_task(tiny_tokenizer())
    context = "w7 w8 w9 " * 11_000 + "w40"
    data = {"question": "w6", "context": context, "answers": {"text": ["w40"], "answer_start": [len(context) - 3]}}
    examples = [task.config.example(data, known=True)]
    rows = task.rows(examples)
    (answer,) = task.decode(examples, rows, gold_scores(rows))
    assert (answer["answer"], answer["end"]) == ("w40", len(context))


def answers(text: Any, start: Any) -> dict[str, Any]:
    return {"text": [text], "answer_start": [start]}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"answers": answers("w12 w13", 7)},
            r"'w12 w13' of question q0 .* at 7; there stands ' w12 w1', and it is at 8",
        ),
        ({"answers": answers("w99", 0)}, "question q0 .* nowhere"),
        ({"answers": answers("w10", -48)}, "question q0 .* it is at 0"),
        ({"answers": answers("w10", "0")}, "question q0 must be a text and the place"),
        ({"answers": answers(" ", 3)}, "question q0 must be a text and the place"),
        ({"answers": "w10"}, "answers of question q0 must be"),
        ({"answers": {"text": ["w10"], "answer_start": []}}, "answers of question q0 must be"),
        ({"is_impossible": True}, "question q0 must have an answer, or none"),
        ({"answers": [], "is_impossible": False}, "question q0 must have an answer, or none"),
        ({"question": " "}, "question must be text"),
        ({"context": 7}, "context must be text"),
    ],
)
def test_rows_that_make_no_example(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        Config(train=("x",)).example({**ROWS[0], **changes}, known=True)


def test_an_answer_without_tokens_and_training_without_answers_end_the_run(tmp_path: Path) -> None:
    task = qa_task(trained_tokenizer("wordpiece"))
    example = task.config.example(
        {"question": "w6", "context": "w7 \u0000 w8", "id": 5, "answers": answers("\u0000", 3)}, known=True
    )
    with pytest.raises(UserError, match=r"question 5 .*characters that the tokenizer reads"):
        task.rows([example])
    path = write_rows(tmp_path / "train.jsonl", [{**ROWS[0], "answers": {"text": [], "answer_start": []}}])
    with pytest.raises(UserError, match="training questions must have an answer"):
        finetune(recipe(tmp_path / "run", base_folder(tmp_path, "bert"), asks(path)))


def test_answers_that_are_too_long_to_be_said_are_told(caplog: pytest.LogCaptureFixture) -> None:
    task = qa_task(tiny_tokenizer(), longest_answer=2)
    task.rows([task.config.example(row, known=True) for row in ROWS])
    assert "1 of 10 answers" in caplog.text
