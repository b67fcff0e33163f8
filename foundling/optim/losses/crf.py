"""Linear-chain conditional random fields (Lafferty et al. 2001): a score for each tag of a word and for each pair of
neighbouring tags, normalised over all sequences of tags of a row.

Rows lie packed, without padding: the steps of all rows are taken together, the longest row first, so that the rows that
go on are always the first ones. The forward and the backward recursion are one, two blocks of one matrix product a
step. They multiply probabilities in fp64, scaled now and then (Rabiner 1989, section V.A). That is exact as long as no
state that can be reached comes near the end of fp64's range, which is checked; where one does, logarithms are added
instead. The gradient of log Z is made of the marginals, so autograd keeps nothing of the steps.

On CPU all of it is C++ (_crf_kernel.py), row by row, in the same two ways, each row in the one that is exact for it.
"""

# Shapes: M = words of all rows, R = rows, C = tags, S = spans. P = M: places, words in the order of the steps.

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foundling.optim.losses import _crf_kernel

_SCALE_EVERY = 8
"""Steps between two scalings, each of which costs as much as two steps. C^8 is far from the end of fp64's range."""
_FORBIDDEN = -1e30
"""Minus infinity where logarithms are added, so that gradients are numbers."""


@dataclass(frozen=True)
class Transitions:
    """Scores of neighbouring tags, of one floating type; minus infinity where they must not stand."""

    between_CC: Tensor
    """Of a tag (first index) and the one behind it (second)."""
    start_C: Tensor
    """Of a row's first tag."""
    end_C: Tensor
    """Of a row's last tag."""

    @property
    def scores(self) -> _crf_kernel.Scores:
        """All three."""
        return self.between_CC, self.start_C, self.end_C

    def allowing(self, between_CC: Tensor, start_C: Tensor, end_C: Tensor) -> "Transitions":
        """These scores with what is not allowed (bool, False) forbidden: never decoded, probability 0, no gradient.
        Each row must keep a sequence of tags that is allowed."""
        return Transitions(
            self.between_CC.masked_fill(~between_CC, -torch.inf),
            self.start_C.masked_fill(~start_C, -torch.inf),
            self.end_C.masked_fill(~end_C, -torch.inf),
        )

    def to(self, dtype: torch.dtype) -> "Transitions":
        """The same scores in another type."""
        return Transitions(self.between_CC.to(dtype), self.start_C.to(dtype), self.end_C.to(dtype))

    def at(self, temperature: float) -> "Transitions":
        """The same scores divided by a temperature."""
        return Transitions(self.between_CC / temperature, self.start_C / temperature, self.end_C / temperature)


def negative_log_likelihood(
    emissions_MC: Tensor, bounds_R1: Tensor, tags_M: Tensor, transitions: Transitions
) -> Tensor:
    """-log of the probability of each row's tags, [R], fp32 (fp64 of fp64); once differentiable.

    emissions_MC: score of each tag for each word. bounds_R1: where each row begins and ends among the words; a row
    without words has the loss 0. tags_M: int64. Infinite for tags that the transitions forbid.
    """
    if _crf_kernel.serves(emissions_MC, tags_M, *transitions.scores):
        return _as(emissions_MC, _crf_kernel.log_partition(emissions_MC, bounds_R1, tags_M, transitions.scores))
    layout = _Layout.of(bounds_R1)
    log_partition_R = _log_partition_of_steps(emissions_MC, layout, transitions)
    return _as(emissions_MC, log_partition_R - _path_scores(emissions_MC, layout, tags_M, transitions))


def log_partition(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> Tensor:
    """log Z of each row, over all sequences of tags, [R], fp32 (fp64 of fp64); once differentiable."""
    return _as(emissions_MC, _log_partition(emissions_MC, bounds_R1, transitions))


def marginals(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> Tensor:
    """Probability of each tag for each word, over all sequences of its row, fp32 [M, C], without gradients."""
    return _marginals(emissions_MC, bounds_R1, transitions).float()


@torch.no_grad()
def span_probabilities(
    emissions_MC: Tensor,
    bounds_R1: Tensor,
    tags_M: Tensor,
    first_S: Tensor,
    end_S: Tensor,
    transitions: Transitions,
    not_after_S: Tensor | None = None,
) -> Tensor:
    """Probability that all words of a span have their tags, whatever stands around it: fp32 [S], without gradients.

    That of an entity's words is how sure the entity is. Words `first` to `end` - 1, counted over M, lie in one row.
    tags_M: int64, read within the spans. not_after_S: int64, a tag that the word behind the span, where its row has
    one, must not have: one that would make the entity longer.
    """
    # From the last word backwards, P(tag | the tag behind it) follows from what stands before both: so a span costs its
    # own words alone, however long its row is.
    ahead_MC = _log_ahead(emissions_MC, bounds_R1, transitions)
    marginals_MC, between_CC = _marginals(emissions_MC, bounds_R1, transitions), transitions.between_CC.double()

    def before(word_W: Tensor, tag_W: Tensor, next_W: Tensor) -> Tensor:
        """log P(tag of a word | tag of the next one)."""
        all_WC = ahead_MC[word_W] + between_CC.t()[next_W]
        return all_WC.gather(1, tag_W[:, None])[:, 0] - all_WC.logsumexp(1)

    last_S = end_S - 1
    steps_S = last_S - first_S
    span_W = torch.arange(len(first_S), device=first_S.device).repeat_interleave(steps_S)
    word_W = torch.arange(len(span_W), device=first_S.device) + (first_S - steps_S.cumsum(0) + steps_S)[span_W]
    inside_W = before(word_W, tags_M[word_W], tags_M[word_W + 1])
    inside_S = ahead_MC.new_zeros(len(first_S)).index_add(0, span_W, inside_W)
    last_p_S = marginals_MC[last_S, tags_M[last_S]]
    if not_after_S is not None:
        (open_B,) = torch.where(~torch.isin(end_S, bounds_R1))
        at_B, tag_B = end_S[open_B], not_after_S[open_B]
        longer_B = marginals_MC[at_B, tag_B] * before(at_B - 1, tags_M[at_B - 1], tag_B).exp()
        last_p_S = last_p_S.index_add(0, open_B, longer_B.nan_to_num(0.0), alpha=-1)
    return (inside_S.exp() * last_p_S).clamp(0, 1).float()


@torch.no_grad()
def viterbi(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> tuple[Tensor, Tensor]:
    """The likeliest tags of each row (Viterbi 1967), int64 [M], and their score [R], fp32 (fp64 of fp64)."""
    if _crf_kernel.serves(emissions_MC, *transitions.scores):
        return _crf_kernel.viterbi(_as(emissions_MC, emissions_MC), bounds_R1, transitions.scores)
    layout, emissions_MC = _Layout.of(bounds_R1), _as(emissions_MC, emissions_MC)
    transitions = transitions.to(emissions_MC.dtype)
    emissions_PC = emissions_MC[layout.word_P]
    best_PC = torch.empty_like(emissions_PC)
    for step, (first, end) in enumerate(layout.steps):
        if step == 0:
            best_PC[:end] = transitions.start_C
        else:
            from_NCC = best_PC[layout.before(step), :, None] + transitions.between_CC
            torch.amax(from_NCC, 1, out=best_PC[first:end])
        best_PC[first:end] += emissions_PC[first:end]
    scores_N, tags_N = (best_PC[layout.place_M[layout.last_N]] + transitions.end_C).max(1)
    # Where the best came from is found on the way back, for one tag of a row instead of for all.
    into_CC = transitions.between_CC.t().contiguous()
    tags_P = torch.empty_like(layout.word_P)
    for step, (first, end) in reversed(list(enumerate(layout.steps))):
        tags_P[first:end] = tags_N[: end - first]
        if step > 0:
            come_NC = best_PC[layout.before(step)] + into_CC[tags_N[: end - first]]
            tags_N[: end - first] = come_NC.argmax(1)
    return tags_P[layout.place_M], layout.to_rows(scores_N)


@dataclass(frozen=True)
class _Layout:
    """Words in the order of the steps: step t takes word t of each row that is so long, the longest rows first."""

    steps: list[tuple[int, int]]
    """Places of each step: first and end."""
    step_P: Tensor
    word_P: Tensor
    """The word at each place where rows are read forwards, and the place of each word."""
    place_M: Tensor
    back_word_P: Tensor
    """The same where they are read backwards."""
    back_place_M: Tensor
    row_M: Tensor
    left_L: Tensor
    """Words that have a word behind them in their row."""
    row_N: Tensor
    """The N rows that have words, the longest first."""
    length_N: Tensor
    num_rows: int

    @classmethod
    def of(cls, bounds_R1: Tensor) -> "_Layout":
        bounds = bounds_R1.cpu().numpy().astype(np.int64)
        lengths = np.diff(bounds)
        order = np.argsort(-lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        longest = int(lengths.max(initial=0))
        counts = len(lengths) - np.cumsum(np.bincount(lengths, minlength=longest))[:longest]
        edges = np.concatenate([[0], np.cumsum(counts)])
        row_M = np.repeat(np.arange(len(lengths)), lengths)
        word_M = np.arange(len(row_M))
        step_M = word_M - bounds[row_M]
        place_M = edges[step_M] + rank[row_M]
        back_place_M = edges[lengths[row_M] - 1 - step_M] + rank[row_M]
        word_P, back_word_P = np.empty_like(word_M), np.empty_like(word_M)
        word_P[place_M], back_word_P[back_place_M] = word_M, word_M
        row_N = order[: np.count_nonzero(lengths)]
        is_left_M = step_M < lengths[row_M] - 1
        put = lambda array: torch.from_numpy(array).to(bounds_R1.device)
        return cls(
            steps=list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)),
            step_P=put(np.repeat(np.arange(longest), counts)),
            word_P=put(word_P), place_M=put(place_M), back_word_P=put(back_word_P), back_place_M=put(back_place_M),
            row_M=put(row_M), left_L=put(np.flatnonzero(is_left_M)), row_N=put(row_N), length_N=put(lengths[row_N]),
            num_rows=len(lengths),
        )  # fmt: skip

    @property
    def first_N(self) -> Tensor:
        """The first word of each row that has words."""
        return self.word_P[: len(self.row_N)]

    @property
    def last_N(self) -> Tensor:
        """Its last word."""
        return self.back_word_P[: len(self.row_N)]

    def before(self, step: int) -> slice:
        """Places of the words before those of a step, forwards; those behind them, backwards."""
        first, end = self.steps[step]
        previous = self.steps[step - 1][0]
        return slice(previous, previous + end - first)

    def to_rows(self, values_N: Tensor) -> Tensor:
        """[N] to [R]: 0 for rows without words."""
        return values_N.new_zeros(self.num_rows).index_put((self.row_N,), values_N)


def _as(emissions_MC: Tensor, values: Tensor) -> Tensor:
    """Values in fp32, or in fp64 where the emissions are."""
    return values.to(torch.promote_types(emissions_MC.dtype, torch.float32))


def _path_scores(emissions_MC: Tensor, layout: _Layout, tags_M: Tensor, transitions: Transitions) -> Tensor:
    """Score of each row's tags, fp64 [R]."""
    of_words_M = emissions_MC.gather(1, tags_M[:, None])[:, 0]
    pairs_L = tags_M[layout.left_L] * emissions_MC.shape[1] + tags_M[layout.left_L + 1]
    of_ends_N = transitions.start_C[tags_M[layout.first_N]] + transitions.end_C[tags_M[layout.last_N]]
    scores_R = torch.zeros(layout.num_rows, dtype=torch.float64, device=emissions_MC.device)
    scores_R = scores_R.index_add(0, layout.row_M, of_words_M.double())
    scores_R = scores_R.index_add(0, layout.row_M[layout.left_L], transitions.between_CC.reshape(-1)[pairs_L].double())
    return scores_R.index_add(0, layout.row_N, of_ends_N.double())


def _log_partition(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> Tensor:
    """log Z, fp64 [R]."""
    if _crf_kernel.serves(emissions_MC, *transitions.scores):
        return _crf_kernel.log_partition(emissions_MC, bounds_R1, None, transitions.scores)
    return _log_partition_of_steps(emissions_MC, _Layout.of(bounds_R1), transitions)


def _marginals(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> Tensor:
    """Probability of each tag for each word, fp64 [M, C]."""
    if _crf_kernel.serves(emissions_MC, *transitions.scores):
        return _crf_kernel.marginals(emissions_MC, bounds_R1, transitions.scores)
    layout, emissions_MC = _Layout.of(bounds_R1), emissions_MC.detach()
    with torch.no_grad():
        messages = _messages(emissions_MC, layout, transitions)
    if messages is not None:
        return messages.marginals()
    with torch.enable_grad():
        emissions_MC = emissions_MC.double().requires_grad_()
        total = _log_partition_of_logarithms(emissions_MC, layout, transitions).sum()
    return torch.autograd.grad(total, emissions_MC)[0]


def _log_ahead(emissions_MC: Tensor, bounds_R1: Tensor, transitions: Transitions) -> Tensor:
    """log of what stands before a word and at it, by its tag, less some number of each word: fp64 [M, C]."""
    if _crf_kernel.serves(emissions_MC, *transitions.scores):
        return _crf_kernel.log_ahead(emissions_MC, bounds_R1, transitions.scores)
    layout = _Layout.of(bounds_R1)
    steps = list(_ahead_in_logarithms(emissions_MC.double(), layout, transitions))
    return torch.cat(steps)[layout.place_M] if steps else emissions_MC.double()


def _log_partition_of_steps(emissions_MC: Tensor, layout: _Layout, transitions: Transitions) -> Tensor:
    """The same, the steps of all rows together."""
    with torch.no_grad():
        messages = _messages(emissions_MC, layout, transitions)
    if messages is None:
        return _log_partition_of_logarithms(emissions_MC.double(), layout, transitions)
    scores = (transitions.between_CC, transitions.start_C, transitions.end_C)
    return _LogPartition.apply(emissions_MC, *scores, layout, messages)


def _log_partition_of_logarithms(emissions_MC: Tensor, layout: _Layout, transitions: Transitions) -> Tensor:
    """log Z of any scores, fp64 [R], by autograd: the forward recursion as it is written. emissions_MC: fp64."""
    end_C = transitions.end_C.double().clamp(min=_FORBIDDEN)
    ahead_NC, ended = emissions_MC[:0], []
    for ahead in _ahead_in_logarithms(emissions_MC, layout, transitions):
        ended.append(ahead_NC[len(ahead) :])
        ahead_NC = ahead
    last_NC = torch.cat([ahead_NC, *reversed(ended)])
    return layout.to_rows(torch.logsumexp(last_NC + end_C, 1))


def _ahead_in_logarithms(emissions_MC: Tensor, layout: _Layout, transitions: Transitions) -> Iterator[Tensor]:
    """After each step, of the rows that have it: log of what stands before its word and at it, by its tag."""
    emissions_PC = emissions_MC.clamp(min=_FORBIDDEN)[layout.word_P]
    between_CC, start_C = (x.double().clamp(min=_FORBIDDEN) for x in (transitions.between_CC, transitions.start_C))
    ahead_NC = emissions_PC[:0]
    for step, (first, end) in enumerate(layout.steps):
        if step == 0:
            ahead_NC = start_C + emissions_PC[:end]
        else:
            ahead_NC = torch.logsumexp(ahead_NC[: end - first, :, None] + between_CC, 1) + emissions_PC[first:end]
        yield ahead_NC


@dataclass(frozen=True)
class _Messages:
    """What both recursions found, fp64. Each word's vectors have scales of their own."""

    ahead_MC: Tensor
    """Probability of what stands before a word and at it, by its tag."""
    behind_MC: Tensor
    """Of what stands behind it."""
    from_here_MC: Tensor
    """Of what stands at it and behind it."""
    total_M1: Tensor
    """Sum of ahead x behind: the whole row's, in the word's scales."""
    pairs_CC: Tensor
    """Probability of each pair of tags, beside the likeliest pair."""
    log_partition_R: Tensor

    def marginals(self) -> Tensor:
        """Probability of each tag for each word, [M, C]."""
        return self.ahead_MC * self.behind_MC / self.total_M1

    def pair_counts(self, layout: _Layout, factors_R: Tensor) -> Tensor:
        """How often each pair of tags is expected, each row's times its factor: [C, C]."""
        left_LC = (self.ahead_MC / self.total_M1)[layout.left_L]
        right_LC = self.from_here_MC[layout.left_L + 1] * factors_R[layout.row_M[layout.left_L], None]
        return self.pairs_CC * (left_LC.t() @ right_LC)


def _messages(emissions_MC: Tensor, layout: _Layout, transitions: Transitions) -> _Messages | None:
    """Both recursions in scaled probabilities; None where these are not exact."""
    num_tags, emissions_MC, transitions = emissions_MC.shape[1], emissions_MC.double(), transitions.to(torch.float64)
    scores = (transitions.between_CC, transitions.start_C, transitions.end_C)
    tops = [x.amax().clamp(min=_FORBIDDEN) for x in scores]
    pairs_CC, start_C, end_C = ((x - top).exp() for x, top in zip(scores, tops, strict=True))
    both = torch.block_diag(pairs_CC, pairs_CC.t())
    top_M1 = emissions_MC.amax(1, keepdim=True)
    words_MC = (emissions_MC - top_M1).exp()
    words = torch.cat([words_MC[layout.word_P], words_MC[layout.back_word_P]], 1)
    before, after = torch.empty_like(words), torch.empty_like(words)
    log_scale_N = words.new_zeros(len(layout.row_N))
    for step, (first, end) in enumerate(layout.steps):
        if step == 0:
            before[:end] = torch.cat([start_C, end_C])
        else:
            torch.mm(after[layout.before(step)], both, out=before[first:end])
        torch.mul(before[first:end], words[first:end], out=after[first:end])
        if step % _SCALE_EVERY == _SCALE_EVERY - 1:
            sides = after[first:end].view(-1, 2, num_tags)
            scale = sides.amax(2, keepdim=True)
            sides /= scale
            log_scale_N[: end - first] += scale[:, 0, 0].log()
    ahead_MC = after[layout.place_M, :num_tags]
    behind_MC, from_here_MC = before[layout.back_place_M, num_tags:], after[layout.back_place_M, num_tags:]
    total_M1 = (ahead_MC * behind_MC).sum(1, keepdim=True)
    reached = _reached(transitions, len(layout.steps))
    impossible = ~reached[layout.step_P.clamp(max=len(reached) - 1)]
    exact = ((torch.minimum(before, after) > _crf_kernel.LEAST) | impossible).all() & (
        total_M1 > _crf_kernel.LEAST
    ).all()
    if not bool(exact):
        return None
    logs_N = total_M1[layout.last_N, 0].log() + log_scale_N + tops[0] * (layout.length_N - 1) + tops[1] + tops[2]
    log_partition_R = layout.to_rows(logs_N).index_add(0, layout.row_M, top_M1[:, 0])
    return _Messages(ahead_MC, behind_MC, from_here_MC, total_M1, pairs_CC, log_partition_R)


def _reached(transitions: Transitions, num_steps: int) -> Tensor:
    """Which tags are possible after each step forwards and, beside them, backwards: bool [steps, 2 C]; the last row
    also holds for all steps that would follow."""
    allowed_CC = (transitions.between_CC > -torch.inf).float()
    allowed = torch.block_diag(allowed_CC, allowed_CC.t())
    found = [torch.cat([transitions.start_C, transitions.end_C]) > -torch.inf]
    while len(found) < num_steps:
        following = found[-1].float() @ allowed > 0
        if torch.equal(following, found[-1]):
            break
        found.append(following)
    return torch.stack(found)


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        emissions_MC: Tensor,
        between_CC: Tensor,
        start_C: Tensor,
        end_C: Tensor,
        layout: _Layout,
        messages: _Messages,
    ) -> Any:
        ctx.layout, ctx.messages = layout, messages
        ctx.dtypes = emissions_MC.dtype, between_CC.dtype
        return messages.log_partition_R.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> Any:
        layout, messages = ctx.layout, ctx.messages
        of_words_MC = messages.marginals() * grad_R[layout.row_M, None]
        of_pairs_CC = messages.pair_counts(layout, grad_R)
        to_words, to_pairs = ctx.dtypes
        return (
            of_words_MC.to(to_words),
            of_pairs_CC.to(to_pairs),
            of_words_MC[layout.first_N].sum(0).to(to_pairs),
            of_words_MC[layout.last_N].sum(0).to(to_pairs),
            None,
            None,
        )
