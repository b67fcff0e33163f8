"""Reading prompts before the first new token: the same for a decoder and for an encoder with its decoder."""

# Shapes: B = prompts, T = tokens of a prompt, V = vocabulary.

from collections.abc import Sequence

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.models.gpt import Cache, Gpt, last_logits
from foundling.models.seq2seq import Seq2Seq, Sources

_PIECE_TOKENS = 512
"""A prompt is read in pieces of so many tokens: the mask of a piece is then small, however long the prompt."""


def check_ids(model: Gpt | Seq2Seq, ids: Sequence[int]) -> None:
    """Ids must be some, and the model must have them."""
    if not ids:
        raise UserError("a prompt must have at least one token", got="none")
    wrong = next((i for i in ids if not 0 <= i < model.config.vocab_size), None)
    if wrong is not None:
        raise UserError(f"ids must lie in 0 ... {model.config.vocab_size - 1}", got=wrong)


def room_for(model: Gpt | Seq2Seq, prompt_ids: Sequence[int], max_tokens: int) -> int:
    """How many tokens can follow a prompt, at most `max_tokens`; lowering is logged, no room is a UserError.

    Positions beyond `max_positions` do not exist for gpt2 and were never trained for the others, so none goes there.
    The last token needs no position: nothing is read after it. An encoder-decoder has positions for each side.
    """
    longest = model.config.max_positions
    room = longest if isinstance(model, Seq2Seq) else longest - len(prompt_ids) + 1
    if room < 1 or len(prompt_ids) > longest:
        raise UserError(
            f"a prompt must have at most {longest} tokens, the positions of the model",
            got=len(prompt_ids),
            do="shorten the prompt",
        )
    if max_tokens > room:
        logger.info("max_tokens is lowered from %d to %d: the model has no more positions", max_tokens, room)
    return min(max_tokens, room)


@torch.inference_mode()
def read_prompts(
    model: Gpt | Seq2Seq, prompts: Sequence[Sequence[int]], max_tokens: int, start_id: int | None
) -> tuple[Tensor, Cache]:
    """Logits [B, V] of the first new token of each prompt, and a cache with room for `max_tokens` new ones.

    A decoder reads prompts of one length; one with a prefix (`config.prefix`) reads the whole prompt as that. An
    encoder-decoder reads prompts as sources, of any lengths, and `start_id` as the target's first token.
    """
    device = model.embedding.weight.device
    if isinstance(model, Seq2Seq):
        assert start_id is not None, "an encoder-decoder's target begins with a start token"
        cache = model.start_cache(Sources.pack(prompts, device), max_tokens)
        first_B1 = torch.full((len(prompts), 1), start_id, device=device)
        return last_logits(model.forward_cached(first_B1, cache), len(prompts)), cache
    prompts_BT = torch.tensor([list(ids) for ids in prompts], device=device)
    own = Cache(len(prompts), prompts_BT.shape[1] + max_tokens - 1)
    logits_BV = None
    size = prompts_BT.shape[1] if model.config.prefix else _PIECE_TOKENS
    for piece in prompts_BT.split(size, dim=1):
        logits_BV = last_logits(model.forward_cached(piece, own, prefix=model.config.prefix), len(prompts))
    assert logits_BV is not None
    return logits_BV, own


@torch.inference_mode()
def read_next(model: Gpt | Seq2Seq, tokens_B: Tensor, cache: Cache) -> Tensor:
    """Logits [B, V] after one more token of each row, int64 [B]."""
    tokens_B1 = tokens_B[:, None].to(model.embedding.weight.device)
    hidden = model.forward_cached(tokens_B1, cache)  # type: ignore[arg-type]
    return last_logits(hidden, cache.num_rows)


def finite(logits_BV: Tensor) -> Tensor:
    """The logits in fp32 on the CPU. NaN and +inf would be drawn from without a word."""
    logits_BV = logits_BV.float().cpu()
    if not torch.isfinite(logits_BV).all():
        raise UserError("the model's logits must be finite", got="NaN or infinity", do="the weights are damaged")
    return logits_BV
