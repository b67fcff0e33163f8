"""`Batch`: the only thing that models take. Packed tokens, no padding, for every family.

N tokens lie one after another; `bounds_R1` says where each of the R rows ends. A row is what attention sees as one
text: a fixed-length row of a causal model, a sentence pair of an encoder, a document of a packed row. The same
bounds serve both engines: on CPU, consecutive rows of one length are one dense block (so collators sort rows into
length buckets); on CUDA they are the `cu_seqlens` of variable-length attention. Everything but attention works on the
packed N tokens and knows no rows.
"""

# Shapes: N = packed tokens, R = rows, M = positions whose output a loss reads, S = packed tokens of an encoder's side,
# K = noise words of a target, C = context words of all targets.

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    tokens_N: Tensor
    """Token ids, int64 [N]."""
    positions_N: Tensor
    """Position of each token in its row, int64 [N]; starts at 0 in each row."""
    bounds_R1: Tensor
    """Where rows begin and end: int32 [R + 1], first 0, last N, strictly rising. On CPU for CPU models."""
    max_row_length: int
    """Length of the longest row, tokens."""
    targets_M: Tensor
    """Token ids that the loss asks for, int64 [M]."""
    target_index_M: Tensor | None = None
    """Which of the N positions each target is read at, int64 [M]; None: every position in order (M = N)."""
    segments_N: Tensor | None = None
    """Segment (sentence A or B) of each token, int64 [N]; None: the family has none."""
    samples_R: tuple[int, ...] = ()
    """Number of each row in the data order, so that a bad row can be named."""
    sources_R: tuple[int, ...] = ()
    """Index of the data source of each row."""
    prefix_R: Tensor | None = None
    """How many first tokens of each causal row see each other (a prefix language model), int64 [R]; None: none."""
    source_tokens_S: Tensor | None = None
    """What an encoder reads for each row, packed likewise, int64 [S]; None: the family has no encoder beside."""
    source_positions_S: Tensor | None = None
    """Position of each source token in its row, int64 [S]."""
    source_bounds_R1: Tensor | None = None
    """Where the rows of the source begin and end, int32 [R + 1], like `bounds_R1`."""
    max_source_length: int = 0
    """Length of the longest source, tokens."""
    labels_R: Tensor | None = None
    """What is true of each row as a whole (does B follow A), int64 [R]; None: nothing is asked."""
    ranks_N: Tensor | None = None
    """Place of each token in its row's factorization order, int64 [N]: 0 for the context, which sees itself and no
    more; then 1, 2, ...: each sees those of its rank and lower ones. None: no order, all see all."""
    memory: "Batch | None" = None
    """Text just before or just after each row (its positions, counted from the row's first token, tell which), R rows:
    read once without gradient, and seen by the row's tokens as they see each other."""
    negatives_MK: Tensor | None = None
    """Token ids that each target is told from, drawn from noise, int64 [M, K]; None: from all others."""
    context_index_C: Tensor | None = None
    """Which of the N positions targets are predicted from, one target's after another's, int64 [C]; None: each target
    is read at its own position."""
    context_starts_M: Tensor | None = None
    """Where each target's begin in `context_index_C`, int64 [M]; at least one each."""

    @property
    def num_tokens(self) -> int:
        """Tokens that a model computes: those of the sources too."""
        return self.tokens_N.shape[0] + (0 if self.source_tokens_S is None else self.source_tokens_S.shape[0])

    @property
    def tokens_of_rows(self) -> list[int]:
        """How many of them each row has."""
        lengths_R = self.bounds_R1.diff()
        if self.source_bounds_R1 is not None:
            lengths_R = lengths_R + self.source_bounds_R1.diff()
        return lengths_R.tolist()

    @property
    def num_targets(self) -> int:
        return self.targets_M.shape[0]

    @property
    def num_rows(self) -> int:
        return self.bounds_R1.shape[0] - 1

    def losses_by_source(self, losses: Tensor, num_sources: int) -> Tensor:
        """Sum and number of an objective's losses by the source of their rows, fp64 [num_sources, 2]."""
        sources = torch.tensor(self.sources_R)[self.rows_of_losses(len(losses))].to(losses.device)
        totals = losses.new_zeros(num_sources, 2, dtype=torch.float64)
        return totals.index_add_(0, sources, torch.stack([losses.double(), torch.ones_like(losses).double()], 1))

    def rows_of_losses(self, number: int) -> Tensor:
        """The row that each of an objective's losses is of, int64 [number], on the CPU: one a row, one a target's
        place, or one a token."""
        places = self.target_index_M
        if places is None or len(places) != number:
            if number == self.num_rows:
                return torch.arange(number)
            places = torch.arange(number)
        return torch.searchsorted(self.bounds_R1[1:].long().cpu(), places.cpu(), right=True)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Batch):
                moved[item.name] = value.to(device)
            elif isinstance(value, Tensor):
                moved[item.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


def rows_batch(
    tokens_RT: Tensor, targets_RT: Tensor, samples_R: tuple[int, ...] = (), sources_R: tuple[int, ...] = ()
) -> Batch:
    """R rows of T tokens each, a target at every position. tokens_RT, targets_RT: int64 [R, T]."""
    num_rows, length = tokens_RT.shape
    return Batch(
        tokens_N=tokens_RT.reshape(-1),
        positions_N=torch.arange(length).repeat(num_rows),
        bounds_R1=torch.arange(0, num_rows * length + 1, length, dtype=torch.int32),
        max_row_length=length,
        targets_M=targets_RT.reshape(-1),
        samples_R=samples_R,
        sources_R=sources_R,
    )


def row_groups(bounds_R1: Tensor) -> list[tuple[int, int, int]]:
    """Consecutive rows of one length, as (first token, number of rows, row length)."""
    bounds = bounds_R1.tolist()
    groups: list[tuple[int, int, int]] = []
    for start, end in pairwise(bounds):
        length = end - start
        if groups and groups[-1][2] == length:
            first, count, _ = groups[-1]
            groups[-1] = (first, count + 1, length)
        else:
            groups.append((start, 1, length))
    return groups


@dataclass(frozen=True)
class RowPairs:
    """Consecutive rows whose queries are of one length and whose keys are of one length."""

    first_row: int
    num_rows: int
    first_query: int
    num_queries: int
    """Query tokens of each row."""
    first_key: int
    num_keys: int
    """Key tokens of each row."""


def row_pairs(q_bounds_R1: Tensor, k_bounds_R1: Tensor) -> list[RowPairs]:
    """The rows of a batch in groups of one shape, where keys may lie in another packed sequence."""
    queries, keys = q_bounds_R1.tolist(), k_bounds_R1.tolist()
    assert len(queries) == len(keys), "as many rows of keys as of queries"
    groups: list[RowPairs] = []
    for row, (first, end) in enumerate(pairwise(queries)):
        last = groups[-1] if groups else None
        shape = (end - first, keys[row + 1] - keys[row])
        if last is not None and (last.num_queries, last.num_keys) == shape:
            groups[-1] = replace(last, num_rows=last.num_rows + 1)
        else:
            groups.append(RowPairs(row, 1, first, shape[0], keys[row], shape[1]))
    return groups
