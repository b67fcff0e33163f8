"""`load(MODEL)` of an encoder-decoder: a prompt is the source, and what it writes is the target."""

from collections.abc import Iterator, Sequence
from typing import Any

from foundling.core.errors import UserError
from foundling.decoding.beam import beam_search
from foundling.decoding.detokenize import StreamDecoder
from foundling.decoding.generate import generate
from foundling.models.seq2seq import Seq2Seq
from foundling.objectives.seq2seq import end_id, start_id
from foundling.serve.text_model import TextModel
from foundling.tasks.base import Task
from foundling.tokenizers.base import Tokenizer


class SourceModel(TextModel):
    """An encoder-decoder with its tokenizer; generates as a `LanguageModel` does."""

    def __init__(
        self,
        model: Seq2Seq,
        tokenizer: Tokenizer,
        *,
        stop_ids: frozenset[int] = frozenset(),
        task: Task | None = None,
    ) -> None:
        """stop_ids: ids that end a target besides the tokenizer's end token."""
        super().__init__(model, tokenizer, task)
        self.start_id, self.end_id = start_id(tokenizer), end_id(tokenizer)
        self.stop_ids = stop_ids | {self.end_id}

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a source: its own, then the end token. Special tokens written in the text are ordinary text."""
        return [*self.tokenizer.encode(text), self.end_id]

    def stream(self, text: str, *, max_tokens: int = 200, **settings: Any) -> Iterator[str]:
        """The target of a source in pieces, as they become whole characters; settings as for a decoder."""
        if unknown := sorted(settings.keys() & {"stop_ids", "num_samples", "start_id"}):
            raise UserError("a stream is one target that ends at the model's own stop ids", got=unknown)
        steps = generate(
            self.model, self.prompt_ids(text), max_tokens=max_tokens, stop_ids=self.stop_ids, start_id=self.start_id,
            **settings,
        )  # fmt: skip
        return self._pieces(step[0] for step in steps)

    def _pieces(self, tokens: Iterator[int | None]) -> Iterator[str]:
        decoder = StreamDecoder(self.tokenizer.decode)
        for token in tokens:
            assert token is not None, "a single sample ends with its stream"
            if piece := decoder.add(token):
                yield piece
        if piece := decoder.end():
            yield piece

    def generate(self, text: str, *, max_tokens: int = 200, **settings: Any) -> str:
        """The target of a source: the whole of `stream`."""
        return "".join(self.stream(text, max_tokens=max_tokens, **settings))

    def best(self, texts: Sequence[str], *, max_tokens: int = 200, **settings: Any) -> list[list[tuple[str, float]]]:
        """The best targets of each source with their scores, by beam search; settings: see `beam.Beam`."""
        self.must_be_several(texts)
        prompts = [self.prompt_ids(text) for text in texts]
        found = beam_search(
            self.model, prompts, max_tokens=max_tokens, stop_ids=self.stop_ids, start_id=self.start_id, **settings
        )
        return [[("".join(self._pieces(iter(one.tokens))), one.score) for one in best] for best in found]
