"""XLNet (Yang et al. 2019, arXiv:1906.08237): a bidirectional encoder that predicts tokens one after another.

`relative`: Transformer-XL's positions and relative segments = Hugging Face's XLNetLMHeadModel. `rotary`: the fast
variant, whose scores are those of plain attention on turned queries and keys (Su et al. 2021, arXiv:2104.09864),
without segments. Tokens of a row are seen by rank (nn/two_stream.py): the query stream is computed for the targets
alone, and the last layer has no content stream.
"""

# Shapes: N = packed tokens, M = targets, U = N + M, S = keys (tokens and memory), R = rows, L = distances, D = width,
# H = heads, K = width of a head, V = vocabulary.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.core.config import Strict
from foundling.core.units import Count, Size
from foundling.data.batch import Batch
from foundling.models.base import Hidden, Style
from foundling.nn.attention import Kernel
from foundling.nn.dropout import dropout
from foundling.nn.gelu import gelu
from foundling.nn.init import Scheme, fill_, scheme_std
from foundling.nn.mlp import gelu_tanh
from foundling.nn.norms import LayerNorm
from foundling.nn.positions import rotary_tables, rotate
from foundling.nn.relative import Relative, distance_table
from foundling.nn.two_stream import Streams, plain_two_stream
from foundling.nn.two_stream_blockwise import blockwise_two_stream

Rotary = tuple[Tensor, Tensor, Tensor, Tensor]
"""cos and sin of the looking states, cos and sin of the keys."""


class Config(Strict):
    objectives: ClassVar[tuple[str, ...]] = ("permutation",)
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
    """Inner width of the MLP; None: 4 x width."""
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    """Between the matrices of the MLP; gelu: by the error function."""
    positions: Literal["relative", "rotary"] = "relative"
    """How scores know the distance of query and key; rotary: faster, read by no other library."""
    clamp: Count | None = None
    """relative: distances beyond it count as it; None: none does."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """rotary: base of the frequencies."""
    max_positions: Size = 512
    """Longest row, tokens: what was trained for. The mathematics has no limit."""
    tied: bool = True
    """Whether the head shares the embedding's weights."""
    top: Literal["lm", "none"] = "lm"
    """What stands on the blocks: the language-model head, or nothing, for a head of a task."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    """Added to the variance in every norm."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a value is zeroed while the model trains: of what both streams start from, and of what
    attention and MLP give to the residual sum. Attention weights are not dropped (nn/dropout.py)."""
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Spread of all initial matrices and of the attention's biases."""
    init: Scheme | None = None
    """Spread of the initial matrices by a scheme, with `init_std`. normal: all alike; scaled: those that write to
    the residual stream / sqrt(2 layers); xavier: sqrt(2 / (rows + columns)) in the blocks (Glorot & Bengio 2010).
    None: what `init_std` says."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; got width {self.width}, heads {self.heads}")
        if self.width % 2 or (self.positions == "rotary" and self.key_width % 2):
            raise ValueError(f"positions {self.positions} need an even width; got {self.width}, head {self.key_width}")
        return self

    @property
    def groups(self) -> int:
        return self.heads

    @property
    def key_width(self) -> int:
        return self.width // self.heads

    @property
    def inner_width(self) -> int:
        return self.mlp_width or 4 * self.width

    def bare(self) -> "Config":
        """The same model without a head of its own, for a head of a task."""
        return self.model_copy(update={"top": "none"})

    def build(self) -> "XLNet":
        return XLNet(self)


class Attention(nn.Module):
    """Both streams' attention. Rows of `kv` lie by head: its key, then its value."""

    kernel: Kernel = "sdpa"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_width = config.key_width
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.relative = config.positions == "relative"
        if self.relative:
            self.distance = nn.Linear(config.width, config.width, bias=False)
            shape = (config.heads, config.key_width)
            self.content_bias = nn.Parameter(torch.zeros(shape))
            self.distance_bias = nn.Parameter(torch.zeros(shape))
            self.segment_bias = nn.Parameter(torch.zeros(shape))
            self.segment = nn.Parameter(torch.zeros(2, *shape))

    def forward(self, x_UD: Tensor, keys_SD: Tensor, streams: Streams, where: Tensor | Rotary) -> Tensor:
        q_UHK = self.q(x_UD).unflatten(-1, (-1, self.head_width))
        k_SHK, v_SHK = self.kv(keys_SD).unflatten(-1, (-1, 2, self.head_width)).unbind(2)
        relative = None
        if isinstance(where, Tensor):
            distance_LHK = self.distance(where).unflatten(-1, (-1, self.head_width))
            segment, segment_bias = (None, None) if streams.segment_U is None else (self.segment, self.segment_bias)
            relative = Relative(distance_LHK, segment, self.content_bias, self.distance_bias, segment_bias)
        else:
            q_UHK, k_SHK = rotate(q_UHK, *where[:2]), rotate(k_SHK, *where[2:])
        attend = blockwise_two_stream if self.kernel == "blockwise" else plain_two_stream
        out_UHK = attend(q_UHK, k_SHK, v_SHK, streams, relative)
        return self.out(out_UHK.flatten(1))


class Mlp(nn.Module):
    """Two matrices with a function between."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activation = config.activation
        self.keeps_slope = False
        self.up = nn.Linear(config.width, config.inner_width)
        self.down = nn.Linear(config.inner_width, config.width)

    def forward(self, x_UD: Tensor) -> Tensor:
        inner = self.up(x_UD)
        if self.activation == "gelu_tanh":
            return self.down(gelu_tanh(inner))
        if self.activation == "gelu" and self.keeps_slope:
            return self.down(gelu(inner))
        return self.down(_FUNCTIONS[self.activation](inner.float()).to(inner.dtype))


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class Block(nn.Module):
    """Attention and MLP, each with a norm after its residual sum (post-norm)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = LayerNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config)
        self.mlp_norm = LayerNorm(config.width, config.norm_eps)
        self.dropout = dropout(config.dropout)

    def forward(
        self,
        x_UD: Tensor,
        num_tokens: int,
        queries_only: bool,
        streams: Streams,
        where: Tensor | Rotary,
        memory: "Memory | None",
    ) -> Tensor:
        """x_UD holds all states, of which the first `num_tokens` are content; the new states of those that look."""
        keys_SD = x_UD[:num_tokens]
        if memory is not None:
            keys_SD = torch.cat([memory[0], keys_SD])[memory[1]]
        x_UD = x_UD[num_tokens:] if queries_only else x_UD
        x_UD = self.attention_norm(x_UD + self.dropout(self.attention(x_UD, keys_SD, streams, where)))
        out_UD: Tensor = self.mlp_norm(x_UD + self.dropout(self.mlp(x_UD)))
        return out_UD


Memory = tuple[Tensor, Tensor]
"""A layer's memory [.., D], and for each key its place in memory and content states laid end to end."""


class Head(nn.Module):
    """What turns hidden states into logits, less the weight that is tied to the embedding."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = None if config.tied else nn.Parameter(torch.zeros(config.vocab_size, config.width))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class XLNet(nn.Module):
    """The model. Call it with a `Batch` that has ranks for the answers at its targets."""

    parallel_plan: ClassVar[dict[str, Style]] = {"layers.*.mlp.up": "colwise", "layers.*.mlp.down": "rowwise"}
    """The attention is not split: its biases of heads are no layers of their own."""

    lr_factors: ClassVar[dict[str, float]] = {}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.query = nn.Parameter(torch.zeros(1, config.width), requires_grad=config.top == "lm")
        """What every query state starts from; without a head nothing asks for such states."""
        self.dropout = dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config) if config.top == "lm" else None

    @property
    def matrices(self) -> Mapping[str, int | None]:
        by_head = (f"layers.*.attention.{name}.weight" for name in ("q", "kv", "distance"))
        return dict.fromkeys(by_head, self.config.key_width) | {"layers.*.weight": None}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = "blockwise" if compiled else kernel
            if isinstance(module, Mlp):
                module.keeps_slope = compiled

    def forward(self, batch: Batch, memory: Sequence[Tensor] | None = None) -> Hidden:
        """The answers at the batch's targets, each from what its rank lets it see; without ranks in the batch each
        token is predicted from those before it (the identity order).

        memory: states [.., D] of the batch's memory tokens for each layer; None: computed, without gradient, if the
        batch has such tokens.
        """
        assert self.head is not None, "a model without a head gives hidden states: encode"
        if batch.ranks_N is None:
            batch = replace(batch, ranks_N=batch.positions_N + 1)
        memory = self._remember(batch) if memory is None else memory
        num_tokens = batch.tokens_N.shape[0]
        targets_M = batch.target_index_M
        if targets_M is None:
            targets_M = torch.arange(num_tokens, device=batch.tokens_N.device)
        x_UD = torch.cat([self.embedding(batch.tokens_N), self.query.expand(targets_M.shape[0], -1)])
        x_UD = self.dropout(x_UD)
        streams, key_index_S = _streams(batch, targets_M)
        where = self._where(streams, x_UD)
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            if last:
                streams = _queries_only(streams)
                where = self._where(streams, x_UD)
            remembered = None if memory is None or key_index_S is None else (memory[number], key_index_S)
            x_UD = layer(_of_fixed_size(x_UD, batch.memory is not None), num_tokens, last, streams, where, remembered)
        return Hidden(x_UD, self.embedding.weight if self.head.weight is None else self.head.weight, self.head.bias)

    def encode(self, batch: Batch, wanted_W: Tensor | None = None, memory: Sequence[Tensor] | None = None) -> Tensor:
        """Content states after the last block: [N, D] of all tokens, or [W, D] of those that are wanted; without ranks
        in the batch all see all."""
        states_ND = self.states(batch, memory)[-1]
        return states_ND if wanted_W is None else states_ND[wanted_W]

    def states(self, batch: Batch, memory: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Content states [N, D] before each block and after the last: those before are what memory holds."""
        return self._content(batch, memory, batch.memory is not None)

    def _content(self, batch: Batch, memory: Sequence[Tensor] | None, fixed: bool) -> list[Tensor]:
        memory = self._remember(batch) if memory is None else memory
        found = [self.dropout(self.embedding(batch.tokens_N))]
        streams, key_index_S = _streams(batch, batch.tokens_N.new_zeros(0))
        where = self._where(streams, found[0])
        for number, layer in enumerate(self.layers):
            remembered = None if memory is None or key_index_S is None else (memory[number], key_index_S)
            x_ND = _of_fixed_size(found[-1], fixed)
            found.append(layer(x_ND, x_ND.shape[0], False, streams, where, remembered))
        return found

    def _remember(self, batch: Batch) -> list[Tensor] | None:
        """Each layer's states of the batch's memory tokens, without gradient."""
        if batch.memory is None:
            return None
        with torch.no_grad():
            return self._content(batch.memory, None, fixed=True)[:-1]

    def _where(self, streams: Streams, x_UD: Tensor) -> Tensor | Rotary:
        """What the layers know of positions: the table of distances, or how far queries and keys are turned."""
        c = self.config
        if c.positions == "relative":
            return distance_table(streams.max_keys, c.width, c.clamp, x_UD.device).to(x_UD.dtype)
        place_S = torch.cat([torch.arange(n) for n in streams.key_bounds_R1.diff().tolist()]).to(x_UD.device)
        tables = (rotary_tables(place, c.key_width, c.rope_theta) for place in (streams.place_U, place_S))
        (cos_U, sin_U), (cos_S, sin_S) = tables
        return cos_U, sin_U, cos_S, sin_S

    def initialize(self, generator: torch.Generator | None = None) -> None:
        for name, parameter in self.named_parameters():
            fill_(name, parameter, self._initial_std(name, parameter), generator)

    def _initial_std(self, name: str, parameter: Tensor) -> float:
        c = self.config
        return scheme_std(
            c.init or "normal", name, parameter, std=c.init_std, num_layers=c.layers, query_rows=c.width,
            in_block=name.startswith("layers."),
        )  # fmt: skip

    def flops_per_token(self, row_length: int) -> float:
        c = self.config
        share = 1 / 6  # of the tokens that have a query state: the paper's
        matrix = c.width * c.width
        mlp = 2 * c.width * c.inner_width
        seen = 2 * row_length * c.width  # two products with the keys
        if c.positions == "relative":
            seen += 2 * row_length * c.width
        looks = 2 * matrix + mlp + seen  # query and output projection, MLP, attention of one state
        multiplied = c.layers * (2 * matrix + share * looks) + (c.layers - 1) * looks + share * c.vocab_size * c.width
        return 6.0 * multiplied


def _of_fixed_size(x_UD: Tensor, fixed: bool) -> Tensor:
    """The same tensor. Memory and rows go through the same compiled blocks, each always in one size; told so, the
    compiler makes code for either, and not for any size, which is slower."""
    if fixed:
        torch._dynamo.mark_static(x_UD, 0)
    return x_UD


def _streams(batch: Batch, targets_M: Tensor) -> tuple[Streams, Tensor | None]:
    """Both streams of a batch, and for each key its place in memory and content states laid end to end (None: no
    memory, the keys are the content states)."""
    device = batch.tokens_N.device
    bounds_R1 = batch.bounds_R1.cpu()
    rank_N = torch.zeros_like(batch.tokens_N) if batch.ranks_N is None else batch.ranks_N
    rank_N = rank_N.to(torch.int32)
    targets = targets_M.cpu()
    rows_M = torch.searchsorted(bounds_R1[1:].long(), targets, right=True)
    counts_R = torch.bincount(rows_M, minlength=batch.num_rows)
    query_bounds_R1 = F.pad(counts_R.cumsum(0), (1, 0)).to(torch.int32)
    place_N = torch.arange(batch.tokens_N.shape[0]) - bounds_R1[:-1].long().repeat_interleave(bounds_R1.diff().long())
    segment_N = None if batch.segments_N is None else batch.segments_N.to(torch.int32)
    key_bounds_R1, key_index_S, rank_S, segment_S = bounds_R1, None, rank_N, segment_N
    longest = batch.max_row_length
    if batch.memory is not None:
        key_bounds_R1, key_index_S, shift_N = _with_memory(batch, bounds_R1)
        place_N = place_N + shift_N
        key_index_S = key_index_S.to(device)
        longest += batch.memory.max_row_length
        rank_S = torch.cat([rank_N.new_full(batch.memory.tokens_N.shape, -1), rank_N])[key_index_S]
        if segment_N is not None:
            assert batch.memory.segments_N is not None, "memory has segments where its rows have"
            segment_S = torch.cat([batch.memory.segments_N.to(torch.int32), segment_N])[key_index_S]
    place_N = place_N.to(device)
    streams = Streams(
        content_bounds_R1=bounds_R1,
        query_bounds_R1=query_bounds_R1,
        key_bounds_R1=key_bounds_R1,
        num_content=batch.tokens_N.shape[0],
        max_keys=longest,
        place_U=torch.cat([place_N, place_N[targets_M]]),
        limit_U=torch.cat([rank_N + 1, rank_N[targets_M]]),
        rank_S=rank_S,
        segment_U=None if segment_N is None else torch.cat([segment_N, segment_N[targets_M]]),
        segment_S=segment_S,
    )
    return streams, key_index_S


def _with_memory(batch: Batch, bounds_R1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of the keys, for each key its place in memory and content laid end to end, and by how many keys each
    content token stands further back in its row's keys than in its row."""
    assert batch.memory is not None
    memory_bounds = batch.memory.bounds_R1.cpu()
    assert len(memory_bounds) == len(bounds_R1), "as many rows of memory as rows"
    num_memory = batch.memory.tokens_N.shape[0]
    index, shifts = [], []
    for row in range(batch.num_rows):
        m0, m1, c0, c1 = (int(b[row + i]) for b in (memory_bounds, bounds_R1) for i in (0, 1))
        before = int(batch.memory.positions_N[m0]) < 0
        parts = [torch.arange(m0, m1), torch.arange(num_memory + c0, num_memory + c1)]
        index += parts if before else parts[::-1]
        shifts.append(torch.full((c1 - c0,), m1 - m0 if before else 0))
    return (memory_bounds + bounds_R1).to(torch.int32), torch.cat(index), torch.cat(shifts)


def _queries_only(streams: Streams) -> Streams:
    """The last layer's: nobody reads its content states."""
    n = streams.num_content
    return replace(
        streams,
        content_bounds_R1=torch.zeros_like(streams.content_bounds_R1),
        num_content=0,
        place_U=streams.place_U[n:],
        limit_U=streams.limit_U[n:],
        segment_U=None if streams.segment_U is None else streams.segment_U[n:],
    )
