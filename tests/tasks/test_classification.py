"""Classification: learnt by heart by every family, the same after save and load, and in transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.models.hub import save_model
from foundling.serve.load import load
from foundling.tasks.base import RowFault, fitted_temperature
from foundling.tasks.classification import Config, Example
from foundling.tasks.folder import HeadedFormat, load_task
from foundling.train.finetune import finetune
from foundling.train.finetune_recipe import FinetuneRecipe
from tests.tasks.small import FAMILIES, SHAPES, base_folder, recipe, write_rows
from tests.tiny import tiny_model, tiny_tokenizer

BASES = (*FAMILIES, "modernbert", "gpt2")
ROWS = [{"text": f"w{7 + i} w{8 + (i * 3) % 9} w{20 + i}", "label": "abc"[i % 3]} for i in range(10)]


def task(path: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "classification", "train": str(path), **changes}


@pytest.mark.parametrize("name", BASES)
def test_ten_examples_are_learnt_by_heart_and_answered_from_the_folder(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), task(path, dev=str(path)), length="50 steps"))
    assert run.summary["dev"]["accuracy"] == 1.0
    lm = load(run.folder)
    answers = lm.predict(ROWS)
    assert [a["label"] for a in answers] == [row["label"] for row in ROWS]
    assert all(abs(sum(a["probabilities"].values()) - 1) < 1e-5 for a in answers)
    alone = lm.predict([ROWS[0]["text"]])[0]
    assert alone["label"] == answers[0]["label"]
    assert alone["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=3e-6)  # products of another size
    written = [json.loads(line) for line in (run.folder / "answers-dev.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in written] == answers


@pytest.mark.parametrize("name", BASES)
def test_transformers_reads_the_folder_and_computes_the_same_logits(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), task(path), length="2 steps"))
    lm = load(run.folder)
    theirs, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        run.model_dir, output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert [theirs.config.id2label[i] for i in range(3)] == ["a", "b", "c"]
    rows = lm.task.rows([lm.task.config.example(row, known=True) for row in ROWS[:4]])
    ours = np.stack(lm.task.outputs(lm.model, rows))
    for row, expected in zip(rows, ours, strict=True):
        given = {"input_ids": torch.from_numpy(row.tokens)[None]}
        if name in ("bert", "xlnet"):
            given["token_type_ids"] = torch.from_numpy(row.segments)[None]
        logits = theirs.eval()(**given).logits[0]
        np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-5, rtol=1e-5)
        logits.square().sum().backward()
    lm.model(lm.task.collate(rows)).square().sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for weight in HeadedFormat(lm.model.config).weights(lm.model.config):
        parameter = lm.model.get_parameter(weight.ours)
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for their_name, part in zip(weight.theirs, weight.split(grad), strict=True):
            expected_part = gradients.pop(their_name, torch.zeros_like(part))
            torch.testing.assert_close(part, expected_part, atol=1e-5, rtol=1e-4, msg=their_name)
    assert not [name for name, grad in gradients.items() if grad.abs().max() > 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_pairs_are_read_as_pairs(tmp_path: Path, name: str) -> None:
    """What is told apart by the second text alone."""
    rows = [{"premise": "w9 w10", "hypothesis": f"w{20 + i}", "label": i % 2} for i in range(8)]
    path = write_rows(tmp_path / "train.jsonl", rows)
    run = finetune(recipe(tmp_path / "run", base_folder(tmp_path, name), task(path, dev=str(path)), length="50 steps"))
    assert run.summary["dev"]["accuracy"] == 1.0
    assert run.summary["facts"]["labels"] == ["0", "1"]


@pytest.mark.parametrize("name", FAMILIES)
def test_several_labels_and_none(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"w{10 + i} w{20 + i}", "label": [x for k, x in enumerate("xyz") if i >> k & 1]} for i in range(8)]
    path = write_rows(tmp_path / "train.jsonl", rows)
    given = recipe(
        tmp_path / "run", base_folder(tmp_path, name), task(path, dev=str(path), target="labels"), length="80 steps"
    )
    run = finetune(given.model_copy(update={"evaluate": given.evaluate.model_copy(update={"metric": "f1_micro"})}))
    assert run.summary["dev"]["f1_micro"] == 1.0
    assert [sorted(a["labels"]) for a in load(run.folder).predict(rows)] == [row["label"] for row in rows]


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_are_learnt_and_exported_in_their_own_scale(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"w{10 + i} w{20 + i}", "label": 5000.0 + 25 * i} for i in range(8)]
    path = write_rows(tmp_path / "train.jsonl", rows)
    run = finetune(
        recipe(
            tmp_path / "run", base_folder(tmp_path, name), task(path, dev=str(path), target="number"),
            length="150 steps",
        )
    )  # fmt: skip
    lm = load(run.folder)
    answers = [answer["number"] for answer in lm.predict(rows)]
    assert max(abs(number - row["label"]) for number, row in zip(answers, rows, strict=True)) < 10
    assert run.summary["best_value"] == pytest.approx(-run.summary["dev"]["mse"], rel=1e-3, abs=1e-2)
    rounded_task, rounded = load_task(run.model_dir, dtype=torch.bfloat16)
    in_bf16 = rounded_task.answers(rounded, [lm.task.config.example(row, known=False) for row in rows])
    assert max(abs(a["number"] - number) for a, number in zip(in_bf16, answers, strict=True)) < 0.02 * 57.28
    (row,) = lm.task.rows([lm.task.config.example(rows[0], known=False)])
    given = {"input_ids": torch.from_numpy(row.tokens)[None]}
    if name in ("bert", "xlnet"):
        given["token_type_ids"] = torch.from_numpy(row.segments)[None]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(run.model_dir).eval()(**given).logits
    mean, spread = (5087.5, 57.28) if name == "gpt" else (0.0, 1.0)  # its head has no bias to take them in
    assert theirs.item() * spread + mean == pytest.approx(answers[0], abs=0.1)


def test_labels_of_a_table_are_a_list_in_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('text,label\nw7,"[""a"", ""b""]"\nw8,[]\n', encoding="utf-8")
    examples = Config(train=(str(path),), target="labels").read([str(path)])
    assert [example.label for example in examples] == [("a", "b"), ()]


def test_an_unsure_answer_is_withheld(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(
        recipe(tmp_path / "run", base_folder(tmp_path, "bert"), task(path, abstain_below=0.99), length="1 steps")
    )
    (answer,) = load(run.folder).predict(["w7"])
    assert answer["label"] is None
    assert max(answer["probabilities"].values()) < 0.99


def test_temperature_is_that_of_overstated_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    exp = np.exp(logits)
    truth = [rng.choice(3, p=row / row.sum()) for row in exp]

    def nll(temperature: float) -> float:
        x = 3 * logits / temperature
        return float((np.log(np.exp(x).sum(1)) - x[np.arange(len(truth)), truth]).mean())

    assert abs(fitted_temperature(nll) - 3) < 0.3


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": "  ", "label": "a"}, "text must be text"),
        ({"text": 3, "label": "a"}, "text must be text"),
        ({"text": "w7", "label": ""}, "label must be"),
        ({"text": "w7", "label": {"a": 1}}, "label must be"),
    ],
)
def test_rows_that_make_no_example(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        Config(train=("x",)).example(row, known=True)


@pytest.mark.parametrize(
    ("row", "fields", "texts"),
    [
        ({"question": "w7", "sentence": "w8"}, {}, ("w7", "w8")),  # QNLI
        ({"question": "w7"}, {}, ("w7", None)),
        ({"sentence": "w7"}, {}, ("w7", None)),
        ({"question": "w7", "sentence": "w8"}, {"text": "sentence"}, ("w8", None)),
        ({"a": "w7", "b": "w8", "text": "w9"}, {"premise": "a", "hypothesis": "b"}, ("w7", "w8")),
    ],
)
def test_a_pair_is_read_where_both_of_its_texts_are(
    row: dict[str, Any], fields: dict[str, str], texts: tuple[str, str | None]
) -> None:
    example = Config(train=("x",), fields=fields).example({**row, "label": ""}, known=False)
    assert (example.text, example.second, example.label) == (*texts, None)


def test_what_is_missing_of_a_row_is_told() -> None:
    for row, missing in [
        ({"sentence1": "w7"}, "no hypothesis or sentence2"),
        ({"words of it": "w7"}, "no text or sentence"),
    ]:
        with pytest.raises(RowFault, match=missing):
            Config(train=("x",)).example(row, known=False)


@pytest.mark.parametrize("value", [True, "five", "nan", "", None, [1]])
def test_numbers_may_be_words_of_a_table_and_nothing_else(value: Any) -> None:
    config = Config(train=("x",), target="number")
    assert [config.example({"text": "w7", "label": one}, known=True).label for one in (4, 4.5, "4.5")] == [
        4.0,
        4.5,
        4.5,
    ]
    with pytest.raises(RowFault, match=r"its label must be a number|it has no label"):
        config.example({"text": "w7", "label": value}, known=True)


def test_unknown_labels_are_told_with_their_rows_and_labels_in_their_texts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"text": f"w7 ab w{8 + i}" if i % 2 else f"w7 cd w{8 + i}", "label": ("cd", "ab")[i % 2]} for i in range(24)
    ]
    config = Config(train=(str(write_rows(tmp_path / "a.jsonl", rows)),))
    dev = str(write_rows(tmp_path / "dev.jsonl", [*rows[:2], {"text": "w9", "label": "ef"}]))
    with pytest.raises(UserError, match=r"in dev ef 1 \(dev.jsonl:3\)"):
        config.learn({"train": config.read(config.train), "dev": config.read([dev])})
    assert any("100 % of the training texts hold the name of their own label" in told for told in caplog.messages)


def test_one_label_alone_teaches_nothing(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"text": f"w{i}", "label": "a"} for i in range(7, 12)])
    with pytest.raises(UserError, match="label"):
        finetune(recipe(tmp_path / "run", base_folder(tmp_path, "bert"), task(path)))


@pytest.mark.parametrize("name", BASES)
def test_a_classifier_that_transformers_made_answers_here_and_can_go_on(tmp_path: Path, name: str) -> None:
    base = base_folder(tmp_path, name)
    torch.manual_seed(1)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=3, id2label={0: "c", 1: "a", 2: "b"}, label2id={"c": 0, "a": 1, "b": 2}
    )
    theirs.save_pretrained(tmp_path / "theirs")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "theirs" / file).write_bytes((base / file).read_bytes())
    lm = load(tmp_path / "theirs")
    assert lm.task.labels == ["c", "a", "b"]
    (row,) = lm.task.rows([lm.task.config.example({"text": "w9 w12 w30"}, known=False)])
    given = {"input_ids": torch.from_numpy(row.tokens)[None]}
    if name in ("bert", "xlnet"):
        given["token_type_ids"] = torch.from_numpy(row.segments)[None]
    elif name in ("gpt", "gpt2"):  # what a pipeline gives it: no end token that only ours would know
        assert row.tokens.tolist() == lm.tokenizer.encode("w9 w12 w30", special=True)
    with torch.no_grad():
        logits = theirs.eval()(**given).logits[0]
    np.testing.assert_allclose(lm.task.outputs(lm.model, [row])[0], logits.numpy(), atol=1e-5, rtol=1e-5)
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    run = finetune(recipe(tmp_path / "run", tmp_path / "theirs", task(path), length="1 steps"))
    assert run.summary["finished"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            {"target": "labels", "loss": {"kind": "focal"}},
            "target labels takes the loss binary_cross_entropy; got focal",
        ),
        ({"target": "labels", "loss": {"kind": "squared_error"}}, "got squared_error"),
        ({"target": "label", "loss": {"kind": "binary_cross_entropy"}}, "cross_entropy or label_smoothing or focal"),
        ({"target": "number", "loss": {"kind": "binary_cross_entropy"}}, "takes the loss squared_error"),
        ({"target": "number", "class_weights": "balanced"}, "class_weights are of labels"),
        ({"target": "labels", "abstain_below": 0.4}, "abstain_below is for one label"),
    ],
)
def test_settings_that_do_not_fit_the_target_are_told(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        validate(Config, {"kind": "classification", "train": ["x"], **given}, "task")


def test_a_classifier_that_averages_its_words_is_not_answered_from_the_first(tmp_path: Path) -> None:
    base = base_folder(tmp_path, "modernbert")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, classifier_pooling="mean"
    )
    theirs.save_pretrained(tmp_path / "theirs")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "theirs" / file).write_bytes((base / file).read_bytes())
    with pytest.raises(UserError, match=r"classifier_pooling must be 'cls', which is what is computed; got 'mean'"):
        load(tmp_path / "theirs")


def test_texts_longer_than_a_row_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    body = tiny_model("bert").config
    task = Config(train=("x",), max_length=16).build(tiny_tokenizer(body.vocab_size), body, {"labels": ["a", "b"]})
    task.rows([Example("w7 w8")])
    assert "max_length" not in caplog.text
    rows = task.rows([Example("w7 " * 34_000), Example("w7")])  # 100,000 characters
    assert [len(row.tokens) for row in rows] == [16, 3]
    task.rows([Example("w7 " * 200)])
    assert caplog.text.count("1 of 2 texts have more than max_length = 16 tokens: their ends are not read") == 1
    assert "1 of 1" not in caplog.text


def test_what_is_true_is_not_read_where_nothing_asks_for_it() -> None:
    config = Config(train=("x",), target="number", fields={"text": "body"})
    assert config.example({"body": "w7", "rating": "n/a"}, known=False).label is None
    assert config.example(config.of_text("w7"), known=False).text == "w7"


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_transformers_reads_the_end_of_a_row_also_where_the_tokenizer_pads_with_it(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    tokenizer = load_part("tokenizers", "bpe").Config(vocab_size=258).build().train([row["text"] for row in ROWS])
    assert tokenizer.pad_id == tokenizer.eos_id
    model = tiny_model("gpt", vocab_size=tokenizer.vocab_size, init_std=0.2, **SHAPES[name])
    save_model(model, tmp_path / "base", tokenizer=tokenizer)
    run = finetune(recipe(tmp_path / "run", tmp_path / "base", task(path), length="2 steps"))
    lm = load(run.folder)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(run.model_dir).eval()
    (row,) = lm.task.rows([lm.task.config.example(ROWS[0], known=True)])
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(row.tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(lm.task.outputs(lm.model, [row])[0], expected, atol=1e-5, rtol=1e-5)


def test_a_head_on_initial_weights_is_written_and_loaded(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    tiny_tokenizer().save(tmp_path / "tokenizer")
    data = {
        "name": "new",
        "out": str(tmp_path / "run"),
        "task": task(path),
        "model": {"family": "bert", "size": {"layers": 1, "width": 16, "heads": 2}},
        "tokenizer": {"path": str(tmp_path / "tokenizer")},
        "train": {"length": "2 steps", "batch": "8 rows", "compile": False, "precision": "fp32"},
    }
    run = finetune(validate(FinetuneRecipe, data, "recipe"))
    (answer,) = load(run.folder).predict(["w9 w12"])
    assert answer["label"] in ("a", "b", "c")
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


def test_a_classifier_of_the_old_names_is_read(tmp_path: Path) -> None:
    base = base_folder(tmp_path, "bert")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    theirs.save_pretrained(tmp_path / "theirs")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "theirs" / file).write_bytes((base / file).read_bytes())
    expected = load(tmp_path / "theirs").predict(["w9 w12"])
    weights = load_file(tmp_path / "theirs" / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    assert load(tmp_path / "theirs").predict(["w9 w12"]) == expected


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("label", ["b", "a", "c", "b"]),
        ("labels", [["a"], [], ["c", "b"], ["a", "b", "c"]]),
        ("number", [1.5, -2.0, 0.25, 7.0]),
    ],
)
def test_decoding_the_truth_gives_it(target: str, labels: list[Any]) -> None:
    config = Config(train=("x",), target=target)  # type: ignore[arg-type]
    examples = [config.example({"text": f"w{7 + i}", "label": label}, known=True) for i, label in enumerate(labels)]
    body = tiny_model("bert").config
    task = config.build(tiny_tokenizer(body.vocab_size), body, config.learn({"train": examples}))
    rows = task.rows(examples)
    if target == "label":
        outputs = [20 * np.eye(3)[row.targets[0]] for row in rows]
    elif target == "labels":
        outputs = [40 * row.truth - 20 for row in rows]
    else:
        outputs = [row.truth for row in rows]
    answers = task.decode(examples, rows, outputs)
    found = [answer[target] for answer in answers]
    if target == "number":
        assert found == pytest.approx(labels, abs=1e-5)
    else:
        assert found == (labels if target == "label" else [sorted(held) for held in labels])


@pytest.mark.parametrize(("asked", "ratio"), [("balanced", 3.0), ({"b": 5.0}, 5.0)])
def test_class_weights_weigh_the_loss(asked: Any, ratio: float) -> None:
    config = Config(train=("x",), class_weights=asked)
    examples = [config.example({"text": f"w{7 + i}", "label": label}, known=True) for i, label in enumerate("aaab")]
    body = tiny_model("bert").config
    task = config.build(tiny_tokenizer(body.vocab_size), body, config.learn({"train": examples}))
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    found = task.losses(logits, task.collate(task.rows(examples)))
    plain = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1]), reduction="none")
    weights = found / plain
    torch.testing.assert_close(weights[3] / weights[:3], torch.full((3,), ratio))
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-5), "over the training examples their mean is 1"
    wrong = Config(train=("x",), class_weights={"d": 2.0})
    with pytest.raises(UserError, match="class_weights must name labels"):
        wrong.learn({"train": examples})


def test_a_base_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    base = base_folder(tmp_path, "bert")
    for file in base.glob("tokenizer*"):
        file.unlink()
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(UserError, match="tokenizer"):
        finetune(recipe(tmp_path / "run", base, task(path), length="1 steps"))


def test_probabilities_of_several_labels_are_fitted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits three times as large as the chances that labels were drawn by."""
    config = Config(train=("x",), target="labels")
    rng = np.random.default_rng(0)
    logits_RC = rng.normal(size=(600, 2))
    held_RC = rng.random((600, 2)) < 1 / (1 + np.exp(-logits_RC))
    labels = [[name for name, is_held in zip("ab", held, strict=True) if is_held] for held in held_RC]
    examples = [config.example({"text": f"w{7 + i % 30}", "label": one}, known=True) for i, one in enumerate(labels)]
    body = tiny_model("bert").config
    task = config.build(tiny_tokenizer(body.vocab_size), body, config.learn({"train": examples}))
    monkeypatch.setattr(task, "outputs", lambda model, rows: list(3 * logits_RC))
    assert task.calibrate(None, examples)["temperature"] == pytest.approx(3, rel=0.2)


def test_one_text_and_a_pair_are_not_taken_for_one_another() -> None:
    config = Config(train=("x",))
    one = [config.example({"text": f"w{i}", "label": "ab"[i % 2]}, known=True) for i in range(8)]
    two = [config.example({"premise": f"w{i}", "hypothesis": "w9", "label": "ab"[i % 2]}, known=True) for i in range(8)]
    assert config.learn({"train": two})["pair"] is True
    with pytest.raises(
        UserError, match="all examples must be one text, or all a pair; got 8 pairs among the 16 of train"
    ):
        config.learn({"train": [*one, *two]})
    with pytest.raises(UserError, match="all examples must be one text, as in train; got 8 pairs among the 8 of dev"):
        config.learn({"train": one, "dev": two})
    tokenizer = tiny_tokenizer()
    task = config.build(tokenizer, tiny_model("bert").config, config.learn({"train": two}))
    with pytest.raises(UserError, match="trained on a pair of texts an example, and must be asked so; got one text"):
        task.rows([config.example({"text": "w7"}, known=False)])


def test_probabilities_near_0_are_not_0() -> None:
    config = Config(train=("x",))
    task = config.build(tiny_tokenizer(), tiny_model("bert").config, {"labels": ["a", "b"]})
    (answer,) = task.decode([], [], [np.array([15.0, 0.0], dtype=np.float32)])
    assert answer["probabilities"]["b"] == pytest.approx(3.059e-7, rel=1e-3)
