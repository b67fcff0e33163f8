"""Beam search: the most probable continuations, as far as so many hypotheses side by side find them.

Scores, candidates and the rules for stopping are those of transformers' beam search, so the same settings give the
same texts; with `normalization="gnmt"` the length penalty is that of Wu et al. 2016 (arXiv:1609.08144, equation 14).
"""

# Shapes: B = prompts, W = beams (hypotheses of a prompt), C = candidates of a prompt, S = tokens so far,
# V = vocabulary.

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from foundling.core.config import Strict, validate
from foundling.core.errors import UserError
from foundling.decoding.begin import check_ids, finite, read_next, read_prompts, room_for
from foundling.models.gpt import Gpt
from foundling.models.seq2seq import Seq2Seq

_PROMPTS_AT_ONCE = 32
"""Prompts that are decoded side by side; memory grows with them, times the beams."""


class Beam(Strict):
    """How beams are searched."""

    beams: int = 4
    """Hypotheses of each prompt that are followed, at least 1. 1 is greedy: the most probable token each time."""
    num_best: int = 1
    """Continuations that come back, 1 ... beams."""
    length_penalty: float = 1.0
    """Power of the length that a log-probability is divided by: 0 none, above 0 in favour of long ones."""
    normalization: Literal["length", "gnmt"] = "length"
    """What stands for the length of n tokens, the stop token counted: n itself, or (5 + n) / 6."""
    early_stopping: bool | Literal["never"] = False
    """True: as soon as there are `beams` ended ones. "never": when no hypothesis can become better than the worst of
    them, whatever its length. False: the same, as if each ended at its present length, which is sooner."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1; got {self.beams}")
        if not 1 <= self.num_best <= self.beams:
            raise ValueError(f"num_best must lie in 1 ... beams ({self.beams}); got {self.num_best}")
        if not abs(self.length_penalty) <= 50:
            raise ValueError(f"length_penalty must lie in -50 ... 50; got {self.length_penalty}")
        return self

    def normalized(self, log_probability: float, num_tokens: int) -> float:
        """The score by which continuations of different length are compared."""
        length = float(num_tokens) if self.normalization == "length" else (5 + num_tokens) / 6
        return log_probability / length**self.length_penalty


@dataclass(frozen=True)
class Hypothesis:
    """A continuation."""

    tokens: tuple[int, ...]
    """Its ids, without the stop id."""
    score: float
    """By which it is compared: its log-probability by its length."""
    log_probability: float
    """In nats, the stop token's included."""
    ended: bool
    """Whether it ended with a stop token; otherwise it was cut off at max_tokens."""


def beam_search(
    model: Gpt | Seq2Seq,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    start_id: int | None = None,
    **settings: object,
) -> list[list[Hypothesis]]:
    """The `num_best` best continuations of each prompt, the best first.

    prompts, start_id: as for `generate`. max_tokens: longest continuation, its stop token counted; it is lowered where
    the model has fewer positions. stop_ids: ids that end one. settings: see `Beam`.
    UserError, before anything is computed: impossible settings, an empty or too long prompt, ids that the model lacks;
    and where logits are not finite.
    """
    beam: Beam = validate(Beam, settings, "beam search")
    if max_tokens < 1:
        raise UserError("max_tokens must be at least 1", got=max_tokens)
    groups: dict[tuple[int, int], list[int]] = {}
    for number, prompt in enumerate(prompts):
        check_ids(model, prompt)
        room = room_for(model, prompt, max_tokens)
        # a decoder's rows are of one length; an encoder-decoder's targets are, whatever their sources
        groups.setdefault((0 if isinstance(model, Seq2Seq) else len(prompt), room), []).append(number)
    found: dict[int, list[Hypothesis]] = {}
    for (_, room), group in groups.items():
        group.sort(key=lambda number: len(prompts[number]))  # sources of like length waste least
        for first in range(0, len(group), _PROMPTS_AT_ONCE):
            numbers = group[first : first + _PROMPTS_AT_ONCE]
            chosen = [prompts[number] for number in numbers]
            searches = _search(model, chosen, room, beam, frozenset(stop_ids), start_id)
            found |= {number: one.best for number, one in zip(numbers, searches, strict=True)}
    return [found[number][: beam.num_best] for number in range(len(prompts))]


@dataclass
class _Search:
    """What one prompt has so far."""

    beam: Beam
    best: list[Hypothesis] = field(default_factory=list)
    """The best of those that ended, at most `beams`."""

    def add(self, tokens: list[int], log_probability: float, ended: bool) -> None:
        # a stop token is counted in the length and not given
        score = self.beam.normalized(log_probability, len(tokens))
        given = tuple(tokens[:-1] if ended else tokens)
        self.best.append(Hypothesis(given, score, log_probability, ended))
        self.best.sort(key=lambda one: -one.score)
        del self.best[self.beam.beams :]

    def is_over(self, best_running: float, num_tokens: int, max_tokens: int) -> bool:
        """best_running: log-probability of the best hypothesis that goes on, -inf: there is none."""
        if num_tokens == max_tokens or best_running == -float("inf"):
            return True
        if len(self.best) < self.beam.beams:
            return False
        if self.beam.early_stopping is True or self.beam.beams == 1:
            return True
        longest = self.beam.early_stopping == "never" and self.beam.length_penalty > 0
        possible = self.beam.normalized(best_running, max_tokens if longest else num_tokens)
        return possible <= self.best[-1].score


def _search(
    model: Gpt | Seq2Seq,
    prompts: list[Sequence[int]],
    max_tokens: int,
    beam: Beam,
    stop_ids: frozenset[int],
    start_id: int | None,
) -> list[_Search]:
    width = beam.beams
    searches = [_Search(beam) for _ in prompts]
    logits_BV, cache = read_prompts(model, prompts, max_tokens, start_id)
    device = logits_BV.device
    cache.select(torch.arange(len(prompts), device=device).repeat_interleave(width))
    logits_WV = finite(logits_BV).repeat_interleave(width, 0)
    alive = list(range(len(prompts)))
    # all hypotheses of a prompt are the same at first: only one of them counts
    scores_BW = torch.tensor([0.0] + [-float("inf")] * (width - 1)).repeat(len(prompts), 1)
    tokens_BWS = torch.zeros(len(prompts), width, 0, dtype=torch.int64)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64)
    for num_tokens in range(1, max_tokens + 1):
        step = _candidates(logits_WV, scores_BW, tokens_BWS, stops, num_tokens == max_tokens)
        for row, number in enumerate(alive):
            for candidate in range(width):  # the others only stand in for those that ended
                log_probability = float(step.scores_BC[row, candidate])
                if step.ends_BC[row, candidate] and log_probability > -float("inf"):
                    tokens = step.tokens_BCS[row, candidate].tolist()
                    searches[number].add(tokens, log_probability, tokens[-1] in stop_ids)
        running = step.scores_BC.masked_fill(step.ends_BC, -float("inf"))
        scores_BW, chosen_BW = running.topk(width)
        tops = scores_BW[:, 0].tolist()
        kept = [
            row for row, number in enumerate(alive) if not searches[number].is_over(tops[row], num_tokens, max_tokens)
        ]
        if not kept:
            break
        alive = [alive[row] for row in kept]
        scores_BW, chosen_BW = scores_BW[kept], chosen_BW[kept]
        tokens_BWS = step.tokens_BCS[kept].gather(1, chosen_BW[:, :, None].expand(-1, -1, num_tokens))
        from_BW = step.from_BC[kept].gather(1, chosen_BW) + torch.tensor(kept)[:, None] * width
        cache.select(from_BW.flatten().to(device))
        logits_WV = finite(read_next(model, tokens_BWS[:, :, -1].flatten(), cache))
    return searches


@dataclass(frozen=True)
class _Candidates:
    """The best next hypotheses of each prompt, the best first: enough that W of them go on whatever ends."""

    scores_BC: Tensor
    tokens_BCS: Tensor
    from_BC: Tensor
    """Which of the W hypotheses each goes on from."""
    ends_BC: Tensor


def _candidates(logits_WV: Tensor, scores_BW: Tensor, tokens_BWS: Tensor, stops: Tensor, is_last: bool) -> _Candidates:
    num_prompts, width = scores_BW.shape
    log_BWV = logits_WV.log_softmax(-1).view(num_prompts, width, -1) + scores_BW[:, :, None]
    vocab_size = log_BWV.shape[-1]
    number = min(max(2, 1 + len(stops)) * width, width * vocab_size)
    scores_BC, index_BC = log_BWV.flatten(1).topk(number)
    from_BC, token_BC = index_BC // vocab_size, index_BC % vocab_size
    before = tokens_BWS.gather(1, from_BC[:, :, None].expand(-1, -1, tokens_BWS.shape[2]))
    ends_BC = torch.isin(token_BC, stops) | is_last
    return _Candidates(scores_BC, torch.cat([before, token_BC[:, :, None]], dim=2), from_BC, ends_BC)
