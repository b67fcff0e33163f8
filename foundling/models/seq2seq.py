"""An encoder and a decoder that reads what it says, two mathematics.

`2017`: sinusoidal positions, LayerNorm behind each residual, ReLU, biases, one embedding for source, target and head,
scaled by sqrt(width) where it is read (Vaswani et al. 2017, arXiv:1706.03762) = torch.nn.Transformer without its last
norms. `modern`: the layers of the modern decoder (models/gpt.py): rotary positions, RMSNorm before each layer and at
both ends, SwiGLU, grouped queries, no biases. Cross attention has no positions of its own.
"""

# Shapes: N = packed tokens of the decoder, S = packed tokens of the encoder, R = rows, B = rows of a cached batch,
# T = their new tokens, L = longest source of a cached batch, D = width, H = query heads, G = key-value heads,
# K = width of a head, V = vocabulary.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from foundling.core.config import Strict
from foundling.core.errors import UserError
from foundling.core.units import Size
from foundling.data.batch import Batch
from foundling.models import gpt
from foundling.models.base import Hidden, Style
from foundling.models.gpt import Attention, Rows
from foundling.nn.attention import Kernel, attend, attend_cached
from foundling.nn.dropout import dropout
from foundling.nn.init import Scheme, fill_, scheme_std, writes, xavier_std
from foundling.nn.mlp import ReluMlp, SwigluMlp
from foundling.nn.norms import LayerNorm, RmsNorm
from foundling.nn.positions import rotary_tables, sinusoids

Rotary = tuple[Tensor, Tensor] | None


class Config(Strict):
    objectives: ClassVar[tuple[str, ...]] = ("seq2seq",)
    """What the family can be trained by, its own first."""

    vocab_size: Size
    """Rows of the embedding, which source and target share: token ids below it."""
    layers: Size
    """Blocks of the decoder, and of the encoder unless `encoder_layers` says otherwise."""
    encoder_layers: Size | None = None
    """Blocks of the encoder; None: as many as `layers`."""
    width: Size
    """Size of the hidden state."""
    heads: Size
    """Query heads."""
    kv_heads: Size | None = None
    """Key-value heads, a divisor of `heads`; None: as many as `heads`."""
    head_width: Size | None = None
    """Width of one head; None: width / heads."""
    mlp_width: Size | None = None
    """Inner width of the MLP; None: 4 x width (2017), 8/3 x width in whole 64s (modern: the same weights)."""
    math: Literal["2017", "modern"] = "modern"
    """Which architecture."""
    max_positions: Size = 1024
    """Longest source and longest target, tokens. What was trained for; no weight is bound to it."""
    tied: bool = True
    """Whether the head shares the embedding's weights."""
    qk_norm: bool = True
    """modern: RMSNorm over each query and key head."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """modern: base of the rotary frequencies."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance in every norm."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a value is zeroed while the model trains: of the embeddings, and of what attentions and MLP give to
    the residual sum. Attention weights are not dropped (nn/dropout.py)."""
    init_std: Annotated[float, Field(gt=0)] | None = None
    """Spread of all initial matrices; modern: those that write to the residual stream / sqrt(2 layers). None: 2017:
    1 / sqrt(width) for the embedding, Xavier (Glorot & Bengio 2010) for matrices; modern: as models/gpt.py."""
    init: Scheme | None = None
    """Spread of the initial matrices by a scheme, with `init_std` (None: 0.02). normal: all alike; scaled: those that
    write to the residual stream / sqrt(2 layers); xavier: sqrt(2 / (rows + columns)) in the blocks (Glorot & Bengio
    2010). None: what `init_std` says."""

    @field_validator("math", mode="before")
    @classmethod
    def _year(cls, value: Any) -> Any:
        """YAML reads a bare 2017 as a number."""
        return "2017" if value == 2017 else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; got width {self.width}, heads {self.heads}")
        if self.heads % self.groups:
            raise ValueError(f"heads must be a multiple of kv_heads; got heads {self.heads}, kv_heads {self.groups}")
        if self.math == "2017" and self.width % 2:
            raise ValueError(f"sinusoidal positions need an even width; got {self.width}")
        if self.math == "modern" and self.key_width % 2:
            raise ValueError(f"rotary positions need an even head width; got {self.key_width}")
        return self

    @property
    def groups(self) -> int:
        return self.kv_heads or self.heads

    @property
    def key_width(self) -> int:
        return self.head_width or self.width // self.heads

    @property
    def source_layers(self) -> int:
        return self.encoder_layers or self.layers

    @property
    def inner_width(self) -> int:
        if self.mlp_width:
            return self.mlp_width
        return 4 * self.width if self.math == "2017" else max(64, round(8 * self.width / 3 / 64) * 64)

    def build(self) -> "Seq2Seq":
        return Seq2Seq(self)


@dataclass(frozen=True)
class Sources:
    """What the encoder reads: packed rows, as in `Batch`."""

    tokens_S: Tensor
    positions_S: Tensor
    bounds_R1: Tensor
    longest: int

    @classmethod
    def of(cls, batch: Batch) -> "Sources":
        if batch.source_tokens_S is None:
            raise UserError("an encoder-decoder must be given a source beside each text", got="text alone")
        assert batch.source_positions_S is not None
        assert batch.source_bounds_R1 is not None
        return cls(batch.source_tokens_S, batch.source_positions_S, batch.source_bounds_R1, batch.max_source_length)

    @classmethod
    def pack(cls, rows: Sequence[Sequence[int]], device: torch.device | None = None) -> "Sources":
        """From the ids of each row, at least one each."""
        lengths = [len(row) for row in rows]
        assert min(lengths) > 0, "a source has tokens"
        return cls(
            tokens_S=torch.tensor([i for row in rows for i in row], dtype=torch.int64, device=device),
            positions_S=torch.cat([torch.arange(n, device=device) for n in lengths]),
            bounds_R1=torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32),
            longest=max(lengths),
        )


@dataclass(frozen=True)
class Memory:
    """What the encoder made of the sources: what the decoder's cross attention reads."""

    states_SD: Tensor
    bounds_R1: Tensor
    longest: int


class CrossAttention(nn.Module):
    """From the decoder's tokens to all of the encoder's of the same row. Rows of `kv` lie by head: key, then value."""

    kernel: Kernel = "auto"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_width = config.key_width
        bias = config.math == "2017"
        self.q = nn.Linear(config.width, config.heads * config.key_width, bias=bias)
        self.kv = nn.Linear(config.width, 2 * config.groups * config.key_width, bias=bias)
        self.out = nn.Linear(config.heads * config.key_width, config.width, bias=bias)
        norms = config.math == "modern" and config.qk_norm
        self.q_norm = RmsNorm(config.key_width, config.norm_eps) if norms else None
        self.k_norm = RmsNorm(config.key_width, config.norm_eps) if norms else None

    def keys_values(self, states_SD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [S, G, K] of what the encoder made."""
        kv_SGPK = self.kv(states_SD).view(states_SD.shape[0], -1, 2, self.head_width)
        k_SGK, v_SGK = kv_SGPK[:, :, 0], kv_SGPK[:, :, 1]
        return (k_SGK if self.k_norm is None else self.k_norm(k_SGK)), v_SGK

    def forward(self, x_ND: Tensor, rows: Rows, memory: Memory | None) -> Tensor:
        q_NHK = self.q(x_ND).view(x_ND.shape[0], -1, self.head_width)
        if self.q_norm is not None:
            q_NHK = self.q_norm(q_NHK)
        if isinstance(rows.cache, Cache):
            return self.out(rows.cache.attend_source(self, q_NHK).flatten(1))
        assert memory is not None
        k_SGK, v_SGK = self.keys_values(memory.states_SD)
        out_NHK = attend(
            q_NHK, k_SGK, v_SGK, rows.bounds_R1, rows.longest, causal=False,
            k_bounds_R1=memory.bounds_R1, max_k_length=memory.longest, kernel=self.kernel,
        )  # fmt: skip
        return self.out(out_NHK.flatten(1))


class EncoderBlock(nn.Module):
    """Attention in both directions and MLP, each around a residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_first = config.math == "modern"
        self.attention_norm = _norm(config)
        self.attention = Attention(config, causal=False)
        self.mlp_norm = _norm(config)
        self.mlp = _mlp(config)
        self.dropout = dropout(config.dropout)

    def forward(self, x_SD: Tensor, rotary: Rotary, rows: Rows) -> Tensor:
        if self.norm_first:
            x_SD = x_SD + self.dropout(self.attention(self.attention_norm(x_SD), rotary, rows))
            return x_SD + self.dropout(self.mlp(self.mlp_norm(x_SD)))
        x_SD = self.attention_norm(x_SD + self.dropout(self.attention(x_SD, rotary, rows)))
        return self.mlp_norm(x_SD + self.dropout(self.mlp(x_SD)))


class DecoderBlock(nn.Module):
    """Causal attention, attention to the source, and MLP, each around a residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_first = config.math == "modern"
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.cross_norm = _norm(config)
        self.cross = CrossAttention(config)
        self.mlp_norm = _norm(config)
        self.mlp = _mlp(config)
        self.dropout = dropout(config.dropout)

    def forward(self, x_ND: Tensor, rotary: Rotary, rows: Rows, memory: Memory | None) -> Tensor:
        if self.norm_first:
            x_ND = x_ND + self.dropout(self.attention(self.attention_norm(x_ND), rotary, rows))
            x_ND = x_ND + self.dropout(self.cross(self.cross_norm(x_ND), rows, memory))
            return x_ND + self.dropout(self.mlp(self.mlp_norm(x_ND)))
        x_ND = self.attention_norm(x_ND + self.dropout(self.attention(x_ND, rotary, rows)))
        x_ND = self.cross_norm(x_ND + self.dropout(self.cross(x_ND, rows, memory)))
        return self.mlp_norm(x_ND + self.dropout(self.mlp(x_ND)))


def _norm(config: Config) -> nn.Module:
    norm = LayerNorm if config.math == "2017" else RmsNorm
    return norm(config.width, config.norm_eps)


def _mlp(config: Config) -> nn.Module:
    mlp = ReluMlp if config.math == "2017" else SwigluMlp
    return mlp(config.width, config.inner_width, bias=config.math == "2017")


class Seq2Seq(nn.Module):
    """Encoder and decoder. Call it with a `Batch` that has sources for the decoder's last hidden states."""

    parallel_plan: ClassVar[dict[str, Style]] = {
        "*coder.*.attention.qkv": "colwise",
        "*coder.*.attention.q_norm": "headwise",
        "*coder.*.attention.k_norm": "headwise",
        "*coder.*.attention.out": "rowwise",
        "decoder.*.cross.q": "colwise",
        "decoder.*.cross.kv": "colwise",
        "decoder.*.cross.q_norm": "headwise",
        "decoder.*.cross.k_norm": "headwise",
        "decoder.*.cross.out": "rowwise",
        "*coder.*.mlp.gate": "colwise",
        "*coder.*.mlp.up": "colwise",
        "*coder.*.mlp.down": "rowwise",
    }

    lr_factors: ClassVar[dict[str, float]] = {"embedding.weight": 8.0}

    target_share: float = 0.5
    """Share of a row's tokens that are the target's, of which the model knows nothing: `flops_per_token` counts by it,
    and whoever knows the data sets it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.dropout = dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.source_layers))
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        last = config.math == "modern"  # 2017 has its norms behind each layer
        self.encoder_norm = _norm(config) if last else None
        self.norm = _norm(config) if last else None
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def matrices(self) -> Mapping[str, int | None]:
        by_head = ("*coder.*.attention.qkv.weight", "decoder.*.cross.q.weight", "decoder.*.cross.kv.weight")
        return dict.fromkeys(by_head, self.config.key_width) | {"*coder.*.weight": None}

    def blocks(self) -> Sequence[nn.Module]:
        return [*self.encoder, *self.decoder]

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        for module in self.modules():
            if isinstance(module, Attention | CrossAttention):
                module.kernel = kernel

    def forward(self, batch: Batch) -> Hidden:
        x_ND = self._stream(batch)
        return self._answer(x_ND if batch.target_index_M is None else x_ND[batch.target_index_M])

    def encode(self, batch: Batch) -> Tensor:
        """Hidden states [N, D] of all tokens of the decoder, after the last norm."""
        return self._normed(self._stream(batch))

    def encode_sources(self, sources: Sources) -> Memory:
        """The encoder alone."""
        x_SD, rotary = self._embed(sources.tokens_S, sources.positions_S)
        rows = Rows(sources.bounds_R1, sources.longest)
        for layer in self.encoder:
            x_SD = layer(x_SD, rotary, rows)
        if self.encoder_norm is not None:
            x_SD = self.encoder_norm(x_SD)
        return Memory(x_SD, sources.bounds_R1, sources.longest)

    def start_cache(self, sources: Sources, capacity: int) -> "Cache":
        """A cache that has read the sources, for decoding at most `capacity` tokens of each."""
        memory = self.encode_sources(sources)
        lengths = memory.bounds_R1.diff()
        cache = Cache(num_rows=len(lengths), capacity=capacity, num_sources=len(lengths))
        if int(lengths.min()) < memory.longest:
            place_L = torch.arange(memory.longest, device=lengths.device)
            cache.source_visible_11L = (place_L[None, :] < lengths[:, None])[:, None].to(memory.states_SD.device)
        for layer in self.decoder:
            assert isinstance(layer, DecoderBlock)
            k_SGK, v_SGK = layer.cross.keys_values(memory.states_SD)
            key = id(layer.cross)
            cache.source_keys[key], cache.source_values[key] = (_padded(x, lengths) for x in (k_SGK, v_SGK))
        return cache

    def forward_cached(self, tokens_BT: Tensor, cache: "Cache") -> Hidden:
        """Hidden states [B x T, D] of T new tokens in each of the cache's B rows; the cache grows by T."""
        num_rows, num_new = tokens_BT.shape
        cache.expect(num_rows, num_new)
        positions_N = torch.arange(cache.length, cache.length + num_new, device=tokens_BT.device).repeat(num_rows)
        x_ND, rotary = self._embed(tokens_BT.reshape(-1), positions_N)
        rows = Rows(cache.no_bounds, 0, cache)
        for layer in self.decoder:
            x_ND = layer(x_ND, rotary, rows, None)
        cache.length += num_new
        return self._answer(x_ND)

    def _stream(self, batch: Batch) -> Tensor:
        """The decoder's residual stream [N, D] after its last block."""
        memory = self.encode_sources(Sources.of(batch))
        x_ND, rotary = self._embed(batch.tokens_N, batch.positions_N)
        rows = Rows(batch.bounds_R1, batch.max_row_length)
        for layer in self.decoder:
            x_ND = layer(x_ND, rotary, rows, memory)
        return x_ND

    def _embed(self, tokens_N: Tensor, positions_N: Tensor) -> tuple[Tensor, Rotary]:
        c, x_ND = self.config, self.embedding(tokens_N)
        if c.math == "2017":
            x_ND = x_ND * math.sqrt(c.width) + sinusoids(positions_N, c.width).to(x_ND.dtype)
            return self.dropout(x_ND), None
        return self.dropout(x_ND), rotary_tables(positions_N, c.key_width, c.rope_theta)

    def _normed(self, x_ND: Tensor) -> Tensor:
        return x_ND if self.norm is None else self.norm(x_ND)

    def _answer(self, x_MD: Tensor) -> Hidden:
        head = self.embedding if self.head is None else self.head
        return Hidden(self._normed(x_MD), head.weight)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        for name, parameter in self.named_parameters():
            fill_(name, parameter, self._initial_std(name, parameter), generator)

    def _initial_std(self, name: str, parameter: Tensor) -> float:
        c, in_block = self.config, name.startswith(("encoder.", "decoder."))
        query_rows = c.heads * c.key_width
        if c.init is None and c.init_std is None:
            if c.math == "2017":
                in_matrix = in_block and parameter.ndim == 2
                return xavier_std(name, parameter.shape, query_rows) if in_matrix else c.width**-0.5
            if not in_block:
                return 0.05
            return 0.0 if writes(name) else 0.8 * parameter.shape[-1] ** -0.5
        return scheme_std(
            c.init or ("normal" if c.math == "2017" else "scaled"), name, parameter,
            std=0.02 if c.init_std is None else c.init_std, num_layers=c.layers,
            query_rows=query_rows, in_block=in_block,
        )  # fmt: skip

    def flops_per_token(self, row_length: int) -> float:
        """Of one token, source and target counted alike, in rows of which `target_share` is the target."""
        c, target = self.config, row_length * self.target_share
        source = row_length - target
        heads_width = c.heads * c.key_width
        decoder = sum(p.numel() for p in self.decoder.parameters() if p.ndim == 2)
        cross_kv = c.layers * c.width * 2 * c.groups * c.key_width  # over the source's tokens
        encoder = sum(p.numel() for p in self.encoder.parameters() if p.ndim == 2)
        matrices = source * (encoder + cross_kv) + target * (decoder - cross_kv + c.vocab_size * c.width)
        keys = source * c.source_layers * 2 * source + target * c.layers * ((target + 1) + 2 * source)
        return 6.0 * (matrices + keys * heads_width) / row_length


def _padded(x_SGK: Tensor, lengths_R: Tensor) -> Tensor:
    """Packed rows side by side, [R, G, L, K], zeros behind the short ones."""
    return pad_sequence(x_SGK.split(lengths_R.tolist()), batch_first=True).transpose(1, 2)


@dataclass
class Cache(gpt.Cache):
    """Keys and values of the B rows' targets so far, and of their sources, which may differ in length.

    A source is held once however many rows stand on it (the hypotheses of a beam): as many on each, side by side.
    """

    source_keys: dict[int, Tensor] = field(default_factory=dict)
    source_values: dict[int, Tensor] = field(default_factory=dict)
    num_sources: int = 0
    source_visible_11L: Tensor | None = None
    """Which places of the padded sources hold tokens, [sources, 1, L]; None: all."""

    def attend_source(self, layer: nn.Module, q_NHK: Tensor) -> Tensor:
        """Attends to all of each row's source; [N, H, K] in and out."""
        q = q_NHK.unflatten(0, (self.num_sources, -1)).transpose(1, 2)  # the rows of one source are its queries
        out = attend_cached(q, self.source_keys[id(layer)], self.source_values[id(layer)], self.source_visible_11L)
        return out.transpose(1, 2).flatten(0, 1)

    def select(self, rows_B: Tensor) -> None:
        sources, counts = (rows_B // (self.num_rows // self.num_sources)).unique_consecutive(return_counts=True)
        assert (counts == counts[0]).all(), "each source must keep as many rows"
        super().select(rows_B)
        if sources.tolist() == list(range(self.num_sources)):
            return
        self.num_sources = len(sources)
        for held in (self.source_keys, self.source_values):
            for layer, old in held.items():
                held[layer] = old.index_select(0, sources)
        if self.source_visible_11L is not None:
            self.source_visible_11L = self.source_visible_11L.index_select(0, sources)
