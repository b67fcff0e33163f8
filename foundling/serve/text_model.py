"""A model of any family and its tokenizer: what all of them answer."""

# Shapes: T = tokens, V = vocabulary.

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.evaluation.likelihood import log_likelihoods
from foundling.tokenizers.base import Tokenizer


class TextModel:
    """What `load` gives for a model that reads text; decoders and encoder-decoders also write it."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer of a model of {model.config.vocab_size} ids must have at most as many",
                got=tokenizer.vocab_size,
                do="use the tokenizer that the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(iter(self.model.parameters())).device

    @cached_property
    def objective(self) -> Any:
        """The family's own objective, which knows how its texts are scored."""
        kind = self.config.objectives[0]
        return load_part("objectives", kind).Config(kind=kind).build(self.tokenizer)

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Logits fp32 [T, V] at each of T ids, all of which are read, on the CPU, without gradients.

        The ids are taken as they are: special tokens such as [CLS] are the caller's.
        """
        tokens_T = torch.tensor([int(i) for i in ids])
        self._check(tokens_T.tolist())
        length = len(tokens_T)
        batch = Batch(
            tokens_T, torch.arange(length), torch.tensor([0, length], dtype=torch.int32), length, tokens_T,
            segments_N=torch.zeros_like(tokens_T),
        )  # fmt: skip
        with torch.inference_mode():
            logits: Tensor = self.model(batch.to(self.device)).logits()
            return logits.float().cpu()

    def _check(self, ids: Sequence[int]) -> None:
        if not ids or len(ids) > self.config.max_positions:
            raise UserError(f"there must be 1 to {self.config.max_positions} ids", got=len(ids))
        if bad := [i for i in ids if not 0 <= i < self.config.vocab_size]:
            raise UserError(f"ids must lie in 0 ... {self.config.vocab_size - 1}", got=bad[0])

    def log_likelihoods(self, texts: Sequence[str]) -> list[float]:
        """How likely each text is, nats: its log-probability, or the pseudo-log-likelihood of a model that reads both
        sides (see `foundling.evaluation.likelihood`)."""
        ids = [self.tokenizer.encode(text) for text in texts]
        found = log_likelihoods(self.model, self.text_scorer, ids, max_positions=self.config.max_positions)
        return [float(value) for value in found]

    @property
    def text_scorer(self) -> Any:
        """The objective, where it can say how likely a text is; UserError otherwise."""
        if not hasattr(self.objective, "text_batch"):
            raise UserError(f"a {self._family} model cannot say how likely a text is", do="use a decoder or an encoder")
        return self.objective

    def stream(self, text: str, *, max_tokens: int = 200, **settings: Any) -> Iterator[str]:
        raise UserError("MODEL must be a decoder that generates text", got=f"a {self._family} model, which reads it")

    def generate(self, text: str, *, max_tokens: int = 200, **settings: Any) -> str:
        """The continuation of a text, of families that write."""
        return "".join(self.stream(text, max_tokens=max_tokens, **settings))

    def best(self, texts: Sequence[str], *, max_tokens: int = 200, **settings: Any) -> list[list[tuple[str, float]]]:
        raise UserError("MODEL must be a decoder that generates text", got=f"a {self._family} model, which reads it")

    def bits_per_byte(self, text: str) -> float:
        """Bits the model needs for a byte of a text, of families that predict text in order."""
        raise UserError("bits per byte are of a model that predicts text in order", got=f"a {self._family} model")

    @property
    def _family(self) -> str:
        return type(self.config).__module__.rsplit(".", 1)[-1]
