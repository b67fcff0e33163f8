"""Laws of the encoder-decoder, torch's own Transformer as the reference of the 2017 mathematics."""

import fnmatch
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from foundling.data.batch import Batch
from foundling.models.gpt import Rows, last_logits
from foundling.models.seq2seq import Config, Memory, Seq2Seq, Sources
from tests.nn.test_attention import ROWS

SIZES = yaml.safe_load(files("foundling.models").joinpath("sizes.yaml").read_text(encoding="utf-8"))["seq2seq"]
VARIANTS: dict[str, dict[str, Any]] = {
    "2017": {"math": "2017"},
    "modern": {"kv_heads": 2},
    "other": {"kv_heads": 1, "qk_norm": False, "tied": False, "head_width": 10, "encoder_layers": 3},
}
VOCAB = 61


def small(variant: str, **keys: object) -> Seq2Seq:
    values = {
        "vocab_size": VOCAB,
        "layers": 2,
        "width": 24,
        "heads": 4,
        "max_positions": 32,
        **VARIANTS[variant],
        **keys,
    }
    model = Config.model_validate(values).build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def some_tokens(seed: int, *lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (n,), generator=generator) for n in lengths]


def packed(sources: list[Tensor], targets: list[Tensor], index: Tensor | None = None) -> Batch:
    own, other = (Sources.pack([row.tolist() for row in rows]) for rows in (targets, sources))
    return Batch(
        tokens_N=own.tokens_S, positions_N=own.positions_S, bounds_R1=own.bounds_R1, max_row_length=own.longest,
        targets_M=own.tokens_S, target_index_M=index, source_tokens_S=other.tokens_S,
        source_positions_S=other.positions_S, source_bounds_R1=other.bounds_R1, max_source_length=other.longest,
    )  # fmt: skip


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_target_token_sees_its_past_and_all_of_its_source(variant: str) -> None:
    model, (source,), (target,) = small(variant), some_tokens(1, 9), some_tokens(2, 12)
    before = model(packed([source], [target])).hidden_MD
    for place in range(12):
        changed = target.clone()
        changed[place] = (changed[place] + 7) % VOCAB
        differs = (model(packed([source], [changed])).hidden_MD != before).any(1)
        assert not differs[:place].any()
        assert differs[place:].all()
    for place in range(9):
        changed = source.clone()
        changed[place] = (changed[place] + 7) % VOCAB
        assert (model(packed([changed], [target])).hidden_MD != before).any(1).all()


@pytest.mark.parametrize("kernel", ["sdpa", ROWS])
def test_packed_rows_are_separate_rows(variant: str, kernel: Any) -> None:
    """In their answers, in the summed loss and in its gradients."""
    model, sources, targets = small(variant), some_tokens(1, 3, 9, 9, 5), some_tokens(2, 7, 12, 12, 1)
    model.set_kernel("sdpa")
    pairs = zip(sources, targets, strict=True)
    answers = [model(packed([source], [target])).logits() for source, target in pairs]
    model.set_kernel(kernel)
    together = model(packed(sources, targets)).logits()
    torch.testing.assert_close(together, torch.cat(answers), atol=1e-5, rtol=1e-5)
    asked = [target.roll(-1) for target in targets]
    loss = F.cross_entropy(together, torch.cat(asked), reduction="sum")
    alone = torch.stack([F.cross_entropy(x, y, reduction="sum") for x, y in zip(answers, asked, strict=True)]).sum()
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)
    parameters = dict(model.named_parameters())
    found, wanted = (torch.autograd.grad(x, list(parameters.values()), retain_graph=True) for x in (loss, alone))
    for name, one, two in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4, msg=name)
    chosen = torch.tensor([30, 0, 8])
    torch.testing.assert_close(model(packed(sources, targets, chosen)).logits(), together[chosen])
    torch.testing.assert_close(
        model.encode(packed(sources, targets, chosen)), model(packed(sources, targets)).hidden_MD
    )


@pytest.mark.parametrize("lengths", [(9, 9, 9), (3, 9, 5)])
def test_with_a_cache_as_without(variant: str, lengths: tuple[int, ...]) -> None:
    model, sources, targets = small(variant), some_tokens(1, *lengths), some_tokens(2, 10, 10, 10)
    whole = model(packed(sources, targets)).logits().view(3, 10, -1)
    cache = model.start_cache(Sources.pack([s.tolist() for s in sources]), capacity=10)
    tokens = torch.stack(targets)
    for first, end in ((0, 4), (4, 5), (5, 8), (8, 9), (9, 10)):
        out = model.forward_cached(tokens[:, first:end], cache)
        torch.testing.assert_close(last_logits(out, 3), whole[:, end - 1], atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_are_repeated_reordered_and_left_out(variant: str) -> None:
    """As a beam does: hypotheses on one source, then another order, then a sentence less."""
    model, sources = small(variant), some_tokens(1, 3, 9, 5)
    begin, second, third = torch.tensor([[1], [2], [3]]), torch.arange(4, 10)[:, None], torch.arange(20, 24)[:, None]
    cache = model.start_cache(Sources.pack([s.tolist() for s in sources]), capacity=3)
    model.forward_cached(begin, cache)
    cache.select(torch.tensor([0, 0, 1, 1, 2, 2]))
    model.forward_cached(second, cache)
    kept = torch.tensor([1, 0, 5, 5])
    cache.select(kept)
    logits = last_logits(model.forward_cached(third, cache), 4)
    for row, old in enumerate(kept.tolist()):
        target = torch.cat([begin[old // 2], second[old], third[row]])
        wanted = model(packed([sources[old // 2]], [target])).logits()[-1]
        torch.testing.assert_close(logits[row], wanted, atol=1e-5, rtol=1e-5)


def reference(model: Seq2Seq) -> nn.Transformer:
    """torch's Transformer with the same weights: 2017 norms stand behind each layer, and none at the end."""
    c = model.config
    keys: dict[str, Any] = {"dim_feedforward": c.inner_width, "dropout": 0.0, "batch_first": True}
    theirs = nn.Transformer(
        c.width, c.heads,
        custom_encoder=nn.TransformerEncoder(nn.TransformerEncoderLayer(c.width, c.heads, **keys), c.layers),
        custom_decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(c.width, c.heads, **keys), c.layers),
        batch_first=True,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(ours_of(model, name, lambda p: p))
    return theirs


def ours_of(model: Seq2Seq, name: str, value: Any) -> Tensor:
    """Our parameter (or its gradient: `value`) in the layout of torch's parameter of this name."""
    c = model.config
    side, _, number, rest = name.split(".", 3)
    layer = f"{side}.{number}."
    norms = ["attention_norm", "mlp_norm"] if side == "encoder" else ["attention_norm", "cross_norm", "mlp_norm"]
    kind = rest.rsplit(".", 1)[-1].removeprefix("in_proj_")
    if rest.startswith("norm"):
        return value(model.get_parameter(f"{layer}{norms[int(rest[4]) - 1]}.{kind}"))
    if rest.startswith("linear"):
        return value(model.get_parameter(f"{layer}mlp.{'up' if rest[6] == '1' else 'down'}.{kind}"))
    own = "attention" if rest.startswith("self_attn") else "cross"
    if "out_proj" in rest:
        return value(model.get_parameter(f"{layer}{own}.out.{kind}"))
    if own == "cross":
        kv = value(model.get_parameter(f"{layer}cross.kv.{kind}")).unflatten(0, (c.heads, 2, c.key_width))
        return torch.cat(
            [value(model.get_parameter(f"{layer}cross.q.{kind}")), *(kv[:, i].flatten(0, 1) for i in (0, 1))]
        )
    qkv = value(model.get_parameter(f"{layer}attention.qkv.{kind}")).unflatten(0, (c.heads, 3, c.key_width))
    return torch.cat([qkv[:, i].flatten(0, 1) for i in range(3)])


def test_the_2017_mathematics_is_torchs() -> None:
    """On packed rows of several lengths here, padded ones there."""
    model = small("2017")
    theirs = reference(model).eval()
    sources, targets = some_tokens(1, 3, 9, 9, 5), some_tokens(2, 7, 12, 12, 1)
    c = model.config

    def read(tokens_BT: Tensor) -> Tensor:
        """The paper's sum, written out position by position."""
        length = tokens_BT.shape[1]
        angle = lambda t, d: torch.tensor(t / 10_000 ** (d // 2 * 2 / c.width))
        waves = [[(torch.cos if d % 2 else torch.sin)(angle(t, d)) for d in range(c.width)] for t in range(length)]
        table = torch.tensor(waves)
        return model.embedding(tokens_BT) * c.width**0.5 + table

    src, tgt = (pad_sequence(rows, batch_first=True, padding_value=7) for rows in (sources, targets))
    no_source, no_target = (
        torch.arange(x.shape[1])[None] >= torch.tensor([len(row) for row in rows])[:, None]
        for x, rows in ((src, sources), (tgt, targets))
    )
    later = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)
    states = theirs(
        read(src), read(tgt), tgt_mask=later, tgt_is_causal=True, src_key_padding_mask=no_source,
        memory_key_padding_mask=no_source, tgt_key_padding_mask=no_target,
    )  # fmt: skip
    wanted = states[~no_target] @ model.embedding.weight.T
    ours = model(packed(sources, targets)).logits()
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)

    chosen = torch.randint(0, VOCAB, (len(ours),), generator=torch.Generator().manual_seed(3))
    F.cross_entropy(wanted, chosen).backward()
    embedding = model.embedding.weight.grad
    model.zero_grad()
    F.cross_entropy(ours, chosen).backward()
    torch.testing.assert_close(model.embedding.weight.grad, embedding, atol=1e-5, rtol=1e-5)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            ours_of(model, name, lambda p: p.grad), parameter.grad, atol=1e-5, rtol=1e-5, msg=name
        )


def test_cross_attention_is_the_formula(variant: str) -> None:
    """softmax(q k / sqrt(K)) v head by head, queries and keys at unit root mean square where they are normed."""
    model = small(variant)
    c, cross = model.config, model.decoder[0].cross
    generator = torch.Generator().manual_seed(4)
    x_TD, states_SD = (torch.randn(n, c.width, generator=generator) for n in (5, 7))
    bounds = lambda n: torch.tensor([0, n], dtype=torch.int32)
    found = cross(x_TD, Rows(bounds(5), 5), Memory(states_SD, bounds(7), 7))
    q_THK = cross.q(x_TD).unflatten(1, (c.heads, c.key_width))
    kv_SGPK = cross.kv(states_SD).unflatten(1, (c.groups, 2, c.key_width))
    heads = []
    for head in range(c.heads):
        group = head // (c.heads // c.groups)
        q, k, v = q_THK[:, head], kv_SGPK[:, group, 0], kv_SGPK[:, group, 1]
        if c.math == "modern" and c.qk_norm:
            q, k = (
                x / (x.square().mean(1, keepdim=True) + c.norm_eps).sqrt() * norm.weight
                for x, norm in ((q, cross.q_norm), (k, cross.k_norm))
            )
        heads.append((q @ k.T / c.key_width**0.5).softmax(1) @ v)
    torch.testing.assert_close(found, cross.out(torch.cat(heads, 1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(32, 32), (52, 12)])
def test_flops_are_those_that_torch_counts(variant: str, source: int, target: int) -> None:
    model = small(variant, max_positions=64, width=48, vocab_size=300, head_width=None)
    model.target_share = target / (source + target)
    batch = packed(some_tokens(1, source, source), some_tokens(2, target, target))
    model.set_kernel("sdpa")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # others are not counted on CPU
        model(batch).logits().sum().backward()
    c = model.config
    # torch counts the decoder's own attention as if all keys were seen: so many pairs too many in each row
    unseen = target * target - target * (target + 1) / 2
    length = source + target
    counted = counter.get_total_flops() / (2 * length) - 12 * c.layers * unseen * c.heads * c.key_width / length
    assert counted == pytest.approx(model.flops_per_token(length), rel=0.01)


def test_initial_values_are_the_seeds(variant: str) -> None:
    models = [small(variant, width=64, layers=8, heads=4, head_width=None) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.initialize(torch.Generator().manual_seed(seed))
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    names = ("decoder.1.cross.kv.weight", "embedding.weight", "encoder.0.mlp.down.weight")
    assert not torch.equal(states[0][names[0]], states[2][names[0]])
    wanted = (64**-0.5, 64**-0.5, (2 / (64 + 256)) ** 0.5) if variant == "2017" else (0.1, 0.05, 0.0)
    for name, std in zip(names, wanted, strict=True):
        assert float(states[0][name].std()) == pytest.approx(std, rel=0.05), name


def test_every_pattern_of_the_plan_names_layers_and_every_matrix_of_a_block_is_named() -> None:
    names: dict[str, nn.Module] = {}
    for each in VARIANTS:
        names |= {n: m for n, m in small(each).named_modules() if any(True for _ in m.parameters(recurse=False))}
    for pattern in Seq2Seq.parallel_plan:
        assert fnmatch.filter(names, pattern), pattern
    for name, module in names.items():
        if name.startswith(("encoder.", "decoder.")) and isinstance(module, nn.Linear):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in Seq2Seq.parallel_plan), name


@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds(size: str) -> None:
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": 37_000, **SIZES[size]}).build()
    assert len(model.blocks()) == 2 * SIZES[size]["layers"]


def test_the_base_model_has_the_weights_of_the_paper() -> None:
    """Table 3 says 65 million, for a vocabulary of about 37,000 (section 5.1)."""
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": 37_000, **SIZES["base"]}).build()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(65e6, rel=0.04)
    assert (model.config.layers, model.config.width, model.config.inner_width, model.config.heads) == (6, 512, 2048, 8)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"width": 25}, "width must be a multiple of heads"),
        ({"kv_heads": 3}, "heads must be a multiple of kv_heads"),
        ({"heads": 8, "width": 24}, "even head width"),
        ({"math": "2017", "heads": 3, "width": 27}, "even width"),
        ({"math": 2018}, "2017"),
    ],
)
def test_shapes_that_do_not_fit_are_told(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"vocab_size": VOCAB, "layers": 2, "width": 24, "heads": 4, **keys})


def test_a_bare_2017_is_a_name() -> None:
    assert Config.model_validate({"vocab_size": 9, "layers": 1, "width": 8, "heads": 2, "math": 2017}).math == "2017"
