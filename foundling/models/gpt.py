"""One decoder, two mathematics.

`gpt2`: learned positions, LayerNorm, GELU, biases (Radford et al. 2019) = Hugging Face's GPT2LMHeadModel.
`modern`: rotary positions, RMSNorm, SwiGLU, grouped queries, no biases (Touvron et al. 2023, arXiv:2302.13971), with
RMSNorm over each query and key head (Dehghani et al. 2023, arXiv:2302.05442) = Qwen3ForCausalLM; without = Llama.

Either can read n-grams beside tokens (`ngrams`), which no class of transformers does.
"""

# Shapes: N = packed tokens, B = rows of a cached batch, T = their new tokens, S = cached tokens, D = width,
# H = query heads, G = key-value heads, Q = H / G, K = width of a head, V = vocabulary.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.core.config import Strict
from foundling.core.units import Size
from foundling.data.batch import Batch
from foundling.models.base import Hidden, Style
from foundling.nn.attention import Kernel, attend, attend_cached
from foundling.nn.dropout import dropout
from foundling.nn.init import Scheme, fill_, scheme_std, writes
from foundling.nn.mlp import GeluMlp, SwigluMlp
from foundling.nn.ngrams import NgramEmbedding, Ngrams
from foundling.nn.norms import LayerNorm, RmsNorm
from foundling.nn.positions import rotary_tables, rotate


class Config(Strict):
    objectives: ClassVar[tuple[str, ...]] = ("causal",)
    """What the family can be trained by, its own first."""

    vocab_size: Size
    """Rows of the embedding: token ids below it."""
    layers: Size
    """Number of blocks."""
    width: Size
    """Size of the hidden state."""
    heads: Size
    """Query heads."""
    kv_heads: Size | None = None
    """Key-value heads, a divisor of `heads`; None: as many as `heads`."""
    head_width: Size | None = None
    """Width of one head; None: width / heads."""
    mlp_width: Size | None = None
    """Inner width of the MLP; None: 4 x width (gpt2), 8/3 x width in whole 64s (modern: the same weights)."""
    math: Literal["gpt2", "modern"] = "modern"
    """Which architecture."""
    max_positions: Size = 1024
    """Longest row, tokens. A limit of the weights for gpt2, of what was trained for modern."""
    tied: bool = True
    """Whether the head shares the embedding's weights."""
    qk_norm: bool = True
    """modern: RMSNorm over each query and key head (Qwen3); False: Llama."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """modern: base of the rotary frequencies."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance in every norm."""
    prefix: bool = False
    """Whether a row may begin with a prefix (a prompt) whose tokens see each other: a prefix language model (Raffel et
    al. 2020, arXiv:1910.10683, section 3.2.1). Follows from `objective.prefix`."""
    ngrams: Ngrams | None = None
    """Embeddings of n-grams added to those of tokens: {orders: [2, 3], rows: 32K}; None: none. They add weights and
    memory but no products, and save steps; only foundling reads such a model."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a value is zeroed while the model trains: of the embedding, and of what attention and MLP give to
    the residual sum. Attention weights are not dropped (nn/dropout.py)."""
    init_std: Annotated[float, Field(gt=0)] | None = None
    """Spread of all initial matrices (GPT-2: 0.02), those that write to the residual stream / sqrt(2 layers); None:
    gpt2 0.02; modern 0.05 for the embedding, 0.8 / sqrt(columns) for matrices, 0 for those that write to the stream
    (so an untrained tied model predicts the token it reads, and its first loss lies above log(vocab_size))."""
    init: Scheme | None = None
    """Spread of the initial matrices by a scheme, with `init_std` (None: 0.02). normal: all alike; scaled: those that
    write to the residual stream / sqrt(2 layers); xavier: sqrt(2 / (rows + columns)) in the blocks (Glorot & Bengio
    2010). None: what `init_std` says."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; got width {self.width}, heads {self.heads}")
        if self.heads % self.groups:
            raise ValueError(f"heads must be a multiple of kv_heads; got heads {self.heads}, kv_heads {self.groups}")
        if self.math == "gpt2" and (self.groups != self.heads or self.key_width * self.heads != self.width):
            raise ValueError("math gpt2 has heads of width / heads and as many kv_heads as heads; use math: modern")
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
    def inner_width(self) -> int:
        if self.mlp_width:
            return self.mlp_width
        return 4 * self.width if self.math == "gpt2" else max(64, round(8 * self.width / 3 / 64) * 64)

    @property
    def is_ours(self) -> bool:
        """Whether it computes what no class of transformers does."""
        return self.prefix or self.ngrams is not None

    def bare(self) -> "Config":
        """The same decoder without a head of its own, for a head of a task."""
        return self.model_copy(update={"tied": True})

    def build(self) -> "Gpt":
        return Gpt(self)


class AttentionShape(Protocol):
    """A config, as far as `Attention` reads it."""

    @property
    def math(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def key_width(self) -> int: ...
    @property
    def qk_norm(self) -> bool: ...
    @property
    def norm_eps(self) -> float: ...


class Attention(nn.Module):
    """Self-attention with one fused projection; with biases in all mathematics but modern.

    Rows of `qkv` lie by key-value head: Q query heads, then one key, one value. So a split of its output over devices
    is a split of whole head groups.
    """

    kernel: Kernel = "auto"

    def __init__(self, config: AttentionShape, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.per_group = config.heads // config.groups
        self.head_width = config.key_width
        bias = config.math != "modern"
        self.qkv = nn.Linear(config.width, (config.heads + 2 * config.groups) * config.key_width, bias=bias)
        self.out = nn.Linear(config.heads * config.key_width, config.width, bias=bias)
        norms = config.math == "modern" and config.qk_norm
        self.q_norm = RmsNorm(config.key_width, config.norm_eps) if norms else None
        self.k_norm = RmsNorm(config.key_width, config.norm_eps) if norms else None

    def forward(self, x_ND: Tensor, rotary: tuple[Tensor, Tensor] | None, rows: "Rows") -> Tensor:
        qkv_NGPK = self.qkv(x_ND).view(x_ND.shape[0], -1, self.per_group + 2, self.head_width)
        q_NHK = qkv_NGPK[:, :, : self.per_group].flatten(1, 2)
        k_NGK, v_NGK = qkv_NGPK[:, :, -2], qkv_NGPK[:, :, -1]
        if self.q_norm is not None and self.k_norm is not None:
            q_NHK, k_NGK = self.q_norm(q_NHK), self.k_norm(k_NGK)
        if rotary is not None:
            q_NHK, k_NGK = rotate(q_NHK, *rotary), rotate(k_NGK, *rotary)
        if rows.cache is not None:
            out_NHK = rows.cache.attend(self, q_NHK, k_NGK, v_NGK)
        else:
            out_NHK = attend(
                q_NHK, k_NGK, v_NGK, rows.bounds_R1, rows.longest,
                causal=self.causal, prefix_R=rows.prefix_R, kernel=self.kernel,
            )  # fmt: skip
        return self.out(out_NHK.flatten(1))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and around a residual (pre-norm)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.mlp_norm = _norm(config)
        mlp = GeluMlp if config.math == "gpt2" else SwigluMlp
        self.mlp = mlp(config.width, config.inner_width, bias=config.math == "gpt2")
        self.dropout = dropout(config.dropout)

    def forward(self, x_ND: Tensor, rotary: tuple[Tensor, Tensor] | None, rows: "Rows") -> Tensor:
        x_ND = x_ND + self.dropout(self.attention(self.attention_norm(x_ND), rotary, rows))
        return x_ND + self.dropout(self.mlp(self.mlp_norm(x_ND)))


def _norm(config: Config) -> nn.Module:
    norm = LayerNorm if config.math == "gpt2" else RmsNorm
    return norm(config.width, config.norm_eps)


class Gpt(nn.Module):
    """The decoder. Call it with a `Batch` for the last hidden states of all its tokens."""

    parallel_plan: ClassVar[dict[str, Style]] = {
        "layers.*.attention.qkv": "colwise",
        "layers.*.attention.q_norm": "headwise",
        "layers.*.attention.k_norm": "headwise",
        "layers.*.attention.out": "rowwise",
        "layers.*.mlp.gate": "colwise",
        "layers.*.mlp.up": "colwise",
        "layers.*.mlp.down": "rowwise",
    }

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.ngrams = NgramEmbedding(config.ngrams, config.width) if config.ngrams else None
        self.positions = nn.Embedding(config.max_positions, config.width) if config.math == "gpt2" else None
        self.dropout = dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = _norm(config)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def lr_factors(self) -> Mapping[str, float]:
        return {"embedding.weight": 8.0} | ({"ngrams.table.weight": 8.0} if self.ngrams is not None else {})

    @property
    def matrices(self) -> Mapping[str, int | None]:
        return {"layers.*.attention.qkv.weight": self.config.key_width, "layers.*.weight": None}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = kernel

    def forward(self, batch: Batch) -> Hidden:
        x_ND = self._stream(self._embedded(batch), batch.positions_N, self._rows(batch))
        return self._answer(x_ND if batch.target_index_M is None else x_ND[batch.target_index_M])

    def encode(self, batch: Batch, wanted_W: Tensor | None = None) -> Tensor:
        """Hidden states after the last norm: [N, D] of all tokens, or [W, D] of those that are wanted."""
        x_ND = self._stream(self._embedded(batch), batch.positions_N, self._rows(batch))
        hidden_WD: Tensor = self.norm(x_ND if wanted_W is None else x_ND[wanted_W])
        return hidden_WD

    def _embedded(self, batch: Batch) -> Tensor:
        x_ND: Tensor = self.embedding(batch.tokens_N)
        return x_ND if self.ngrams is None else x_ND + self.ngrams(batch.tokens_N, batch.positions_N)

    def _rows(self, batch: Batch) -> "Rows":
        assert batch.prefix_R is None or self.config.prefix, "the config says that no row has a prefix"
        return Rows(batch.bounds_R1, batch.max_row_length, prefix_R=batch.prefix_R)

    def forward_cached(self, tokens_BT: Tensor, cache: "Cache", *, prefix: bool = False) -> Hidden:
        """Hidden states [B x T, D] of T new tokens in each of the cache's B rows; the cache grows by T.

        prefix: they are the rows' prefix, whole: they see each other, and the cache is empty before.
        """
        assert not prefix or (self.config.prefix and cache.length == 0), "a prefix is what a row begins with"
        num_rows, num_new = tokens_BT.shape
        cache.expect(num_rows, num_new)
        cache.is_prefix = prefix
        positions_BT = torch.arange(cache.length, cache.length + num_new, device=tokens_BT.device).repeat(num_rows, 1)
        x_BTD = self.embedding(tokens_BT)
        if self.ngrams is not None:
            read_BS = cache.read_on(tokens_BT, self.ngrams.reach)
            first = cache.length + num_new - read_BS.shape[1]
            places_BS = torch.arange(first, cache.length + num_new, device=tokens_BT.device).repeat(num_rows, 1)
            ngrams_ND = self.ngrams(read_BS.flatten(), places_BS.flatten())
            x_BTD = x_BTD + ngrams_ND.unflatten(0, (num_rows, -1))[:, -num_new:]
        x_ND = self._stream(x_BTD.flatten(0, 1), positions_BT.flatten(), Rows(cache.no_bounds, 0, cache))
        cache.length += num_new
        return self._answer(x_ND)

    def _stream(self, x_ND: Tensor, positions_N: Tensor, rows: "Rows") -> Tensor:
        """The residual stream [N, D] after the last block, from the embedded tokens."""
        rotary = None
        if self.positions is not None:
            x_ND = x_ND + self.positions(positions_N)
        else:
            rotary = rotary_tables(positions_N, self.config.key_width, self.config.rope_theta)
        x_ND = self.dropout(x_ND)
        for layer in self.layers:
            x_ND = layer(x_ND, rotary, rows)
        return x_ND

    def _answer(self, x_MD: Tensor) -> Hidden:
        head = self.embedding if self.head is None else self.head
        return Hidden(self.norm(x_MD), head.weight)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        for name, parameter in self.named_parameters():
            fill_(name, parameter, self._initial_std(name, parameter), generator)

    def _initial_std(self, name: str, parameter: Tensor) -> float:
        c, in_block = self.config, name.startswith("layers.")
        if c.init is None and c.init_std is None and c.math == "modern":
            if not in_block:
                return 0.0 if name.startswith("ngrams.") else 0.05
            return 0.0 if writes(name) else 0.8 * parameter.shape[-1] ** -0.5
        return scheme_std(
            c.init or "scaled", name, parameter, std=c.init_std or 0.02, num_layers=c.layers,
            query_rows=c.heads * c.key_width, in_block=in_block,
        )  # fmt: skip

    def flops_per_token(self, row_length: int) -> float:
        c = self.config
        matrices = sum(p.numel() for layer in self.layers for p in layer.parameters() if p.ndim == 2)
        attention = c.layers * (row_length + 1) * c.heads * c.key_width  # two products over (T + 1) / 2 keys a token
        return 6.0 * (matrices + c.vocab_size * c.width) + 6.0 * attention


@dataclass
class Rows:
    """How the tokens of one forward pass fall into rows, and the cache they extend if they do."""

    bounds_R1: Tensor
    longest: int
    cache: "Cache | None" = None
    prefix_R: Tensor | None = None
    """How many first tokens of each row all of its tokens see."""


@dataclass
class Cache:
    """Keys and values of what B rows have read so far, all rows equally long."""

    num_rows: int
    capacity: int
    """Tokens a row can hold."""
    length: int = 0
    """Tokens each row holds now."""
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    no_bounds: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    is_prefix: bool = False
    """Whether the tokens that are being read see each other."""
    last_tokens_BS: Tensor | None = None
    """The last tokens of each row, as far as n-grams reach back; None: none were read, or nobody asks."""

    def expect(self, num_rows: int, num_new: int) -> None:
        assert num_rows == self.num_rows, (num_rows, self.num_rows)
        assert self.length + num_new <= self.capacity, (self.length, num_new, self.capacity)

    def read_on(self, tokens_BT: Tensor, reach: int) -> Tensor:
        """The new tokens behind up to `reach` tokens before them, [B, S]."""
        read_BS = tokens_BT if self.last_tokens_BS is None else torch.cat([self.last_tokens_BS, tokens_BT], dim=1)
        self.last_tokens_BS = read_BS[:, -reach:]
        return read_BS

    def attend(self, layer: nn.Module, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """Appends a layer's new keys and values and attends to all; [N, H, K] in and out."""
        q, k, v = (x.unflatten(0, (self.num_rows, -1)).transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
        num_new = q.shape[2]
        if id(layer) not in self.keys:
            shape = (self.num_rows, k.shape[1], self.capacity, k.shape[3])
            self.keys[id(layer)], self.values[id(layer)] = k.new_empty(shape), v.new_empty(shape)
        keys, values = self.keys[id(layer)], self.values[id(layer)]
        end = self.length + num_new
        keys[:, :, self.length : end], values[:, :, self.length : end] = k, v
        visible = None
        if num_new > 1 and not self.is_prefix:
            query = torch.arange(self.length, end, device=q.device)
            visible = (torch.arange(end, device=q.device)[None, :] <= query[:, None])[None]
        out_BHTK = attend_cached(q, keys[:, :, :end], values[:, :, :end], visible)
        return out_BHTK.transpose(1, 2).flatten(0, 1)

    def select(self, rows_B: Tensor) -> None:
        """Goes on with these of its rows, int64 [B], in this order, repeated or left out: what beam search keeps."""
        for held in (self.keys, self.values):
            for layer, old in held.items():
                held[layer] = old.new_empty(rows_B.shape[0], *old.shape[1:])
                held[layer][:, :, : self.length] = old[:, :, : self.length].index_select(0, rows_B)
        if self.last_tokens_BS is not None:
            self.last_tokens_BS = self.last_tokens_BS.index_select(0, rows_B)
        self.num_rows = rows_B.shape[0]


def last_logits(hidden: Hidden, num_rows: int) -> Tensor:
    """Logits [B, V] of the last new token of each row."""
    last_BD = hidden.hidden_MD.unflatten(0, (num_rows, -1))[:, -1]
    return F.linear(last_BD, hidden.head_weight_VD, hidden.head_bias_V)
