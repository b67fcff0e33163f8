"""Tasks whose answer is a text: what translation and summarization have in common.

An encoder-decoder reads the source; a decoder reads it as a prompt, and as a prefix where it was trained so. The loss
reads the target alone.
"""

# Shapes: R = rows, T = tokens of a row, N = packed tokens, M = targets.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.decoding.beam import beam_search
from foundling.objectives.base import Losses, Scale
from foundling.objectives.seq2seq import Seq2Seq, end_id
from foundling.tasks.base import Facts, RowFault, Task, TaskConfig, answering
from foundling.tasks.fields import field_of
from foundling.tasks.overlap import tell_overlap
from foundling.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Example:
    source: str
    targets: tuple[str, ...] = ()
    """What is right; several where people wrote several. The first is trained on; none: unknown."""


@dataclass(frozen=True)
class PromptRow(Row):
    """A prompt and what follows it, for a decoder."""

    prompt_tokens: int = 0
    """How many first tokens are the prompt."""


class WritingConfig(TaskConfig):
    """What tasks that write are told."""

    prompt: str = "{source}\n=> "
    """decoders: what stands before the target; {source} is the source."""
    max_target: Annotated[Count, Field(ge=1)] = 128
    """Tokens of a target at most: longer ones are cut in training, and answers end there."""
    beams: Annotated[int, Field(ge=1)] = 4
    """Hypotheses of the beam search; 1: always the most likely token."""
    length_penalty: float = 1.0
    """Power of the length that a hypothesis' log-probability is divided by: above 0 in favour of long answers."""
    normalization: Literal["length", "gnmt"] = "gnmt"
    """What stands for the length: the tokens, or (5 + tokens) / 6 (Wu et al. 2016)."""
    num_answers: Annotated[int, Field(ge=1)] = 1
    """Answers to each example, the best first; more of them than `beams` are searched for with as many beams."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How tokens are weighed: label_smoothing, ...; None: cross entropy."""

    families: ClassVar[tuple[str, ...]] = ("seq2seq", "gpt")
    roles: ClassVar[tuple[str, str]] = ("source", "target")
    later: ClassVar[tuple[str, ...]] = (
        *TaskConfig.later, "max_target", "beams", "length_penalty", "normalization", "num_answers",
    )  # fmt: skip

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value.count("{source}") != 1:
            raise ValueError(f"prompt must hold {{source}} once; got {value!r}")
        return value

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        source_role, target_role = self.roles
        source = field_of(data, source_role, self.fields)
        if not isinstance(source, str) or not source.strip():
            raise RowFault(f"its {source_role} must be text with a character to read; got {source!r}")
        if not known:
            return Example(source)
        value = field_of(data, target_role, self.fields)
        targets = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
            raise RowFault(f"its {target_role} must be text, or a list of texts; got {value!r}")
        return Example(source, targets)

    def of_text(self, text: str) -> dict[str, Any]:
        return {self.fields.get(self.roles[0], self.roles[0]): text}

    def texts(self, example: Example) -> Sequence[str]:
        return (example.source, *example.targets[:1])

    def learn(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        tell_overlap({split: [(e.source, e.targets) for e in found] for split, found in examples.items()})
        return {}


class Writing(Task):
    config: WritingConfig

    def __init__(self, config: WritingConfig, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self.end_id = end_id(tokenizer)
        kind = "seq2seq" if self.family == "seq2seq" else "causal"
        self._objective: Any = load_part("objectives", kind).Config(kind=kind, loss=config.loss).build(tokenizer)

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        targets = self.tokenizer.encode_batch([e.targets[0] if e.targets else "" for e in examples])
        room = self.config.max_target - 1
        cut = [ids[:room] for ids in targets]
        what = f"targets have more than max_target = {room} tokens and an end: of them the beginnings are learnt"
        self.tell_cut(sum(len(ids) > room for ids in targets), len(targets), what)
        sources = self.sources(examples)
        make = self._pair if self.family == "seq2seq" else self._prompted
        return [make(number, *both) for number, both in enumerate(zip(sources, cut, strict=True))]

    def sources(self, examples: Sequence[Example]) -> list[list[int]]:
        """What the model reads before it writes, as ids."""
        if self.family == "seq2seq":
            room = self.max_length - 1
            return [[*ids.tolist(), self.end_id] for ids in self._cut_sources(examples, room)]
        before, after = self.config.prompt.split("{source}")
        first, last = self.tokenizer.encode(before), self.tokenizer.encode(after)
        room = self.max_length - self.config.max_target - len(first) - len(last)
        if room < 1:
            raise UserError(
                "task.max_length must leave room for a source beside task.max_target and the prompt's own tokens",
                got=f"{self.max_length} and {self.config.max_target}",
            )
        return [[*first, *ids.tolist(), *last] for ids in self._cut_sources(examples, room)]

    def _cut_sources(self, examples: Sequence[Example], room: int) -> list[np.ndarray]:
        found = self.tokenizer.encode_batch([e.source for e in examples])
        num_cut = sum(len(ids) > room for ids in found)
        self.tell_cut(num_cut, len(found), f"sources have more than {room} tokens: their ends are not read")
        return [ids[:room] for ids in found]

    def _pair(self, number: int, source: list[int], target: np.ndarray) -> Row:
        assert isinstance(self._objective, Seq2Seq)
        return self._objective.pair(number, source[:-1], target.tolist())

    def _prompted(self, number: int, source: list[int], target: np.ndarray) -> PromptRow:
        tokens = np.array([*source, *target.tolist(), self.end_id], dtype=np.int64)
        return PromptRow(number, 0, number, tokens, prompt_tokens=len(source))

    def collate(self, rows: Sequence[Row]) -> Batch:
        if self.family == "seq2seq":
            batch: Batch = self._objective.collate(rows)
            return batch
        prompts = [row.prompt_tokens for row in rows if isinstance(row, PromptRow)]
        return prompted_batch(rows, prompts, prefix=self.body.prefix)

    def loss(self, model: Any, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        found: Losses = self._objective.loss(model, batch, scale, compiled)
        return found

    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._objective.scores(model, batch)
        return found

    def answers(self, model: Any, examples: Sequence[Example]) -> list[dict[str, Any]]:
        config = self.config
        start = {"start_id": self._objective.start_id} if self.family == "seq2seq" else {}
        with answering(model):
            found = beam_search(
                model, self.sources(examples), max_tokens=config.max_target, stop_ids={self.end_id},
                beams=max(config.beams, config.num_answers), num_best=config.num_answers,
                length_penalty=config.length_penalty, normalization=config.normalization, **start,
            )  # fmt: skip
        answers = []
        for best in found:
            texts = [self.tokenizer.decode(one.tokens).strip() for one in best]
            answer: dict[str, Any] = {"text": texts[0], "score": round(best[0].score, 4)}
            if config.num_answers > 1:
                answer["answers"] = [
                    {"text": text, "score": round(one.score, 4)} for text, one in zip(texts, best, strict=True)
                ]
            answers.append(answer)
        return answers


def prompted_batch(rows: Sequence[Row], prompts: Sequence[int], *, prefix: bool) -> Batch:
    """Rows of a prompt and what follows to a batch whose targets are what follows, to the last token.

    prompts: how many first tokens of each row are its prompt, at least 1. prefix: the prompt's tokens see each other.
    """
    lengths = [len(row.tokens) - 1 for row in rows]
    bounds = np.cumsum([0, *lengths])
    places = [np.arange(p - 1, n) + start for p, n, start in zip(prompts, lengths, bounds[:-1], strict=True)]
    return Batch(
        tokens_N=torch.from_numpy(np.concatenate([row.tokens[:-1] for row in rows])),
        positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        bounds_R1=torch.from_numpy(bounds.astype(np.int32)),
        max_row_length=max(lengths),
        targets_M=torch.from_numpy(np.concatenate([row.tokens[p:] for row, p in zip(rows, prompts, strict=True)])),
        target_index_M=torch.from_numpy(np.concatenate(places)),
        samples_R=tuple(row.sample for row in rows),
        sources_R=tuple(row.source for row in rows),
        prefix_R=torch.tensor(prompts, dtype=torch.int32) if prefix else None,
    )
