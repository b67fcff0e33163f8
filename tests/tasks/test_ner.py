"""Named entities: learnt by heart by every family with either head, the same in windows, after loading and in
transformers; offsets into the text as it came."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.evaluation.judge import judge
from foundling.models.hub import save_model
from foundling.optim.losses.crf import Transitions
from foundling.serve.load import load
from foundling.tasks.base import RowFault
from foundling.tasks.model import TaskShape
from foundling.tasks.ner import Config, Ner
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from foundling.train.finetune import finetune
from tests.tasks.small import FAMILIES, SHAPES, base_folder, recipe, write_rows
from tests.tiny import SPECIAL, tiny_model, tiny_tokenizer

BASES = (*FAMILIES, "modernbert", "gpt2")
KINDS = ("place", "person")
ROWS: list[dict[str, Any]] = [
    {
        "tokens": f"w{7 + i} w{20 + i} w{30 + i % 5} w{8 + i % 4}".split(),
        "tags": ["O", f"B-{KINDS[i % 2]}", f"I-{KINDS[i % 2]}", "O"] if i % 5 else ["B-person", "B-person", "O", "O"],
    }
    for i in range(10)
]
MIXED = [
    ("我爱北京天安门", [(2, 4, "place"), (4, 7, "place")]),
    ("🙂 Ada Lovelace 住在 London。", [(2, 14, "person"), (18, 24, "place")]),
    ("👩🏽\u200d🚀 flew to Köln!", [(13, 17, "place")]),
    ("Ada 去了上海。", [(0, 3, "person"), (6, 8, "place")]),
    ("so 😭😭 no one", []),
    ("(Köln)", [(1, 5, "place")]),
    ("王芳在上海 Ada", [(0, 2, "person"), (3, 5, "place"), (6, 9, "person")]),
    ("x 🇨🇳 北京 y", [(5, 7, "place")]),
    ("Lovelace", [(0, 8, "person")]),
    ("\u200b London \n London", [(2, 8, "place"), (11, 17, "place")]),
]
"""Texts with entities by character."""


def names(path: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "ner", "train": str(path), **changes}


def bytes_tokenizer() -> Tokenizer:
    """Byte-level: a character of Chinese is three tokens, an emoji four."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL.values(), *alphabet])}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.add_special_tokens(list(SPECIAL.values()))
    return Tokenizer(raw, SpecialTokens(dict(SPECIAL)), kind="bpe")


def task_of(tokenizer: Tokenizer | None = None, *, family: str = "bert", **settings: Any) -> Ner:
    """A task without a model, for the labels of `KINDS`."""
    tokenizer = tokenizer or tiny_tokenizer()
    body = tiny_model(family, tokenizer.vocab_size, max_positions=512).config
    config = Config(train=("x",), **settings)
    tags = ["O", *(f"{prefix}-{kind}" for kind in sorted(KINDS) for prefix in config.scheme if prefix != "O")]
    return config.build(tokenizer, body, {"tags": tags})


def said(answer: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(e["start"], e["end"], e["label"]) for e in answer["entities"]]


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("name", BASES)
def test_ten_examples_are_learnt_by_heart_and_answered_from_the_folder(tmp_path: Path, name: str, crf: bool) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    given = names(path, dev=str(path), crf=crf, scheme="BIOES" if name == "bert" else "BIO")
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), given, length="40 steps"))
    assert run.summary["dev"]["f1"] == 1.0
    assert set(run.summary["dev"]["intervals"]) >= {"f1", "f1/person"}
    lm = load(run.folder)
    answers = lm.predict([{"tokens": row["tokens"]} for row in ROWS])
    expected = [lm.task.config.example(row, known=True).entities for row in ROWS]
    assert [tuple(said(answer)) for answer in answers] == expected
    assert all(0 < e["score"] <= 1 for answer in answers for e in answer["entities"])
    written = [json.loads(line) for line in (run.folder / "answers-dev.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in written] == answers
    assert written[1]["tokens"] == ROWS[1]["tokens"]
    as_text = lm.predict([" ".join(ROWS[1]["tokens"])])[0]
    assert as_text["tags"] == answers[1]["tags"]
    assert as_text["words"] == ROWS[1]["tokens"]


@pytest.mark.parametrize("name", BASES)
def test_transformers_reads_the_linear_head_and_computes_the_same_logits(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), names(path), length="2 steps"))
    lm = load(run.folder)
    theirs, told = transformers.AutoModelForTokenClassification.from_pretrained(run.model_dir, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert [theirs.config.id2label[i] for i in range(5)] == ["O", "B-person", "I-person", "B-place", "I-place"]
    rows = lm.task.rows([lm.task.config.example(row, known=True) for row in ROWS[:4]])
    for row, ours in zip(rows, lm.task.outputs(lm.model, rows), strict=True):
        given = {"input_ids": torch.from_numpy(row.tokens)[None]}
        if name in ("bert", "xlnet"):
            given["token_type_ids"] = torch.from_numpy(row.segments)[None]
        with torch.no_grad():
            logits = theirs.eval()(**given).logits[0]
        np.testing.assert_allclose(logits[row.places].numpy(), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("crf", [False, True])
def test_offsets_are_of_the_text_as_it_came(tmp_path: Path, crf: bool) -> None:
    rows = [
        {"text": text, "entities": [{"start": a, "end": b, "label": label} for a, b, label in spans]}
        for text, spans in MIXED
    ]
    path = write_rows(tmp_path / "train.jsonl", rows)
    tokenizer = bytes_tokenizer()
    model = tiny_model("bert", tokenizer.vocab_size, init_std=0.2, **SHAPES["bert"])
    save_model(model, tmp_path / "base", tokenizer=tokenizer)
    given = names(path, dev=str(path), crf=crf)
    run = finetune(recipe(tmp_path / "run", tmp_path / "base", given, length="60 steps"))
    assert run.summary["dev"]["f1"] == 1.0
    for (text, spans), answer in zip(MIXED, load(run.folder).predict([text for text, _ in MIXED]), strict=True):
        assert said(answer) == spans
        for entity in answer["entities"]:
            assert entity["text"] == text[entity["start"] : entity["end"]]
            first, after = entity["words"]
            assert answer["tags"][first] == f"B-{entity['label']}"
            assert answer["words"][first] == entity["text"][: len(answer["words"][first])]
            assert after == len(answer["tags"]) or not answer["tags"][after].startswith("I-")


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("max_length", [None, 12])
def test_what_is_true_is_what_is_decoded_from_it(scheme: str, max_length: int | None) -> None:
    """Also where windows are many and where words have no token at all."""
    task = task_of(bytes_tokenizer(), scheme=scheme, max_length=max_length)
    rows = [{"text": text, "entities": [list(span) for span in spans]} for text, spans in MIXED]
    rows += [row | {"tokens": ["", *row["tokens"], ""], "tags": ["O", *row["tags"], "O"]} for row in ROWS]
    examples = [task.config.example(row, known=True) for row in rows]
    made = task.rows(examples)
    assert (len(made) > len(rows)) == (max_length is not None)
    eye = np.eye(len(task.tags), dtype=np.float32) * 20
    answers = task.decode(examples, made, [eye[row.targets] for row in made])
    assert [judge(task.measured([e], [a])).figures["f1"] for e, a in zip(examples, answers, strict=True)] == [
        1.0 if e.entities else 0.0 for e in examples
    ]
    assert [a["tags"] for a in answers] == [list(task.describe(e)["tags"]) for e in examples]


def blind_model(name: str, crf: bool, tokenizer: Tokenizer) -> Any:
    """A model to which a word means the same wherever it stands: no token sees another, and none has a place."""
    task = task_of(tokenizer, family=name, crf=crf)
    shape = TaskShape(family=name, body=task.body.bare(), head=task.head())
    model = shape.build()
    model.initialize(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "attention.out" in parameter_name or "positions" in parameter_name:
                parameter.zero_()
            elif parameter.ndim == 2:
                parameter.normal_(generator=torch.Generator().manual_seed(len(parameter_name)))
    return model


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_windows_answer_as_the_whole_text_where_the_model_sees_all_that_it_needs(name: str, crf: bool) -> None:
    random = np.random.default_rng(0)
    model = blind_model(name, crf, tiny_tokenizer())
    whole = task_of(family=name, crf=crf)
    texts = [" ".join(f"w{i}" for i in random.integers(6, 50, size=length)) for length in (3, 30, 200, 480)]
    examples = [whole.config.example({"text": text}, known=False) for text in texts]
    expected = whole.answers(model, examples)
    assert any(answer["entities"] for answer in expected)
    for max_length, overlap in ((16, 4), (16, 0), (40, 12), (100, 128)):
        cut = task_of(family=name, crf=crf, max_length=max_length, overlap=overlap)
        assert max(row.num_tokens for row in cut.rows(examples)) <= max_length
        for one, other in zip(expected, cut.answers(model, examples), strict=True):
            assert one["tags"] == other["tags"]
            np.testing.assert_allclose(
                [e["score"] for e in one["entities"]], [e["score"] for e in other["entities"]], atol=2e-5
            )


@pytest.mark.parametrize("crf", [False, True])
def test_entities_are_as_often_right_as_they_say(crf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that says 97 % and is right in three of four cases."""
    task = task_of(crf=crf)
    random = np.random.default_rng(0)
    rows = [{"tokens": ["w7", "w8", "w9"], "tags": ["O", "B-place", "O"]} for _ in range(400)]
    right = random.random(400) < 0.75
    logits = [np.zeros((3, len(task.tags)), dtype=np.float32) for _ in rows]
    for one, is_right in zip(logits, right, strict=True):
        one[[0, 2], task.tags.index("O")] = 9.0
        one[1, task.tags.index("B-place" if is_right else "B-person")] = 5.0
    monkeypatch.setattr(task, "outputs", lambda model, rows: logits)
    chain = Transitions(torch.zeros(5, 5), torch.zeros(5), torch.zeros(5)) if crf else None
    monkeypatch.setattr(task, "_chain", lambda model: chain)
    examples = [task.config.example(row, known=True) for row in rows]
    before = task.answers(None, examples)
    assert before[0]["entities"][0]["score"] > 0.95
    task.facts |= task.calibrate(None, examples)
    after = task.answers(None, examples)
    scores = [answer["entities"][0]["score"] for answer in after]
    assert np.mean(scores) == pytest.approx(right.mean(), abs=0.01)
    assert [said(one) for one in after] == [said(one) for one in before], "the answers are the same"
    assert task_of().calibrate(None, []) == {}


def test_an_entity_is_as_sure_as_its_words_and_its_end_together() -> None:
    """By hand, over the sequences of two words' tags that the scheme allows."""
    task = task_of()
    example = task.config.example({"tokens": ["w7", "w8"]}, known=False)
    logits = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    logits[0, task.tags.index("B-person")] = 4.0
    logits[1, task.tags.index("O")] = 2.0
    (answer,) = task.decode([example], task.rows([example]), [logits])
    assert answer["tags"] == ["B-person", "O"]
    scores = {
        (a, b): float(np.exp(logits[0, i] + logits[1, j]))
        for i, a in enumerate(task.tags)
        for j, b in enumerate(task.tags)
        if not a.startswith("I-") and (not b.startswith("I-") or a[2:] == b[2:])
    }
    alone = sum(x for (a, b), x in scores.items() if a == "B-person" and b != "I-person")
    sure = answer["entities"][0]["score"]
    assert sure == pytest.approx(alone / sum(scores.values()), abs=2e-6)
    for least, tags in ((sure - 1e-3, ["B-person", "O"]), (sure + 1e-3, ["O", "O"])):
        doubtful = task_of(abstain_below=least)
        assert doubtful.decode([example], doubtful.rows([example]), [logits])[0]["tags"] == tags


def test_an_answer_keeps_to_the_scheme() -> None:
    """The likeliest tags one by one are B-person I-place, which no text has: together B-person I-person are."""
    task = task_of()
    example = task.config.example({"tokens": ["w7", "w8"]}, known=False)
    logits = np.zeros((2, 5), dtype=np.float32)
    logits[0, task.tags.index("B-person")] = 5.0
    logits[1, task.tags.index("I-place")], logits[1, task.tags.index("I-person")] = 4.0, 3.0
    (answer,) = task.decode([example], task.rows([example]), [logits])
    assert answer["tags"] == ["B-person", "I-person"]
    assert 0.5 < answer["entities"][0]["score"] < 1


def test_a_word_without_a_token_goes_with_its_neighbours() -> None:
    task = task_of(bytes_tokenizer())
    given = {"tokens": ["New", "", "York", ""], "tags": ["B-place", "I-place", "I-place", "O"]}
    example = task.config.example(given, known=True)
    rows = task.rows([example])
    assert rows[0].words.tolist() == [0, 2]
    eye = np.eye(len(task.tags), dtype=np.float32) * 20
    (answer,) = task.decode([example], rows, [eye[row.targets] for row in rows])
    assert answer["tags"] == given["tags"]
    nothing = task.config.example({"tokens": ["", ""]}, known=False)
    assert task.rows([nothing]) == []
    assert task.decode([nothing], [], []) == [{"entities": [], "tags": ["O", "O"]}]


@pytest.mark.parametrize(("family", "places"), [("bert", [1, 5]), ("gpt", [2, 6]), ("xlnet", [0, 4])])
def test_the_first_token_of_a_word_answers_or_the_last_where_text_is_read_in_order(
    family: str, places: list[int]
) -> None:
    """Ada Kim is A d a Ġ K i m, behind [CLS] where there is one at the beginning."""
    task = task_of(bytes_tokenizer(), family=family)
    (row,) = task.rows([task.config.example({"tokens": ["Ada", "Kim"]}, known=False)])
    assert row.places.tolist() == places


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["w7", "w8"], "tags": ["O"]}, "a tag for each token; got 1 for 2"),
        ({"tokens": ["w7"], "tags": ["person"]}, "person"),
        ({"tokens": ["w7"], "tags": [3]}, "tags must be a list of words.*tag_names"),
        ({"tokens": "w7 w8", "tags": ["O", "O"]}, "tokens must be a list of words"),
        ({"tokens": [], "tags": []}, "tokens must be a list of words"),
        ({"tokens": ["w7"]}, "it has no tags"),
        ({"text": "", "entities": []}, "text must have a word"),
        ({"text": " \n", "entities": []}, "text must have a word"),
        ({"text": "w7"}, "it has no entities"),
        ({"text": "Ada is", "entities": [{"start": 4, "end": 9, "label": "x"}]}, "must lie in its text, which has 6"),
        ({"text": "Ada is", "entities": [{"start": -1, "end": 3, "label": "x"}]}, "must lie in its text"),
        ({"text": "Ada is", "entities": [{"start": 3, "end": 3, "label": "x"}]}, "must lie in its text"),
        ({"text": "Ada is", "entities": [{"start": 1, "end": 3, "label": "x"}]}, "inside a word; got 'Ada'"),
        ({"text": "Ada is", "entities": [[0, 3, "x"], [0, 6, "y"]]}, "must not overlap"),
        ({"text": "Ada is", "entities": [{"start": 0, "label": "x"}]}, "must be {start, end, label}"),
        ({"text": "Ada is", "entities": {"start": 0}}, "must be a list"),
        ({"x": "Ada is"}, "it has no text"),
    ],
)  # fmt: skip
def test_a_row_that_makes_no_example_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault, match=reason):
        Config(train=("x",)).example(row, known=True)


def test_a_faulty_row_is_told_with_its_place(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [*ROWS, {"tokens": ["w7"], "tags": []}])
    with pytest.raises(UserError, match=r"train.jsonl:11: it must have a tag for each token"):
        finetune(recipe(tmp_path / "run", base_folder(tmp_path, "bert"), names(path)))


def test_labels_are_sorted_counted_and_must_be_in_training(tmp_path: Path) -> None:
    config = Config(train=("x",))
    examples = [config.example(row, known=True) for row in ROWS]
    facts = config.learn({"train": examples})
    assert facts["tags"] == ["O", "B-person", "I-person", "B-place", "I-place"]
    assert facts["counts"] == {"person": 8, "place": 4}
    strange = config.example({"tokens": ["w7"], "tags": ["B-thing"]}, known=True)
    with pytest.raises(UserError, match="thing"):
        config.learn({"train": examples, "test": [strange]})
    with pytest.raises(UserError, match="label"):
        config.learn({"train": [config.example({"tokens": ["w7"], "tags": ["O"]}, known=True)]})
    one = config.learn({"train": [strange]})
    assert one["tags"] == ["O", "B-thing", "I-thing"]


def test_tags_may_be_numbers_with_names() -> None:
    config = Config(train=("x",), tag_names=("O", "B-x", "I-x"))
    example = config.example({"tokens": ["w7", "w8", "w9"], "ner_tags": [0, 1, 2]}, known=True)
    assert example.entities == ((1, 3, "x"),)
    with pytest.raises(RowFault, match="below 3"):
        config.example({"tokens": ["w7"], "ner_tags": [3]}, known=True)


def test_tags_of_any_scheme_are_read_and_what_is_broken_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(train=("x",), scheme="BIOES")
    written = [["I-x", "I-x", "O", "B-y"], ["B-x", "E-x", "O", "S-y"], ["B-x", "L-x", "O", "U-y"]]
    examples = [config.example({"tokens": ["a", "b", "c", "d"], "tags": tags}, known=True) for tags in written]
    assert {example.entities for example in examples} == {((0, 2, "x"), (3, 4, "y"))}
    with caplog.at_level("INFO"):
        facts = config.learn({"train": examples[1:2], "dev": examples[:1] + [
            config.example({"tokens": ["a", "b"], "tags": ["B-x", "B-y"]}, known=True)
        ] * 3})  # fmt: skip
    assert facts["tags"] == ["O", "B-x", "I-x", "E-x", "S-x", "B-y", "I-y", "E-y", "S-y"]
    assert "tags of train: BIOES" in caplog.text
    assert "tags of dev: 1 of 10 are mended: I-x to B-x (1)" in caplog.text


def test_a_crf_has_its_own_loss_and_a_linear_head_any_of_one_class() -> None:
    data = {"kind": "ner", "train": "x"}
    for loss in ({"kind": "label_smoothing"}, {"kind": "focal"}):
        validate(Config, {**data, "loss": loss}, "task")
        with pytest.raises(UserError, match="its own loss"):
            validate(Config, {**data, "loss": loss, "crf": True}, "task")
    with pytest.raises(UserError, match="one true class"):
        validate(Config, {**data, "loss": {"kind": "binary_cross_entropy"}}, "task")


def test_a_very_long_text_is_answered() -> None:
    model = blind_model("bert", True, tiny_tokenizer())
    task = task_of(crf=True, max_length=64)
    text = " ".join(f"w{6 + i % 44}" for i in range(26_000))
    assert len(text) > 100_000
    (answer,) = task.answers(model, [task.config.example({"text": text}, known=False)])
    assert len(answer["tags"]) == 26_000
    assert all(text[e["start"] : e["end"]] == e["text"] for e in answer["entities"])


def test_what_is_true_is_not_read_where_nothing_asks_for_it() -> None:
    config = Config(train=("x",))
    assert config.example({"text": "Ada went", "label": "positive"}, known=False).entities is None
    assert config.example({"tokens": ["Ada"], "tags": ["no tag"]}, known=False).entities is None


@pytest.mark.parametrize("scheme", ["BIO", "IOB1", "BIOES", "BILOU"])
def test_every_scheme_ends_with_a_report(tmp_path: Path, scheme: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    task = {"kind": "ner", "train": str(path), "dev": str(path), "scheme": scheme}
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, "bert"), task, length="2 steps"))
    assert (run.folder / "report.html").is_file()
