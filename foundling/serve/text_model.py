"""A model of any family and its tokenizer: what all of them answer."""

# Shapes: T = tokens, V = vocabulary.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.evaluation.likelihood import log_likelihoods
from foundling.models.base import family_of
from foundling.tasks.base import RowFault, Task
from foundling.tokenizers.base import Tokenizer

_EXAMPLES_AT_ONCE = 512
"""Examples that are made rows together: enough that rows of like length meet."""


class TextModel:
    """What `load` gives for a model that reads text; decoders and encoder-decoders also write it."""

    def __init__(self, model: Any, tokenizer: Tokenizer, task: Task | None = None) -> None:
        """task: what the model was fine-tuned for."""
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer of a model of {model.config.vocab_size} ids must have at most as many",
                got=tokenizer.vocab_size,
                do="use the tokenizer that the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer
        self.task = task

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(iter(self.model.parameters())).device

    def predict(self, examples: Iterable[Any]) -> list[dict[str, Any]]:
        """A fine-tuned model's answer to each example, in their order.

        examples: mappings with the task's fields, as lines of its files; or texts, where the task reads one text.
        UserError: the model was not fine-tuned; the first example that makes no sense.
        """
        return list(self.answers(examples))

    def answers(self, examples: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The same one after the other, for any number of examples in bounded memory."""
        self.must_be_several(examples)
        yield from self.answers_to(self._example(number, one) for number, one in enumerate(examples))

    def answers_to(self, examples: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The same of what `task.config.example` made."""
        if self.task is None:
            raise UserError("MODEL must be fine-tuned for a task to answer examples", got=f"a {self._family} model")
        source = iter(examples)
        with self.task.adding_up_cuts():
            while some := list(islice(source, _EXAMPLES_AT_ONCE)):
                yield from self.task.answers(self.model, some)

    def _example(self, number: int, given: Any) -> Any:
        if self.task is None:
            raise UserError("MODEL must be fine-tuned for a task to answer examples", got=f"a {self._family} model")
        data = self.task.config.of_text(given) if isinstance(given, str) else given
        if not isinstance(data, Mapping):
            raise UserError(f"example {number} must be a mapping or a text", got=type(given).__name__)
        try:
            return self.task.config.example(data, known=False)
        except RowFault as fault:
            raise UserError(f"example {number}: {fault}") from fault

    @cached_property
    def objective(self) -> Any:
        """The family's own objective, which knows how its texts are scored."""
        if not self.config.objectives:
            raise UserError("a model with a task's head answers examples (predict), and scores no text")
        kind = self.config.objectives[0]
        return load_part("objectives", kind).Config(kind=kind).build(self.tokenizer)

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Logits fp32 [T, V] at each of T ids, all of which are read, on the CPU, without gradients.

        The ids are taken as they are: special tokens such as [CLS] are the caller's. Of an XLNet a place is answered
        by its query stream in the order of the text: what stands there, from the ids before it.
        """
        if not self.config.objectives:
            raise UserError("a model with a task's head answers examples (predict), and has no logits of tokens")
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
        self.must_be_several(texts)
        ids = [self.tokenizer.encode(text) for text in texts]
        found = log_likelihoods(self.model, self.text_scorer, ids, max_positions=self.config.max_positions)
        return [float(value) for value in found]

    @staticmethod
    def must_be_several(given: Any) -> None:
        """UserError: one text or example, which would be taken for as many as it has letters or fields."""
        if isinstance(given, str | Mapping):
            raise UserError("examples must be a list of them", got=type(given).__name__, do="put it in a list: [...]")

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
        return family_of(self.config) if self.config.objectives else f"fine-tuned {self.config.family}"
