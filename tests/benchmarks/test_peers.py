"""What peers are given is what the engine trains on, and the gate that comes before their figures can close."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks._compare import machine, steady
from benchmarks.parity._gradients import worst_gradient
from benchmarks.plots import Curve, curves, drawn_curves
from benchmarks.throughput import parity
from benchmarks.workloads import WORKLOADS, data_of, settings_of, tokenizer_of, training_of
from foundling.models.hub.gpt2 import Format
from foundling.train.build import whole_model
from foundling.train.loop import micro_batches

SPECIAL = {"bpe": ["<|endoftext|>"], "wp": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the benchmarks read it, of a few documents of several sentences."""
    folder = tmp_path_factory.mktemp("data")
    words = ["the", "cat", "sat", "on", "a", "mat", "saw", "one", "bird", "that", "sang", "of", "rain"]
    draw = np.random.default_rng(0)
    sentence = lambda: " ".join(draw.choice(words, 6)) + " ."
    documents = [" ".join(sentence() for _ in range(12)) for _ in range(12)]
    for name, special in SPECIAL.items():
        raw = Tokenizer(models.BPE() if name == "bpe" else models.WordPiece(unk_token="[UNK]"))
        raw.normalizer = normalizers.Lowercase()
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.BpeTrainer if name == "bpe" else trainers.WordPieceTrainer
        raw.train_from_iterator(documents, trainer(vocab_size=90, special_tokens=special, show_progress=False))
        raw.save(str(folder / f"{name}.json"))
        end = [0] if name == "bpe" else []
        ids = [[*raw.encode(text, add_special_tokens=False).ids, *end] for text in documents]
        np.concatenate(ids).astype(np.uint16).tofile(folder / f"{name}.bin")
        np.save(folder / f"{name}_starts.npy", np.cumsum([0, *map(len, ids)]))
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        name: replace(work, size=work.size | {"layers": 1, "width": 32, "heads": 2}, row_length=32, rows=4)
        for name, work in WORKLOADS.items()
    }
    for name, work in small.items():
        monkeypatch.setitem(WORKLOADS, name, work)
    monkeypatch.setattr("foundling.train.machine.matmul_rate", lambda *_: 1.0)  # seconds, where bf16 is emulated


@pytest.mark.parametrize("name", ["gpt", "bert", "xlnet"])
def test_a_peer_gets_the_rows_and_the_shape_that_the_engine_has(data: Path, name: str) -> None:
    from benchmarks.peers._hf import examples_of, model_of

    training = training_of(data, name, "fp32", False, 4)
    _, samples = data_of(data, name)
    for number in range(12):
        ours, its = training.samples[0][number], samples[number]
        assert (ours.tokens.tolist(), ours.key, ours.label) == (its.tokens.tolist(), its.key, its.label)
    examples, num_tokens = examples_of(name, data, 2)
    assert [len(one["input_ids"]) for one in examples] == [32] * 8
    assert num_tokens == sum(min(len(samples[number].tokens), 32) for number in range(8))
    peer, mine = model_of(name, data, 0.0), whole_model(training)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in mine.parameters())


def test_padding_is_neither_seen_nor_asked_for(data: Path) -> None:
    from benchmarks.peers._hf import padded

    objective, samples = data_of(data, "bert")
    batch = objective.collate([samples[number] for number in range(6)])
    rows = padded(batch, 32)
    shown = torch.cat([row["input_ids"][row["attention_mask"] == 1] for row in rows])
    asked = torch.cat([row["labels"][row["labels"] != -100] for row in rows])
    assert shown.equal(batch.tokens_N)
    assert asked.equal(batch.targets_M)
    labels = torch.stack([row["next_sentence_label"] for row in rows])
    assert batch.labels_R is not None
    assert labels.equal(batch.labels_R)
    assert any((row["attention_mask"] == 0).any() for row in rows)
    assert all((row["labels"][row["attention_mask"] == 0] == -100).all() for row in rows)


def test_xlnet_predicts_words_and_no_ends(data: Path) -> None:
    from benchmarks.peers._hf import collator_of, examples_of

    torch.manual_seed(0)
    examples, _ = examples_of("xlnet", data, 25)
    batch = collator_of("xlnet", data)(examples)
    asked = batch["labels"] != -100
    assert 0.05 < asked.float().mean() < 0.3
    texts = torch.stack([one["input_ids"] for one in examples])
    assert batch["labels"][asked].equal(texts[asked])
    assert (texts == 0).any()
    assert not (texts[asked] == 0).any()


@pytest.mark.parametrize("name", ["gpt", "bert", "xlnet"])
def test_the_gate_opens_for_the_same_model(data: Path, name: str) -> None:
    found = parity(data, name, "bf16", False)
    assert next(iter(found)) == "loss"
    assert any(re.match(r"worst of \d\d gradients", name) for name in found)
    assert "bf16 loss" in found
    assert "bf16 loss" not in parity(data, name, "fp32", False)


def test_one_wrong_gradient_closes_the_gate(data: Path) -> None:
    from benchmarks.peers._hf import model_of

    training = training_of(data, "gpt", "fp32", False, 4)
    batch = micro_batches(training)[0]
    peer = model_of("gpt", data, 0.0)
    weights = Format().weights(training.model.config)
    theirs = dict(peer.named_parameters())
    ids = batch.tokens_N.view(batch.num_rows, -1)
    peer(input_ids=ids, labels=ids).loss.backward()
    grads = {w.ours: w.join([_grad(theirs[name]) for name in w.theirs]) for w in weights}
    right = worst_gradient(weights, grads, peer)
    assert max(right.values()) < 1e-6
    for wrong in ("norm.bias", "layers.0.attention.qkv.bias"):
        found = worst_gradient(weights, {**grads, wrong: 1.1 * grads[wrong]}, peer)
        assert max(found.values()) > 0.01, wrong
    del grads["norm.bias"]
    with pytest.raises(AssertionError):
        worst_gradient(weights, grads, peer)


def _grad(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_gpt2_has_its_own_vocabulary_and_the_same_tokens(data: Path) -> None:
    assert tokenizer_of(data, "gpt124").vocab_size == 50_257
    samples = {name: data_of(data, name)[1] for name in ("gpt", "gpt124")}
    assert samples["gpt"][3].tokens.tolist() == samples["gpt124"][3].tokens.tolist()


def test_a_line_says_what_was_run_and_where(data: Path) -> None:
    said, here = settings_of(training_of(data, "gpt", "fp32", False, 4)), machine()
    assert (said["row_length"], said["micro_batch_rows"], said["precision"], said["compiled"]) == (32, 4, "fp32", False)
    assert said["model"]["width"] == 32
    assert said["optimizer"]["kind"] == "adamw"
    assert here["torch"] == torch.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["code"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", here["code"])


def test_the_steady_step_leaves_compilation_out() -> None:
    assert steady([90.0, 50.0, 40.0, 1.0, 2.0, 3.0]) == 2.0
    assert steady([9.0] * 4 + [1.0] * 8) == 1.0
    assert steady([90.0, 5.0]) == 5.0


def test_the_dials_table_becomes_a_line_for_each_depth() -> None:
    table = """## One dial: does it hold
| depth x width | weights | the dial's rate | 0.5 times | 1 times | 2 times |
|---|---|---|---|---|---|
| 2 x 128 | 1.4M | 0.0017 | **2.0056** | 2.0100 | 2.1298 |
| 3 x 192 | 2.9M | 0.0014 | | **2.0042** | 2.2092 |

## Another
| 4 x 256 | 1.4M | 0.0017 | 2.0056 | 2.0100 | 2.1298 |
"""
    found = curves(table)
    assert found == [
        Curve("2 x 128", [(0.5, 2.0056), (1.0, 2.01), (2.0, 2.1298)]),
        Curve("3 x 192", [(1.0, 2.0042), (2.0, 2.2092)]),
    ]
    picture = drawn_curves(found)
    assert picture.count("<polyline") == 2
    assert len(re.findall(r"<circle [^>]*fill=\"white\"", picture)) == 3  # all but the best of each
