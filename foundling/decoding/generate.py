"""Token by token from a prompt, with a cache of keys and values."""

# Shapes: B = samples, S = tokens read so far, V = vocabulary.

from collections.abc import Collection, Iterator, Sequence

import torch

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.decoding.begin import check_ids, finite, read_next, read_prompts, room_for
from foundling.decoding.sampling import Sampling, draw, filtered
from foundling.models.gpt import Gpt
from foundling.models.seq2seq import Seq2Seq

Step = tuple[int | None, ...]
"""The next token of each sample; None for a sample that has ended."""


def generate(
    model: Gpt | Seq2Seq,
    prompt_ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    num_samples: int = 1,
    start_id: int | None = None,
) -> Iterator[Step]:
    """Yields a step as soon as it is drawn: one token for each of `num_samples` continuations of one prompt.

    prompt_ids: at least one id (a text's beginning is the id that documents begin with: see
    `LanguageModel.prompt_ids`); of an encoder-decoder the source, its end token included, and start_id is what its
    target begins with. max_tokens: length of a continuation, lowered where the model has fewer positions (`room_for`).
    seed: of a generator of its own, on the CPU, so draws do not depend on the device; None: a new seed each time.
    stop_ids: a sample ends where it draws one of these; the id itself is not yielded. The rest: see `Sampling`.
    UserError, before anything is computed: an empty or too long prompt, ids the model does not have, impossible
    settings; and where the model's logits are NaN.
    """
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    sampling: Sampling = validate(Sampling, {**settings, "repetition_penalty": repetition_penalty}, "generate")
    if max_tokens < 1 or num_samples < 1:
        raise UserError("max_tokens and num_samples must be at least 1", got=f"{max_tokens} and {num_samples}")
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise UserError("seed must be a whole number of 64 bits", got=seed)
    check_ids(model, prompt_ids)
    max_tokens = room_for(model, prompt_ids, max_tokens)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    # A function of its own, so that faults are told here and not at the first step.
    return _steps(model, list(prompt_ids), max_tokens, sampling, generator, frozenset(stop_ids), num_samples, start_id)


def _steps(
    model: Gpt | Seq2Seq,
    prompt_ids: list[int],
    max_tokens: int,
    sampling: Sampling,
    generator: torch.Generator,
    stop_ids: frozenset[int],
    num_samples: int,
    start_id: int | None,
) -> Iterator[Step]:
    logits_BV, cache = read_prompts(model, [prompt_ids], max_tokens, start_id)
    if num_samples > 1:  # the prompt is read once
        logits_BV = logits_BV.repeat(num_samples, 1)
        cache.select(torch.zeros(num_samples, dtype=torch.int64, device=logits_BV.device))
    written = prompt_ids if isinstance(model, Gpt) else [start_id]  # what a repetition repeats
    read_BS = torch.tensor([written]).repeat(num_samples, 1)
    ended = torch.zeros(num_samples, dtype=torch.bool)
    for left in range(max_tokens, 0, -1):
        drawn_B = draw(filtered(finite(logits_BV), read_BS, sampling), sampling, generator)
        ended |= torch.tensor([i in stop_ids for i in drawn_B.tolist()])
        if ended.all():
            return
        yield tuple(None if end else i for i, end in zip(drawn_B.tolist(), ended.tolist(), strict=True))
        read_BS = torch.cat([read_BS, drawn_B[:, None]], dim=1)
        if left > 1:
            logits_BV = read_next(model, drawn_B, cache)
