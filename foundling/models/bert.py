"""One encoder, two mathematics.

`bert`: post-norm, learned positions, segments, GELU, biases (Devlin et al. 2019, arXiv:1810.04805) = Hugging Face's
BertForPreTraining. `modern`: pre-norm, rotary positions with two bases, GeGLU, global attention in every third layer
and local in the others, no biases (Warner et al. 2024, arXiv:2412.13663) = ModernBertForMaskedLM.
"""

# Shapes: N = packed tokens, M = chosen positions, W = positions that are read at all, R = rows, C = its answers,
# D = width, H = heads, K = width of a head, V = vocabulary.

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.core.config import Strict
from foundling.core.errors import UserError
from foundling.core.units import Size
from foundling.data.batch import Batch
from foundling.models.base import Hidden, Style
from foundling.nn.attention import Kernel, attend
from foundling.nn.dropout import dropout
from foundling.nn.gelu import gelu
from foundling.nn.init import Scheme, fill_, scheme_std
from foundling.nn.mlp import ErfGeluMlp, GegluMlp
from foundling.nn.norms import LayerNorm
from foundling.nn.positions import rotary_tables, rotate

Top = Literal["none", "pooler", "masked", "pretraining"]
Rotary = tuple[Tensor, Tensor]

_MASKED_SHARE = 0.15
"""Share of the positions that are read when FLOPs are counted: BERT's mask rate."""
_SIZE_STEP = 128
"""In compiled runs on CPU, blocks see multiples of at most so many tokens: the last row is a filler that only sees
itself. The matrix library makes and keeps a kernel for each size it meets, which costs more memory and time than the
filler."""


class Config(Strict):
    objectives: ClassVar[tuple[str, ...]] = ("mlm",)
    """What the family can be trained by, its own first."""

    vocab_size: Size
    """Rows of the embedding: token ids below it."""
    layers: Size
    """Number of blocks."""
    width: Size
    """Size of the hidden state."""
    heads: Size
    """Attention heads, each width / heads wide."""
    mlp_width: Size | None = None
    """Inner width of the MLP; None: 4 x width (bert), 8/3 x width in whole 64s (modern: the same weights)."""
    math: Literal["bert", "modern"] = "bert"
    """Which architecture."""
    top: Top = "masked"
    """What stands on the encoder: `none`; `pooler`; `masked`: the masked-language head; `pretraining`: pooler,
    masked-language head and next-sentence head. Training sets it to what the objective asks for."""
    max_positions: Size = 512
    """Longest row, tokens. A limit of the weights for bert, of what was trained for modern."""
    segments: Size = 2
    """bert: rows of the segment (token type) embedding."""
    global_every: Size = 3
    """modern: layers 0, n, 2n, ... attend to the whole row."""
    window: Size = 128
    """modern: in the other layers a token sees those at most window / 2 away."""
    rope_theta: Annotated[float, Field(gt=0)] = 160_000.0
    """modern: base of the rotary frequencies in layers of global attention."""
    local_rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """modern: the same in layers of local attention."""
    norm_eps: Annotated[float, Field(gt=0)] | None = None
    """Added to the variance in every norm; None: 1e-12 (bert), 1e-5 (modern)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a value is zeroed while the model trains: of the embedding behind its norm, and of what
    attention and MLP give to the residual sum. Attention weights are not dropped (nn/dropout.py)."""
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Spread of all initial matrices; modern: those that write to the residual stream / sqrt(2 layers)."""
    init: Scheme | None = None
    """Spread of the initial matrices by a scheme, with `init_std`. normal: all alike; scaled: those that write to
    the residual stream / sqrt(2 layers); xavier: sqrt(2 / (rows + columns)) in the blocks (Glorot & Bengio 2010).
    None: what `init_std` says."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; got width {self.width}, heads {self.heads}")
        if self.math == "modern" and self.key_width % 2:
            raise ValueError(f"rotary positions need an even head width; got {self.key_width}")
        if self.math == "modern" and self.top in ("pooler", "pretraining"):
            raise ValueError("math modern has neither pooler nor next-sentence head; use math: bert, or top: masked")
        if self.top == "pretraining" and self.segments < 2:
            raise ValueError(f"a next-sentence head needs 2 segments; got segments {self.segments}")
        return self

    @property
    def groups(self) -> int:
        return self.heads

    @property
    def key_width(self) -> int:
        return self.width // self.heads

    @property
    def inner_width(self) -> int:
        if self.mlp_width:
            return self.mlp_width
        return 4 * self.width if self.math == "bert" else max(64, round(8 * self.width / 3 / 64) * 64)

    @property
    def eps(self) -> float:
        return self.norm_eps if self.norm_eps is not None else (1e-12 if self.math == "bert" else 1e-5)

    def is_global(self, layer: int) -> bool:
        """Whether a layer's tokens see their whole row."""
        return self.math == "bert" or layer % self.global_every == 0

    def bare(self) -> "Config":
        """The same encoder without heads, for a head of a task."""
        return self.model_copy(update={"top": "none"})

    def build(self) -> "Bert":
        return Bert(self)


class Attention(nn.Module):
    """Self-attention with one fused projection, whose rows lie by head: its query, its key, its value."""

    kernel: Kernel = "auto"

    def __init__(self, config: Config, window: int | None) -> None:
        super().__init__()
        bias = config.math == "bert"
        self.head_width, self.window = config.key_width, window
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=bias)
        self.out = nn.Linear(config.width, config.width, bias=bias)

    def forward(
        self, x_ND: Tensor, rotary: Rotary | None, bounds_R1: Tensor, longest: int, wanted_W: Tensor | None
    ) -> Tensor:
        q_NHK, k_NHK, v_NHK = self.qkv(x_ND).view(x_ND.shape[0], -1, 3, self.head_width).unbind(2)
        if rotary is not None:
            q_NHK, k_NHK = rotate(q_NHK, *rotary), rotate(k_NHK, *rotary)
        out_NHK = attend(
            q_NHK, k_NHK, v_NHK, bounds_R1, longest, causal=False, window=self.window, kernel=self.kernel
        )  # fmt: skip
        return self.out(_chosen(out_NHK.flatten(1), wanted_W))


def _chosen(x_ND: Tensor, wanted_W: Tensor | None) -> Tensor:
    return x_ND if wanted_W is None else x_ND.index_select(0, wanted_W)


def _size_step(num_tokens: int) -> int:
    """What a number of tokens is filled up to a multiple of: a power of two, about an eighth of it."""
    return min(_SIZE_STEP, 1 << max(4, (num_tokens // 8).bit_length() - 1))


def _filled(x_ND: Tensor, rows: int) -> Tensor:
    return F.pad(x_ND, (0, 0, 0, rows))


class PostNormBlock(nn.Module):
    """Attention and MLP, each with a norm after its residual sum: BERT's. Where only some positions are wanted of the
    last block, [W], only they are computed behind the attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config, None)
        self.attention_norm = LayerNorm(config.width, config.eps)
        self.mlp = ErfGeluMlp(config.width, config.inner_width, bias=True)
        self.mlp_norm = LayerNorm(config.width, config.eps)
        self.dropout = dropout(config.dropout)

    def forward(
        self, x_ND: Tensor, rotary: Rotary | None, bounds_R1: Tensor, longest: int, wanted_W: Tensor | None = None
    ) -> Tensor:
        seen_WD = self.dropout(self.attention(x_ND, rotary, bounds_R1, longest, wanted_W))
        x_WD = self.attention_norm(_chosen(x_ND, wanted_W) + seen_WD)
        out_WD: Tensor = self.mlp_norm(x_WD + self.dropout(self.mlp(x_WD)))
        return out_WD


class PreNormBlock(nn.Module):
    """Attention and MLP, each behind a norm: ModernBERT's. The first has no norm of its own: the embedding has one."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(config.width, config.eps, bias=False) if number else None
        self.attention = Attention(config, None if config.is_global(number) else config.window)
        self.mlp_norm = LayerNorm(config.width, config.eps, bias=False)
        self.mlp = GegluMlp(config.width, config.inner_width, bias=False)
        self.dropout = dropout(config.dropout)

    def forward(
        self, x_ND: Tensor, rotary: Rotary | None, bounds_R1: Tensor, longest: int, wanted_W: Tensor | None = None
    ) -> Tensor:
        normed_ND = x_ND if self.attention_norm is None else self.attention_norm(x_ND)
        seen_WD = self.dropout(self.attention(normed_ND, rotary, bounds_R1, longest, wanted_W))
        x_WD = _chosen(x_ND, wanted_W) + seen_WD
        return x_WD + self.dropout(self.mlp(self.mlp_norm(x_WD)))


class MaskedHead(nn.Module):
    """What a hidden state passes through before it meets the embedding: a matrix, GELU and a norm; then a bias."""

    keeps_slope: bool = False
    """As in the blocks' `ErfGeluMlp`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        bias = config.math == "bert"
        self.dense = nn.Linear(config.width, config.width, bias=bias)
        self.norm = LayerNorm(config.width, config.eps, bias=bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_MD: Tensor) -> Tensor:
        inner_MD = self.dense(x_MD)
        out_MD: Tensor = self.norm(gelu(inner_MD) if self.keeps_slope else F.gelu(inner_MD))
        return out_MD


class Bert(nn.Module):
    """The encoder. Call it with a `Batch` for what a loss reads; `encode` gives all hidden states."""

    parallel_plan: ClassVar[dict[str, Style]] = {
        "layers.*.attention.qkv": "colwise",
        "layers.*.attention.out": "rowwise",
        "layers.*.mlp.up": "colwise",
        "layers.*.mlp.gated": "colwise",
        "layers.*.mlp.down": "rowwise",
    }

    lr_factors: ClassVar[dict[str, float]] = {}

    _whole_sizes: bool = False
    """Whether the blocks get a filler row that nothing reads, so that few different sizes are seen."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        post = config.math == "bert"
        self.positions = nn.Embedding(config.max_positions, config.width) if post else None
        self.segments = nn.Embedding(config.segments, config.width) if post else None
        self.embedding_norm = LayerNorm(config.width, config.eps, bias=post)
        self.dropout = dropout(config.dropout)
        blocks = (PostNormBlock(config) if post else PreNormBlock(config, i) for i in range(config.layers))
        self.layers = nn.ModuleList(blocks)
        self.norm = None if post else LayerNorm(config.width, config.eps, bias=False)
        self.head = MaskedHead(config) if config.top in ("masked", "pretraining") else None
        self.pooler = nn.Linear(config.width, config.width) if config.top in ("pooler", "pretraining") else None
        self.next = nn.Linear(config.width, 2) if config.top == "pretraining" else None

    @property
    def matrices(self) -> Mapping[str, int | None]:
        return {"layers.*.attention.qkv.weight": self.config.key_width, "layers.*.weight": None}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        self._whole_sizes = compiled
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = kernel
            elif isinstance(module, ErfGeluMlp | MaskedHead):
                module.keeps_slope = compiled

    def forward(self, batch: Batch) -> Hidden:
        if self.head is None:
            raise UserError(
                "the model must have a masked-language head to answer what stands at a position",
                got=f"an encoder alone (top: {self.config.top})",
                do="use its hidden states (`encode`), or train a head: model.from with objective mlm",
            )
        index_M, starts_R = batch.target_index_M, batch.bounds_R1[:-1].long()
        if index_M is None:
            x_ND = self.encode(batch)
            x_MD, first_RD = x_ND, x_ND[starts_R]
        else:
            wanted_W = index_M if self.next is None else torch.cat([index_M, starts_R])
            x_WD = self._stream(batch, wanted_W)
            x_MD, first_RD = x_WD[: len(index_M)], x_WD[len(index_M) :]
        next_RC = None if self.next is None else self.next(self._pooled(first_RD))
        return Hidden(self.head(x_MD), self.embedding.weight, self.head.bias, next_RC)

    def encode(self, batch: Batch, wanted_W: Tensor | None = None) -> Tensor:
        """Hidden states after the last norm: [N, D] of all tokens, or [W, D] of those that are wanted."""
        return self._stream(batch, wanted_W)

    def _stream(self, batch: Batch, wanted_W: Tensor | None) -> Tensor:
        """Hidden states after the last norm: at all N positions, or at those that are wanted."""
        x_ND = self.embedding(batch.tokens_N)
        if self.positions is not None and self.segments is not None:
            x_ND = x_ND + self.positions(batch.positions_N)
            if batch.segments_N is None:
                x_ND = x_ND + self.segments.weight[0]
            else:
                x_ND = x_ND + self.segments(batch.segments_N)
        x_ND = self.dropout(self.embedding_norm(x_ND))
        tables, bounds_R1, longest = self._rotary(batch.positions_N), batch.bounds_R1, batch.max_row_length
        num_wanted = None if wanted_W is None else len(wanted_W)
        if self._whole_sizes:
            step = _size_step(len(x_ND))
            fill = step - len(x_ND) % step
            bounds_R1, longest = torch.cat([bounds_R1, bounds_R1[-1:] + fill]), max(longest, fill)
            tables = {kind: (_filled(cos, fill), _filled(sin, fill)) for kind, (cos, sin) in tables.items()}
            if wanted_W is not None:
                wanted_W = F.pad(wanted_W, (0, -len(wanted_W) % _size_step(len(wanted_W))), value=len(x_ND))
            x_ND = _filled(x_ND, fill)
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            rotary = tables.get(self.config.is_global(number))
            x_ND = layer(x_ND, rotary, bounds_R1, longest, wanted_W if last else None)
        x_ND = x_ND[: len(batch.tokens_N) if num_wanted is None else num_wanted]
        return x_ND if self.norm is None else self.norm(x_ND)

    def pool(self, batch: Batch) -> Tensor:
        """tanh of a matrix times each row's first hidden state, [R, D]: what a sentence-level head reads."""
        if self.pooler is None:
            raise UserError("the model must have a pooler", got=f"top: {self.config.top}")
        return self._pooled(self.encode(batch)[batch.bounds_R1[:-1].long()])

    def _pooled(self, first_RD: Tensor) -> Tensor:
        assert self.pooler is not None
        return self.pooler(first_RD).tanh()

    def _rotary(self, positions_N: Tensor) -> dict[bool, Rotary]:
        """cos and sin of layers of global (True) and local attention; none where positions are learned."""
        if self.config.math == "bert":
            return {}
        thetas = {True: self.config.rope_theta, False: self.config.local_rope_theta}
        return {kind: rotary_tables(positions_N, self.config.key_width, theta) for kind, theta in thetas.items()}

    def initialize(self, generator: torch.Generator | None = None) -> None:
        for name, parameter in self.named_parameters():
            fill_(name, parameter, self._initial_std(name, parameter), generator)

    def _initial_std(self, name: str, parameter: Tensor) -> float:
        c = self.config
        return scheme_std(
            c.init or ("scaled" if c.math == "modern" else "normal"), name, parameter, std=c.init_std,
            num_layers=c.layers, query_rows=c.width, in_block=name.startswith("layers."),
        )  # fmt: skip

    def flops_per_token(self, row_length: int) -> float:
        """Of a token in a full row; 15 % of the positions pass through the head and the end of the last block."""
        c = self.config
        matrices = sum(p.numel() for layer in self.layers for p in layer.parameters() if p.ndim == 2)
        seen = sum(row_length if c.is_global(i) else min(row_length, c.window + 1) for i in range(c.layers))
        last: Any = self.layers[-1]
        behind = sum(p.numel() for part in (last.attention.out, last.mlp) for p in part.parameters() if p.ndim == 2)
        head = _MASKED_SHARE * (c.vocab_size * c.width + c.width**2) - (1 - _MASKED_SHARE) * behind
        return 6.0 * (matrices + head) + 12.0 * seen * c.width
