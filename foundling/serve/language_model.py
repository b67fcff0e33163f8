"""A decoder and its tokenizer as one thing that answers."""

# Shapes: T = tokens, V = vocabulary.

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.data.batch import rows_batch
from foundling.decoding.beam import beam_search
from foundling.decoding.begin import check_ids
from foundling.decoding.detokenize import StreamDecoder
from foundling.decoding.generate import generate
from foundling.evaluation.perplexity import document_end, perplexity
from foundling.models.gpt import Gpt
from foundling.serve.text_model import TextModel
from foundling.tasks.base import Task
from foundling.tokenizers.base import Tokenizer


class LanguageModel(TextModel):
    """A decoder with its tokenizer."""

    model: Gpt

    def __init__(
        self,
        model: Gpt,
        tokenizer: Tokenizer,
        *,
        stop_ids: frozenset[int] = frozenset(),
        task: Task | None = None,
    ) -> None:
        """stop_ids: ids that end a text besides the tokenizer's eos."""
        super().__init__(model, tokenizer, task)
        self.stop_ids = stop_ids if tokenizer.eos_id is None else stop_ids | {tokenizer.eos_id}

    @cached_property
    def _prefix(self) -> list[int]:
        """The bos token where the tokenizer itself puts one before every text, as Llama's does."""
        bos = self.tokenizer.bos_id
        return [bos] if bos is not None and bos in self.tokenizer.encode("", special=True) else []

    def prompt_ids(self, text: str) -> list[int]:
        """The ids that a prompt becomes: its own, after a bos where the tokenizer adds one to every text.

        An empty prompt is the beginning of a document: that bos, else the token between documents in training (eos,
        else sep), else bos. Special tokens written in the text are ordinary text.
        """
        ids = self._prefix + self.tokenizer.encode(text)
        if ids:
            return ids
        if self.tokenizer.eos_id is None and self.tokenizer.sep_id is None and self.tokenizer.bos_id is not None:
            return [self.tokenizer.bos_id]
        return [document_end(self.tokenizer)]

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Logits fp32 [T, V] after each of T ids, on the CPU, without gradients. At most `max_positions` ids."""
        listed = [int(i) for i in ids]
        check_ids(self.model, listed)
        if len(listed) > self.config.max_positions:
            raise UserError(f"there must be at most {self.config.max_positions} ids", got=len(listed))
        tokens_1T = torch.tensor([listed])
        with torch.inference_mode():
            return self.model(rows_batch(tokens_1T, tokens_1T).to(self.device)).logits().float().cpu()

    def stream(self, text: str, *, max_tokens: int = 200, **settings: Any) -> Iterator[str]:
        """The continuation of a text in pieces, as they become whole characters.

        settings: temperature, top_k, top_p, min_p, repetition_penalty, seed, as for `generate.generate`. It ends at a
        stop id or after max_tokens. Faults are told at once, not at the first piece.
        """
        if unknown := sorted(settings.keys() & {"stop_ids", "num_samples"}):
            raise UserError("a stream is one continuation that ends at the model's own stop ids", got=unknown)
        ids = self.prompt_ids(text)
        steps = generate(self.model, ids, max_tokens=max_tokens, stop_ids=self.stop_ids, **settings)
        return self._pieces(ids, (step[0] for step in steps))

    def _pieces(self, prompt_ids: list[int], tokens: Iterator[int | None]) -> Iterator[str]:
        decoder = StreamDecoder(self.tokenizer.decode, prompt_ids)
        for token in tokens:
            assert token is not None, "a single sample ends with its stream"
            if piece := decoder.add(token):
                yield piece
        if piece := decoder.end():
            yield piece

    def generate(self, text: str, *, max_tokens: int = 200, **settings: Any) -> str:
        """The continuation of a text, without the text itself: the whole of `stream`."""
        return "".join(self.stream(text, max_tokens=max_tokens, **settings))

    def best(self, texts: Sequence[str], *, max_tokens: int = 200, **settings: Any) -> list[list[tuple[str, float]]]:
        """The best continuations of each text with their scores, by beam search; settings: see `beam.Beam`."""
        self.must_be_several(texts)
        prompts = [self.prompt_ids(text) for text in texts]
        found = beam_search(self.model, prompts, max_tokens=max_tokens, stop_ids=self.stop_ids, **settings)
        return [
            [("".join(self._pieces(ids, iter(one.tokens))), one.score) for one in best]
            for ids, best in zip(prompts, found, strict=True)
        ]

    def bits_per_byte(self, text: str) -> float:
        """Bits the model needs for a byte of a text that stands as one document, its end included."""
        found = perplexity(self.model, self.tokenizer, [("", text)], row_length=self.config.max_positions, workers=0)
        return found.total.bits_per_byte
