"""Token by token from a prompt, with a cache of keys and values."""

# Shapes: B = samples, T = tokens of the prompt, S = tokens read so far, V = vocabulary.

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.models.gpt import Cache, Gpt, last_logits
from foundling.serve.sampling import Sampling, draw, filtered

Step = tuple[int | None, ...]
"""The next token of each sample; None for a sample that has ended."""

_PIECE_TOKENS = 512
"""A prompt is read in pieces of so many tokens: the mask of a piece is then small, however long the prompt."""


def generate(
    model: Gpt,
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
) -> Iterator[Step]:
    """Yields a step as soon as it is drawn: one token for each of `num_samples` continuations of one prompt.

    prompt_ids: at least one id (a text's beginning is the id that documents begin with: see
    `LanguageModel.prompt_ids`). max_tokens: length of a continuation. It is lowered, and that is logged, where the
    prompt and it need more positions than the model has; positions beyond `max_positions` do not exist for gpt2 and
    were never trained for modern, so neither goes there. The last token needs no position: nothing is read after it.
    seed: of a generator of its own, on the CPU, so draws do not depend on the device; None: a new seed each time.
    stop_ids: a sample ends where it draws one of these; the id itself is not yielded. The rest: see `Sampling`.
    UserError, before anything is computed: an empty or too long prompt, ids the model does not have, impossible
    settings; and where the model's logits are NaN.
    """
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    sampling: Sampling = validate(Sampling, {**settings, "repetition_penalty": repetition_penalty}, "generate")
    if max_tokens < 1 or num_samples < 1:
        raise UserError("max_tokens and num_samples must be at least 1", got=f"{max_tokens} and {num_samples}")
    check_ids(model, prompt_ids)
    room = model.config.max_positions - len(prompt_ids) + 1
    if room < 1:
        raise UserError(
            f"a prompt must have at most {model.config.max_positions} tokens, the positions of the model",
            got=len(prompt_ids),
            do="shorten the prompt",
        )
    if max_tokens > room:
        logger.info("max_tokens is lowered from %d to %d: the model has no more positions", max_tokens, room)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    prompt_1T = torch.tensor([list(prompt_ids)])
    # A function of its own, so that faults are told here and not at the first step.
    return _steps(model, prompt_1T, min(max_tokens, room), sampling, generator, frozenset(stop_ids), num_samples)


def check_ids(model: Gpt, ids: Sequence[int]) -> None:
    """Ids must be some, and the model must have them."""
    if not ids:
        raise UserError("a prompt must have at least one token", got="none")
    wrong = next((i for i in ids if not 0 <= i < model.config.vocab_size), None)
    if wrong is not None:
        raise UserError(f"ids must lie in 0 ... {model.config.vocab_size - 1}", got=wrong)


def _steps(
    model: Gpt,
    prompt_1T: Tensor,
    max_tokens: int,
    sampling: Sampling,
    generator: torch.Generator,
    stop_ids: frozenset[int],
    num_samples: int,
) -> Iterator[Step]:
    device = model.embedding.weight.device
    capacity = prompt_1T.shape[1] + max_tokens - 1
    logits_BV, cache = _read_prompt(model, prompt_1T.to(device), capacity, num_samples)
    read_BS = prompt_1T.repeat(num_samples, 1)
    ended = torch.zeros(num_samples, dtype=torch.bool)
    for left in range(max_tokens, 0, -1):
        drawn_B = draw(filtered(_finite(logits_BV), read_BS, sampling), sampling, generator)
        ended |= torch.tensor([i in stop_ids for i in drawn_B.tolist()])
        if ended.all():
            return
        yield tuple(None if end else i for i, end in zip(drawn_B.tolist(), ended.tolist(), strict=True))
        read_BS = torch.cat([read_BS, drawn_B[:, None]], dim=1)
        if left > 1:
            with torch.inference_mode():
                logits_BV = last_logits(model.forward_cached(drawn_B[:, None].to(device), cache), num_samples)


@torch.inference_mode()
def _read_prompt(model: Gpt, prompt_1T: Tensor, capacity: int, num_samples: int) -> tuple[Tensor, Cache]:
    """Logits [B, V] after the prompt, which is read once, and a cache that has it in each of the B rows."""
    cache = Cache(1, capacity)
    logits_1V = None
    for piece in prompt_1T.split(_PIECE_TOKENS, dim=1):
        logits_1V = last_logits(model.forward_cached(piece, cache), 1)
    assert logits_1V is not None
    if num_samples > 1:
        keys, values = (
            {i: x.repeat_interleave(num_samples, 0) for i, x in d.items()} for d in (cache.keys, cache.values)
        )
        cache = Cache(num_samples, capacity, cache.length, keys, values)
    return logits_1V.repeat(num_samples, 1), cache


def _finite(logits_BV: Tensor) -> Tensor:
    """The logits in fp32 on the CPU. NaN and +inf would be drawn from without a word."""
    logits_BV = logits_BV.float().cpu()
    if not torch.isfinite(logits_BV).all():
        raise UserError("the model's logits must be finite", got="NaN or infinity", do="the weights are damaged")
    return logits_BV
