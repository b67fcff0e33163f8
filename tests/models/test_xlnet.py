"""Laws of the permutation model, and that it is transformers' with the same weights."""

import json
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.models.hub import load_config, load_model, save_model
from foundling.models.hub.base import ConfigReader
from foundling.models.hub.xlnet import Format
from foundling.models.xlnet import Config, XLNet
from foundling.nn import _two_stream_kernels
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy
from foundling.parallel.apply import compile_blocks

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH, ROWS = 61, 12, 3
SIZES = yaml.safe_load(files("foundling.models").joinpath("sizes.yaml").read_text(encoding="utf-8"))["xlnet"]


def small(**keys: Any) -> XLNet:
    values = {"vocab_size": VOCAB, "layers": 2, "width": 24, "heads": 3, "mlp_width": 40, **keys}
    model = Config.model_validate(values).build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def hf_model(**keys: Any) -> Any:
    config = transformers.XLNetConfig(
        vocab_size=VOCAB, d_model=24, n_layer=2, n_head=3, d_inner=40, **{"dropout": 0.0, **keys}
    )
    torch.manual_seed(0)
    model = transformers.XLNetLMHeadModel(config).eval()
    with torch.no_grad():  # so that no bias is 0 and no norm's weight is 1
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def ordered(num_rows: int = ROWS, length: int = LENGTH, num_targets: int = 4, seed: int = 1, **fields: Any) -> Batch:
    """Rows of one length with random targets in random order, in three segments."""
    generator = torch.Generator().manual_seed(seed)
    ranks_RT = torch.zeros(num_rows, length, dtype=torch.int64)
    for ranks_T in ranks_RT:
        chosen = torch.randperm(length, generator=generator)[:num_targets]
        ranks_T[chosen] = torch.arange(1, num_targets + 1)
    tokens_RT = torch.randint(0, VOCAB, (num_rows, length), generator=generator)
    index_M = ranks_RT.flatten().nonzero()[:, 0]
    return Batch(
        tokens_N=tokens_RT.flatten(),
        positions_N=torch.arange(length).repeat(num_rows),
        bounds_R1=torch.arange(0, num_rows * length + 1, length, dtype=torch.int32),
        max_row_length=length,
        targets_M=tokens_RT.flatten()[index_M],
        target_index_M=index_M,
        segments_N=(torch.arange(length) // 5).repeat(num_rows),
        ranks_N=ranks_RT.flatten(),
        **fields,
    )


def uneven(*, segments: bool = True) -> list[Batch]:
    """Rows of several lengths with several numbers of targets, a batch each."""
    shapes = [(7, 2), (12, 3), (12, 3), (2, 1)]
    rows = [ordered(1, length, targets, seed) for seed, (length, targets) in enumerate(shapes)]
    return rows if segments else [replace(row, segments_N=None) for row in rows]


def joined(rows: list[Batch]) -> Batch:
    """One batch of the rows of many."""

    def end_to_end(name: str) -> Tensor | None:
        parts = [getattr(row, name) for row in rows]
        return None if parts[0] is None else torch.cat(parts)

    starts = torch.tensor([0, *(row.num_tokens for row in rows)]).cumsum(0)
    fields = {name: end_to_end(name) for name in ("tokens_N", "positions_N", "targets_M", "segments_N", "ranks_N")}
    asked = [
        start + row.target_index_M for start, row in zip(starts, rows, strict=False) if row.target_index_M is not None
    ]
    memory = [row.memory for row in rows if row.memory is not None]
    return Batch(
        **fields,  # type: ignore[arg-type]
        bounds_R1=starts.int(),
        max_row_length=max(row.max_row_length for row in rows),
        target_index_M=torch.cat(asked) if asked else None,
        memory=joined(memory) if memory else None,
    )


def as_hf(batch: Batch) -> dict[str, Tensor]:
    """The batch as transformers takes it: rows padded to one length, in each as many targets, the last of them at no
    place where a row has fewer."""
    assert batch.target_index_M is not None
    lengths_R, length = batch.bounds_R1.diff(), batch.max_row_length
    held_RT = torch.arange(length) < lengths_R[:, None]

    def laid_out(values_N: Tensor, filler: int) -> Tensor:
        return torch.full(held_RT.shape, filler).masked_scatter(held_RT, values_N)

    ranks_RT = torch.zeros(held_RT.shape) if batch.ranks_N is None else laid_out(batch.ranks_N, 0)
    unseen_RTT = (ranks_RT[:, None, :] >= ranks_RT[:, :, None]) & (ranks_RT[:, None, :] > 0)
    row_M = torch.searchsorted(batch.bounds_R1[1:].long(), batch.target_index_M, right=True)
    place_M = batch.target_index_M - batch.bounds_R1[row_M]
    mapping = [F.one_hot(place_M[row_M == row], length).float() for row in range(batch.num_rows)]
    found = {
        "input_ids": laid_out(batch.tokens_N, 7),
        "attention_mask": held_RT.float(),
        "perm_mask": unseen_RTT.float(),
        "target_mapping": torch.nn.utils.rnn.pad_sequence(mapping, batch_first=True),
    }
    if batch.segments_N is not None:
        found["token_type_ids"] = laid_out(batch.segments_N, 0)
    return found


def assert_same_gradients(ours: XLNet, theirs: Any) -> None:
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for weight in Format().weights(ours.config):
        parameter = ours.get_parameter(weight.ours)
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, part in zip(weight.theirs, weight.split(grad), strict=True):
            wanted = gradients.pop(name)
            torch.testing.assert_close(part, torch.zeros_like(part) if wanted is None else wanted, atol=1e-5, rtol=1e-5)
    assert not gradients, "transformers has parameters that we do not"


def assert_same_function(ours: XLNet, theirs: Any, batch: Batch, **more: Any) -> None:
    """Logits, loss and every gradient agree to 1e-5."""
    memory = more.pop("memory", None)
    out, inputs = ours(batch, memory), as_hf(batch)
    logits = theirs(**inputs, **more).logits[inputs["target_mapping"].any(2)]
    torch.testing.assert_close(out.logits(), logits, atol=1e-5, rtol=1e-5)
    loss, _ = linear_cross_entropy(
        out.hidden_MD, out.head_weight_VD, batch.targets_M, 1 / batch.num_targets, False, out.head_bias_V
    )
    reference = F.cross_entropy(logits, batch.targets_M)
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-5)
    loss.backward()
    reference.backward()
    assert_same_gradients(ours, theirs)


HF: dict[str, dict[str, Any]] = {
    "base": {},
    "untied": {"tie_word_embeddings": False},
    "clamped": {"clamp_len": 3},
    "relu": {"ff_activation": "relu", "layer_norm_eps": 1e-5},
    "tanh": {"ff_activation": "gelu_new"},
}


@pytest.mark.parametrize("name", HF)
def test_a_folder_of_transformers_is_the_same_function_here(name: str, tmp_path: Path) -> None:
    theirs = hf_model(**HF[name])
    theirs.save_pretrained(tmp_path)
    assert_same_function(load_model(tmp_path), theirs, ordered())


def test_without_segments_as_transformers_without_token_types(tmp_path: Path) -> None:
    theirs = hf_model()
    theirs.save_pretrained(tmp_path)
    ours: Any = load_model(tmp_path)
    batch = replace(ordered(), segments_N=None)
    torch.testing.assert_close(ours(batch).logits(), theirs(**as_hf(batch)).logits.flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("segments", [True, False])
def test_packed_rows_are_transformers_padded_rows(segments: bool) -> None:
    theirs = hf_model()
    ours, batch = from_hf(theirs), joined(uneven(segments=segments))
    assert_same_function(ours, theirs, batch)
    inputs = {name: value for name, value in as_hf(batch).items() if name not in ("perm_mask", "target_mapping")}
    states = theirs.transformer(**inputs, use_mems=False).last_hidden_state[inputs["attention_mask"].bool()]
    torch.testing.assert_close(ours.encode(replace(batch, ranks_N=None)), states, atol=1e-5, rtol=1e-5)


def test_memory_is_transformers_mems() -> None:
    """Their second segment with the first one's mems, and what both keep for a third."""
    theirs = hf_model(mem_len=None, use_mems_eval=True)
    ours = from_hf(theirs)
    first, second = replace(ordered(length=6, seed=3), ranks_N=None, target_index_M=None), ordered(seed=4)
    first = replace(first, segments_N=torch.zeros_like(first.tokens_N))  # theirs: memory is of segment 0
    mems = theirs.transformer(first.tokens_N.view(ROWS, 6)).mems
    states = ours.states(first)
    for mem, state in zip(mems, states, strict=False):
        torch.testing.assert_close(state.view(ROWS, 6, -1), mem.transpose(0, 1), atol=1e-5, rtol=1e-5)
    memory = replace(first, positions_N=first.positions_N - 6)
    assert_same_function(ours, theirs, replace(second, memory=memory), mems=mems)
    with_both = ours.states(replace(second, memory=memory, ranks_N=None))
    again = theirs.transformer(
        second.tokens_N.view(ROWS, LENGTH), mems=mems, token_type_ids=as_hf(second)["token_type_ids"]
    )
    for mem, before, state in zip(again.mems, states, with_both, strict=False):
        both = torch.cat([before.view(ROWS, 6, -1), state.view(ROWS, LENGTH, -1)], dim=1)
        torch.testing.assert_close(both, mem.transpose(0, 1), atol=1e-5, rtol=1e-5)


def test_given_memory_is_transformers_mems() -> None:
    """Any states can be memory, and gradients reach them not."""
    theirs = hf_model()
    ours = from_hf(theirs)
    generator = torch.Generator().manual_seed(5)
    mems = [torch.randn(5, ROWS, 24, generator=generator) for _ in range(2)]
    tokens = torch.zeros(ROWS * 5, dtype=torch.int64)
    memory = Batch(
        tokens_N=tokens, positions_N=torch.arange(-5, 0).repeat(ROWS), bounds_R1=torch.arange(0, 16, 5).int(),
        max_row_length=5, targets_M=tokens[:0], segments_N=tokens,
    )  # fmt: skip
    flat = [mem.transpose(0, 1).flatten(0, 1) for mem in mems]
    assert_same_function(ours, theirs, replace(ordered(), memory=memory), memory=flat, mems=mems)


def test_memory_behind_a_row_is_transformers_bi_data() -> None:
    """The second half of their batch is read from its end: its memory is what follows it in the text."""
    theirs = hf_model(bi_data=True)
    ours = from_hf(theirs)
    batch = ordered(num_rows=2)
    ahead = ordered(num_rows=2, length=5, seed=6)
    tokens = ahead.tokens_N.view(2, 5)
    positions = torch.stack([torch.arange(-5, 0), torch.arange(LENGTH, LENGTH + 5)])
    memory = replace(
        ahead, positions_N=positions.flatten(), ranks_N=None, target_index_M=None, segments_N=0 * ahead.tokens_N
    )
    hf_batch = {name: value.clone() for name, value in as_hf(batch).items()}
    for name, axes in (("input_ids", (0,)), ("token_type_ids", (0,)), ("perm_mask", (0, 1)), ("target_mapping", (1,))):
        hf_batch[name][1] = hf_batch[name][1].flip(axes)
    read = torch.stack([tokens[0], tokens[1].flip(0)])
    mems = theirs.transformer(read, use_mems=True).mems
    answer = theirs(**hf_batch, mems=mems)
    out = ours(replace(batch, memory=memory))
    torch.testing.assert_close(out.logits(), answer.logits.flatten(0, 1), atol=1e-5, rtol=1e-5)


def from_hf(theirs: Any) -> XLNet:
    state = dict(theirs.named_parameters())
    keys = ConfigReader({**theirs.config.to_dict(), "bi_data": False}, "config")
    config = Format().read_config(keys, "config")
    ours: XLNet = config.build()
    ours.load_state_dict(
        {w.ours: w.join([state[n].detach() for n in w.theirs]).clone() for w in Format().weights(config)}
    )
    return ours


def test_encode_is_transformers_model_without_an_order() -> None:
    theirs = hf_model()
    ours, batch = from_hf(theirs), ordered()
    inputs = as_hf(batch)
    answer = theirs.transformer(inputs["input_ids"], token_type_ids=inputs["token_type_ids"], use_mems=False)
    found = ours.encode(replace(batch, ranks_N=None))
    torch.testing.assert_close(found, answer.last_hidden_state.flatten(0, 1), atol=1e-5, rtol=1e-5)


def test_the_identity_order_is_a_causal_model() -> None:
    """The content stream of transformers' one-directional variant, and its memory as one long text."""
    theirs = hf_model(attn_type="uni")
    ours = from_hf(hf_model())
    batch = replace(ordered(), segments_N=None)
    batch = replace(batch, ranks_N=batch.positions_N + 1)
    tokens = batch.tokens_N.view(ROWS, LENGTH)
    answer = theirs.transformer(tokens, use_mems=False).last_hidden_state
    torch.testing.assert_close(ours.encode(batch), answer.flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_a_prediction_from_the_past_is_that_of_the_past_alone(positions: str) -> None:
    """In the identity order, whatever follows a token might as well not be there."""
    model = small(positions=positions)
    batch = replace(ordered(num_rows=1), ranks_N=None, target_index_M=None, segments_N=None)
    whole = model(batch).logits()
    for length in range(1, LENGTH):
        part = replace(
            batch, tokens_N=batch.tokens_N[:length], positions_N=batch.positions_N[:length], max_row_length=length,
            bounds_R1=torch.tensor([0, length], dtype=torch.int32),
        )  # fmt: skip
        torch.testing.assert_close(model(part).logits(), whole[:length], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_a_target_sees_exactly_the_context_and_the_targets_before_it(positions: str) -> None:
    model, batch = small(positions=positions), ordered(num_rows=2)
    assert batch.ranks_N is not None
    assert batch.target_index_M is not None
    before = model(batch).logits()
    for place in range(2 * LENGTH):
        tokens = batch.tokens_N.clone()
        tokens[place] = (tokens[place] + 7) % VOCAB
        differs = (model(replace(batch, tokens_N=tokens)).logits() != before).any(1)
        same_row = batch.target_index_M // LENGTH == place // LENGTH
        wanted = same_row & (batch.ranks_N[place] < batch.ranks_N[batch.target_index_M])
        assert torch.equal(differs, wanted), place


@pytest.mark.parametrize("positions", ["relative", "rotary"])
@pytest.mark.parametrize("follows", [False, True])
def test_memory_is_a_part_of_one_long_row_that_sees_only_itself(positions: str, follows: bool) -> None:
    model, batch = small(positions=positions), ordered()
    extra = ordered(length=5, seed=9)
    assert batch.ranks_N is not None
    assert batch.segments_N is not None
    assert extra.segments_N is not None
    start = LENGTH if follows else -5
    memory = replace(extra, positions_N=extra.positions_N + start, ranks_N=None, target_index_M=None)
    found = model(replace(batch, memory=memory)).logits()

    def joined(own: Tensor, other: Tensor) -> Tensor:
        parts = [own.view(ROWS, LENGTH), other.view(ROWS, 5)]
        return torch.cat(parts if follows else parts[::-1], dim=1).flatten()

    long_row = Batch(
        tokens_N=joined(batch.tokens_N, extra.tokens_N),
        positions_N=torch.arange(LENGTH + 5).repeat(ROWS),
        bounds_R1=torch.arange(0, ROWS * (LENGTH + 5) + 1, LENGTH + 5, dtype=torch.int32),
        max_row_length=LENGTH + 5,
        targets_M=batch.targets_M,
        target_index_M=(joined(batch.ranks_N, 0 * extra.tokens_N) > 0).nonzero()[:, 0],
        segments_N=joined(batch.segments_N, extra.segments_N),
        ranks_N=joined(batch.ranks_N, -1 + 0 * extra.tokens_N),
    )
    torch.testing.assert_close(found, model(long_row).logits(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, model(batch).logits(), atol=1e-3)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise"])
@pytest.mark.parametrize("remembers", [False, True])
def test_packed_rows_are_separate_rows(
    positions: str, kernel: Any, remembers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their answers, in the summed loss and in its gradients, with memory before or behind each too. The kernels of
    the blockwise attention run as plain torch."""
    for name, function in vars(_two_stream_kernels).items():
        if hasattr(function, "__wrapped__"):
            monkeypatch.setattr(_two_stream_kernels, name, function.__wrapped__)
    model, rows = small(positions=positions), uneven()
    if remembers:
        for number, length in enumerate((5, 1, 3, 5)):
            extra = replace(ordered(1, length, 0, seed=9 + number), ranks_N=None, target_index_M=None)
            start = rows[number].max_row_length if number % 2 else -length
            rows[number] = replace(rows[number], memory=replace(extra, positions_N=extra.positions_N + start))
    outs = [model(row).logits() for row in rows]
    losses = [F.cross_entropy(out, row.targets_M, reduction="sum") for out, row in zip(outs, rows, strict=True)]
    states, batch = torch.cat([model.encode(row) for row in rows]), joined(rows)
    model.set_kernel(kernel)
    together = model(batch).logits()
    torch.testing.assert_close(together, torch.cat(outs), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode(batch), states, atol=1e-5, rtol=1e-5)
    loss, alone = F.cross_entropy(together, batch.targets_M, reduction="sum"), torch.stack(losses).sum()
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)
    parameters = dict(model.named_parameters())
    found, wanted = (torch.autograd.grad(x, list(parameters.values())) for x in (loss, alone))
    for name, one, two in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.xdist_group("compile")
def test_compiled_with_the_fast_attention_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks are compiled. The kernels inside their attention, which is opaque to the blocks, run as plain torch:
    tests/nn/test_two_stream.py tries them compiled."""
    for name, kernel in vars(_two_stream_kernels).items():
        if hasattr(kernel, "__wrapped__"):
            monkeypatch.setattr(_two_stream_kernels, name, kernel.__wrapped__)
    batch = replace(ordered(), memory=replace(ordered(length=5, seed=9), ranks_N=None, target_index_M=None))
    assert batch.memory is not None
    batch = replace(batch, memory=replace(batch.memory, positions_N=batch.memory.positions_N - 5))
    results = []
    for fast in (False, True):
        model = small()
        if fast:
            model.set_kernel("blockwise", compiled=True)
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            compile_blocks(model.blocks(), any_size=False)
        logits = model(batch).logits()
        logits.square().sum().backward()
        results.append((logits, {name: p.grad for name, p in model.named_parameters()}))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "over memory, and with it"
    (plain, wanted), (found, gradients) = results
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)
    for name, grad in wanted.items():
        assert grad is not None, name
        torch.testing.assert_close(gradients[name], grad, atol=1e-4 * float(grad.abs().max()), rtol=1e-4, msg=name)


@pytest.mark.parametrize("keys", [{}, {"tied": False, "activation": "relu", "clamp": 4}, {"activation": "gelu_tanh"}])
def test_our_folder_is_the_same_function_in_transformers(
    keys: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = small(**keys)
    save_model(ours, tmp_path / "model")
    transformers.utils.logging.enable_propagation()
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(theirs).__name__ == "XLNetLMHeadModel"
    assert not any(info.values()), info
    assert not [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert_same_function(ours, theirs.eval(), ordered())
    assert load_config(tmp_path / "model") == ours.config


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_save_and_load_give_the_same_bits(positions: str, tmp_path: Path) -> None:
    ours = small(positions=positions)
    save_model(ours, tmp_path / "model")
    back: Any = load_model(tmp_path / "model")
    assert back.config == ours.config
    for key, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"attn_type": "uni"}, "attn_type must be 'bi'"),
        ({"bi_data": True}, "bi_data must be False"),
        ({"ff_activation": "mish"}, "ff_activation must be one of gelu"),
        ({"d_head": 5}, "d_head must be d_model / n_head"),
        ({"clamp_len": 1.5}, "clamp_len must be a whole number"),
        ({"rope_theta": 3.0}, "rope_theta is not known here"),
    ],
)
def test_what_we_do_not_compute_is_told(keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    save_model(small(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    with pytest.raises(UserError, match=told):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"width": 25}, "width must be a multiple of heads"),
        ({"width": 27}, "need an even width"),
        ({"heads": 8, "positions": "rotary"}, "need an even width"),
    ],
)
def test_shapes_that_do_not_fit_are_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"vocab_size": VOCAB, "layers": 2, "width": 24, "heads": 3, **keys})


@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds(size: str) -> None:
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": 32000, **SIZES[size]}).build()
    assert len(model.blocks()) == SIZES[size]["layers"]


@pytest.mark.parametrize(("size", "published"), [("base", 116_718_336), ("large", 360_268_800)])
def test_published_sizes_have_the_published_number_of_weights(size: str, published: int) -> None:
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": 32000, **SIZES[size]}).build()
        c = model.config
        theirs = transformers.XLNetLMHeadModel(
            transformers.XLNetConfig(
                d_model=c.width, n_layer=c.layers, n_head=c.heads, d_inner=c.inner_width, vocab_size=32000
            )
        )
    number = sum(p.numel() for p in model.parameters())
    assert number == sum(p.numel() for p in theirs.parameters())
    assert number - 32000 == published, "told without the head's bias"


def test_initial_values_are_the_seeds() -> None:
    models = [small() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.initialize(torch.Generator().manual_seed(seed))
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["query"], states[2]["query"])
    assert float(states[0]["layers.0.mlp.up.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(states[0]["layers.0.attention.content_bias"].std()) > 0
    assert not states[0]["head.bias"].any()


def test_flops_are_those_that_torch_counts() -> None:
    """But for the products with each distance of the table, of which a query needs a row's length."""
    length, num_rows = 60, 2
    model = small(positions="rotary", width=48, vocab_size=300)
    batch = replace(ordered(num_rows, length, num_targets=10), segments_N=None)
    with FlopCounterMode(display=False) as counter:
        model(batch).logits().sum().backward()
    assert counter.get_total_flops() / (num_rows * length) == pytest.approx(model.flops_per_token(length), rel=0.01)


@pytest.mark.xdist_group("compile")
def test_compiled_around_attention_in_plain_torch_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator attention is plain torch, which reads the rows' lengths: it stays outside the graphs. Two
    shapes of a batch, since the second is traced anew. The graphs run as they are traced, without kernels of theirs."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = small(layers=1), small(layers=1)
    compile_blocks(compiled.blocks(), any_size=False, whole=False)
    for batch in (ordered(), ordered(num_rows=2, length=9)):
        for model in (plain, compiled):
            model.zero_grad()
            model(batch).logits().square().sum().backward()
        torch.testing.assert_close(compiled(batch).logits(), plain(batch).logits(), atol=1e-4, rtol=1e-5)
        for (name, wanted), found in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(found.grad, wanted.grad, atol=1e-4, rtol=1e-4, msg=name)
