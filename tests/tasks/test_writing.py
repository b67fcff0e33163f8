"""Translation and summarization: learnt by heart by encoder-decoders and decoders, the loss on the target alone, the
truth decoded to itself, and written by transformers as by us."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.decoding.beam import Hypothesis
from foundling.objectives.base import Scale
from foundling.serve.load import load
from foundling.tasks import _writing
from foundling.tasks._writing import Example, PromptRow, prompted_batch
from foundling.tasks.base import RowFault
from foundling.tasks.translation import Config
from foundling.tokenizers.base import Tokenizer
from foundling.train.finetune import finetune
from foundling.train.finetune_recipe import FinetuneRecipe
from tests.tasks.small import base_folder, recipe, write_rows
from tests.tiny import END, sentences, tiny_model, tiny_tokenizer

ROWS = [
    {"source": f"w{7 + i} w{9 + i}", "target": f"w{30 + (i * 7) % 10} w{20 + i} w{31 + i} w8 w{9 + i}"}
    for i in range(10)
]
PROMPT = "w6 {source} w6"


def task(path: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "translation", "train": str(path), "max_target": 8, "prompt": PROMPT, **changes}


@pytest.mark.parametrize("name", ["seq2seq", "gpt", "gpt2", "prefix"])
def test_ten_pairs_are_learnt_by_heart_and_written_from_the_folder(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    given = recipe(tmp_path / "run", base_folder(tmp_path, name), task(path, dev=str(path)), length="120 steps")
    run = finetune(
        given.model_copy(update={"evaluate": given.evaluate.model_copy(update={"every": given.train.length})})
    )
    assert run.summary["dev"]["bleu"] == pytest.approx(100.0)
    lm = load(run.folder)
    answers = lm.predict([{"source": row["source"]} for row in ROWS])
    assert [a["text"] for a in answers] == [row["target"] for row in ROWS]
    lm.task.config = lm.task.config.model_copy(update={"num_answers": 3})
    best = lm.predict(ROWS[:1])[0]["answers"]
    assert len(best) == 3
    assert [one["score"] for one in best] == sorted((one["score"] for one in best), reverse=True)


def test_a_model_from_initial_weights_gets_a_tokenizer_of_the_examples(tmp_path: Path) -> None:
    words = ["a", "man", "woman", "dog", "runs", "sees", "under", "old", "red", "house", "and", "then"]
    rows = [
        {"source": f"{words[i % 12]} {words[(i * 5) % 12]}", "target": f"{words[(i + 1) % 12]} {words[(i * 7) % 12]}"}
        for i in range(24)
    ]
    path = write_rows(tmp_path / "train.jsonl", rows)
    data = {
        "name": "new", "out": str(tmp_path / "run"), "task": task(path, dev=str(path), beams=1),
        "model": {"family": "seq2seq", "size": {"layers": 1, "width": 16, "heads": 2}},
        "tokenizer": {"kind": "bpe", "vocab_size": 270},
        "train": {"length": "2 steps", "batch": "8 rows", "compile": False, "precision": "fp32"},
    }  # fmt: skip
    run = finetune(validate(FinetuneRecipe, data, "recipe"))
    assert run.summary["finished"]
    assert load(run.folder).tokenizer.vocab_size == 270
    fields = {"text": "source", "label": "target"}
    wrong = {**data, "task": {"kind": "classification", "train": str(path), "fields": fields}}
    wrong["out"] = str(tmp_path / "other")
    with pytest.raises(UserError, match="needs a pretrained base"):
        finetune(validate(FinetuneRecipe, wrong, "recipe"))


@pytest.mark.parametrize("prefix", [False, True])
def test_the_loss_reads_the_target_alone(prefix: bool) -> None:
    """What a decoder's loss is: the mean of the target's own losses, each from all before it."""
    model = tiny_model("gpt", prefix=prefix, max_positions=32, init_std=0.3)
    tokens = [np.array([7, 8, 9, 10, 11, END]), np.array([12, 13, 14, END])]
    rows = [PromptRow(i, 0, i, t, prompt_tokens=p) for i, (t, p) in enumerate(zip(tokens, (3, 2), strict=True))]
    made = Config(train=("x",), prompt=PROMPT).build(tiny_tokenizer(), model.config, {})
    batch = made.collate(rows)
    assert batch.targets_M.tolist() == [10, 11, END, 14, END]
    loss = made.loss(model, batch, Scale(1 / batch.num_targets, 1.0), False).parts["causal"].item()
    alone = [made.scores(model, prompted_batch([row], [row.prompt_tokens], prefix=prefix))["loss"] for row in rows]
    assert loss == pytest.approx(torch.cat(alone).mean().item(), rel=1e-5)
    if not prefix:
        row = torch.from_numpy(tokens[0])
        from foundling.data.batch import rows_batch

        logits = model(rows_batch(row[None, :-1], row[None, 1:])).logits()
        expected = torch.nn.functional.cross_entropy(logits[2:], row[3:], reduction="none")
        torch.testing.assert_close(alone[0], expected.detach(), atol=1e-5, rtol=1e-5)


def test_long_texts_are_cut_to_what_the_model_holds() -> None:
    model = tiny_model("gpt", max_positions=24)
    made = Config(train=("x",), prompt=PROMPT, max_target=8).build(tiny_tokenizer(), model.config, {})
    (row,) = made.rows([Example(" ".join(["w9"] * 50), (" ".join(["w10"] * 50),))])
    assert len(row.tokens) <= 24
    assert row.tokens[-1] == END
    with pytest.raises(UserError, match="max_target"):
        Config(train=("x",), prompt=PROMPT, max_target=24).build(tiny_tokenizer(), model.config, {}).rows(
            [Example("w9")]
        )


@pytest.mark.parametrize(
    "row", [{"source": " ", "target": "w7"}, {"source": "w7", "target": ""}, {"source": "w7", "target": [3]}]
)
def test_rows_that_make_no_example(row: dict[str, Any]) -> None:
    with pytest.raises(RowFault, match=r"its (source|target) must be text"):
        Config(train=("x",)).example(row, known=True)


@pytest.mark.parametrize("name", ["seq2seq", "gpt", "prefix"])
def test_ten_summaries_are_learnt_by_heart(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"document": r["source"], "summary": r["target"]} for r in ROWS])
    data = {"kind": "summarization", "train": str(path), "dev": str(path), "max_target": 8, "prompt": PROMPT}
    given = recipe(tmp_path / "run", base_folder(tmp_path, name), data, length="120 steps")
    run = finetune(
        given.model_copy(update={"evaluate": given.evaluate.model_copy(update={"every": given.train.length})})
    )
    assert run.summary["dev"]["rougeL"] == pytest.approx(1.0)
    answers = load(run.folder).predict([{"document": row["source"]} for row in ROWS])
    assert [answer["text"] for answer in answers] == [row["target"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "kind"), [("gpt", "translation"), ("llama", "summarization"), ("gpt2", "translation")]
)
def test_transformers_reads_the_folder_and_writes_the_same_texts(tmp_path: Path, name: str, kind: str) -> None:
    """Greedily, from the same ids, until the end that the folder tells it of."""
    source, target = load_part("tasks", kind).Config.roles
    path = write_rows(tmp_path / "train.jsonl", [{source: row["source"], target: row["target"]} for row in ROWS])
    given = {**task(path, beams=1), "kind": kind}
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), given, length="40 steps"))
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(run.model_dir, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_dir)
    texts = []
    for row in ROWS:
        ids = tokenizer(PROMPT.format(source=row["source"]), add_special_tokens=False, return_tensors="pt").input_ids
        written = theirs.generate(ids, do_sample=False, num_beams=1, max_new_tokens=8)
        texts.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip())
    answers = load(run.folder).predict([{source: row["source"]} for row in ROWS])
    assert [answer["text"] for answer in answers] == texts
    lengths = {len(text.split()) for text in texts}
    assert len(set(texts)) > 5, "all differ by what they are of"
    assert min(lengths) < 8, "some end by themselves"


@pytest.mark.parametrize("name", ["seq2seq", "gpt"])
@pytest.mark.parametrize("tokenizer_kind", ["bpe", "wordpiece", "unigram", "char"])
@pytest.mark.parametrize("kind", ["translation", "summarization"])
def test_what_is_true_is_what_is_decoded_from_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, tokenizer_kind: str, name: str
) -> None:
    """Of texts in two scripts; WordPiece keeps neither white space nor case, and nothing else is lost."""
    tokenizer = trained_tokenizer(tokenizer_kind)
    config = load_part("tasks", kind).Config(kind=kind, train=("x",), max_target=400, prompt="{source} = ")
    made = config.build(tokenizer, tiny_model(name, tokenizer.vocab_size, max_positions=512).config, {})
    texts = [*sentences(10, seed=3), "a  silent step.   And", "夜来 风雨 bridge"]
    examples = [Example("why", (text,)) for text in texts]
    truth = [made.collate([row]).targets_M.tolist() for row in made.rows(examples)]
    assert {ids[-1] for ids in truth} == {tokenizer.eos_id}

    def written(*_: Any, **settings: Any) -> list[list[Hypothesis]]:
        assert settings["stop_ids"] == {tokenizer.eos_id}
        return [[Hypothesis(tuple(ids[:-1]), 0.0, 0.0, ended=True)] for ids in truth]

    monkeypatch.setattr(_writing, "beam_search", written)
    found = [answer["text"] for answer in made.answers(torch.nn.Identity(), examples)]
    if tokenizer_kind == "wordpiece":
        found, texts = (["".join(text.split()).casefold() for text in side] for side in (found, texts))
    assert found == texts


@cache
def trained_tokenizer(kind: str) -> Tokenizer:
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "eos": "[EOS]"}
    size = {"bpe": 330, "wordpiece": 180, "unigram": 380, "char": 82}[kind]
    config = load_part("tokenizers", kind).Config(kind=kind, vocab_size=size, special_tokens=special)
    tokenizer: Tokenizer = config.build().train(sentences(60))
    return tokenizer


def test_what_is_cut_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    body = tiny_model("seq2seq").config
    config = Config(train=("x",), max_target=4, max_length=8)
    task = config.build(tiny_tokenizer(body.vocab_size), body, {})
    task.rows([Example("w7 w8", ("w9",))])
    assert not caplog.text
    for _ in range(2):
        task.rows([Example("w7 " * 34_000, ("w9 " * 34_000,)), Example("w7", ("w9",))])  # 100,000 characters
    assert caplog.text.count("1 of 2 sources have more than 7 tokens: their ends are not read") == 1
    assert caplog.text.count("1 of 2 targets have more than max_target = 3 tokens and an end") == 1


def test_a_text_alone_is_the_source_and_targets_are_not_read_where_none_is_asked_for() -> None:
    config = Config(train=("x",), fields={"source": "english"})
    assert config.example(config.of_text("w7"), known=False) == Example("w7")
    assert config.example({"english": "w7", "target": ""}, known=False) == Example("w7")
