"""Conversations: a decoder learns what the assistant says, and answers the last message.

Only the assistant's words are learnt, found by the chat template (`tokenizers/chat.py`), which is the tokenizer's own
or a plain one. A conversation in which nothing would be learnt is a fault of its row.
"""

# Shapes: T = tokens of a row, N = packed tokens, M = tokens that are learnt.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.registry import load_part
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.decoding.beam import beam_search
from foundling.objectives.base import Losses, Scale
from foundling.tasks.base import TOKENS_AT_ONCE, Facts, Measured, RowFault, Task, TaskConfig, answering
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.overlap import tell_overlap
from foundling.tasks.rows import runs_by_length
from foundling.tokenizers.base import Tokenizer
from foundling.tokenizers.chat import ChatTemplate, Message, TemplateFault

_ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
}
"""What speakers are called in data sets (OpenAI's messages, ShareGPT's conversations), and what that means."""


@dataclass(frozen=True)
class Example:
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class ChatRow(Row):
    """A conversation as tokens."""

    learnt: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """Which tokens are the assistant's, bool [T]; never the first."""


class Config(TaskConfig):
    kind: str = "dialogue"
    """Name of the part."""
    system: str | None = None
    """A system message before conversations that have none."""
    max_answer: Annotated[Count, Field(ge=1)] = 256
    """Tokens of an answer at most."""
    beams: Annotated[int, Field(ge=1)] = 1
    """Hypotheses of the beam search; 1: always the most likely token."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How tokens are weighed: label_smoothing, focal, ...; None: cross entropy."""

    metric: ClassVar[str] = "perplexity"
    families: ClassVar[tuple[str, ...]] = ("gpt",)
    later: ClassVar[tuple[str, ...]] = (*TaskConfig.later, "max_answer", "beams")

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        if has_field(data, "messages", self.fields):
            found = [_message(one) for one in _listed(field_of(data, "messages", self.fields))]
            if "system" in data and isinstance(data["system"], str) and data["system"]:
                found.insert(0, {"role": "system", "content": data["system"]})
        elif has_field(data, "instruction", self.fields):
            found = _alpaca(data, str(field_of(data, "instruction", self.fields)))
        elif isinstance(data.get("text"), str):
            found = [{"role": "user", "content": data["text"]}]
        else:
            field_of(data, "messages", self.fields)  # tells what is missing
        if self.system is not None and (not found or found[0]["role"] != "system"):
            found.insert(0, {"role": "system", "content": self.system})
        if empty := [one["role"] for one in found if one["role"] == "user" and not one["content"].strip()]:
            raise RowFault(f"what the user says must have a character to read; got {len(empty)} empty messages")
        if known and not any(one["role"] == "assistant" and one["content"].strip() for one in found):
            raise RowFault("its conversation must have words of the assistant: nothing would be learnt of it")
        if not known and found and found[-1]["role"] == "assistant":
            found.pop()  # it is what is asked for
        if not found:
            raise RowFault("its conversation must have a message")
        return Example(tuple(found))

    def texts(self, example: Example) -> Sequence[str]:
        return [message["content"] for message in example.messages]

    def learn(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        tell_overlap(
            {
                split: [("\n".join(m["content"] for m in e.messages[:-1]), e.messages[-1]["content"]) for e in found]
                for split, found in examples.items()
            }
        )
        return {}

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Dialogue":
        return Dialogue(self, tokenizer, body, facts)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise RowFault(f"its messages must be a list with a message; got {value!r}"[:300])
    return value


def _message(one: Any) -> dict[str, str]:
    """{role, content} of OpenAI's form, {from, value} of ShareGPT's."""
    role = one.get("role", one.get("from")) if isinstance(one, Mapping) else None
    content = one.get("content", one.get("value")) if isinstance(one, Mapping) else None
    if role not in _ROLES or not isinstance(content, str):
        known = ", ".join(_ROLES)
        raise RowFault(f"its messages must have a role ({known}) and content; got {one!r}"[:400])
    return {"role": _ROLES[role], "content": content}


def _alpaca(data: Mapping[str, Any], instruction: str) -> list[dict[str, str]]:
    """instruction, input, output, and system and history where they are given."""
    more = data.get("input")
    found = []
    if data.get("system"):
        found.append({"role": "system", "content": str(data["system"])})
    for turn in data.get("history") or []:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise RowFault(f"its history must be a list of [said, answered]; got {turn!r}"[:300])
        found += [{"role": "user", "content": str(turn[0])}, {"role": "assistant", "content": str(turn[1])}]
    found.append({"role": "user", "content": f"{instruction}\n{more}" if more else instruction})
    if data.get("output"):
        found.append({"role": "assistant", "content": str(data["output"])})
    return found


class Dialogue(Task):
    config: Config

    def __init__(self, config: Config, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        if body.prefix:
            raise UserError(
                "task dialogue needs a base that reads in order, since in a conversation of turns nothing is a prefix",
                got="one that was pretrained with objective.prefix",
            )
        if tokenizer.eos_id is None:
            raise UserError("task dialogue needs a tokenizer with an eos token, which ends an answer", got="none")
        tokens = {f"{role}_token": token for role, token in tokenizer.special.by_role.items()}
        self.template = ChatTemplate(tokenizer.chat_template, {"bos_token": "", "eos_token": "", **tokens})
        tokenizer.chat_template = self.template.source  # the model's folder carries it
        self._objective: Any = (
            load_part("objectives", "causal").Config(kind="causal", loss=config.loss).build(tokenizer)
        )

        self.stop_ids = {tokenizer.eos_id} | self._end_marks()

    def _end_marks(self) -> set[int]:
        """Special tokens that end what the assistant says, besides eos: `<|im_end|>` of many templates."""
        try:
            ids, learnt, _ = self._tokens([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except UserError:  # a template that wants other conversations; theirs are told when they come
            return set()
        special = set(self.tokenizer.special_ids) - {self.tokenizer.unk_id}
        return {int(i) for i in ids[learnt] if int(i) in special}

    def rows(self, examples: Sequence[Example]) -> list[ChatRow]:
        found, num_cut = [], 0
        for number, example in enumerate(examples):
            tokens, learnt, is_whole = self._tokens(example.messages)
            num_cut += not is_whole
            found.append(ChatRow(number, 0, number, tokens, learnt=learnt))
        what = f"conversations have more than max_length = {self.max_length} tokens: their oldest turns are left out"
        self.tell_cut(num_cut, len(examples), what)
        found = self._that_teach(found)
        learnt_tokens, all_tokens = (sum(int(f(row)) for row in found) for f in (_num_learnt, lambda r: len(r.tokens)))
        share = 100 * learnt_tokens / all_tokens
        logger.info(
            "dialogue: %.0f %% of the tokens are learnt; the first conversation: %s", share, self.shown(found[0])
        )
        return found

    def _that_teach(self, rows: Sequence[ChatRow]) -> list[ChatRow]:
        """The rows in which something is learnt; the others are told. UserError: there is none."""
        found = [row for row in rows if _num_learnt(row)]
        if not found:
            raise UserError("conversations must have words of the assistant to learn", got="none", do="see --dry-run")
        if silent := [row.start for row in rows if not _num_learnt(row)]:
            logger.warning(
                "%d of %d conversations have no word of the assistant among their first %d tokens (max_length) and are "
                "left out: training examples %s",
                len(silent), len(rows), self.max_length, ", ".join(map(str, silent[:5])) + ", ..." * (len(silent) > 5),
            )  # fmt: skip
        return found

    def _tokens(self, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray, bool]:
        """Ids [T], which are learnt, and whether they are all; of a long conversation without its oldest turns, then
        without its end."""
        given = messages
        while True:
            with _taken_by_template():
                rendered = self.template.rendered(messages)
            ids, starts = self.tokenizer.encode_rendered(rendered.text)
            learnt = np.zeros(len(ids), dtype=bool)
            for first, end in rendered.said:
                learnt |= (starts >= first) & (starts < end)
            shorter = _without_oldest(messages)
            if len(ids) <= self.max_length or shorter is None:
                break
            messages = shorter
        learnt[:1] = False  # nothing comes before it
        is_whole = messages is given and len(ids) <= self.max_length
        return ids[: self.max_length], learnt[: self.max_length], is_whole

    def shown(self, row: ChatRow) -> str:
        """A row for people: what is learnt stands in [[ ]]."""
        edges = np.flatnonzero(np.diff(row.learnt.astype(np.int8))) + 1
        pieces = [
            (self.tokenizer.decode(ids, skip_special=False), bool(flags[0]))
            for ids, flags in zip(np.split(row.tokens, edges), np.split(row.learnt, edges), strict=True)
            if len(ids)
        ]
        return "".join(f"[[{text}]]" if flag else text for text, flag in pieces)[:600]

    def collate(self, rows: Sequence[Row]) -> Batch:
        found = [row for row in rows if isinstance(row, ChatRow)]
        lengths = [len(row.tokens) - 1 for row in found]
        bounds = np.cumsum([0, *lengths])
        places = [np.flatnonzero(row.learnt[1:]) + start for row, start in zip(found, bounds[:-1], strict=True)]
        return Batch(
            tokens_N=torch.from_numpy(np.concatenate([row.tokens[:-1] for row in found])),
            positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
            bounds_R1=torch.from_numpy(bounds.astype(np.int32)),
            max_row_length=max(lengths),
            targets_M=torch.from_numpy(np.concatenate([row.tokens[row.learnt] for row in found])),
            target_index_M=torch.from_numpy(np.concatenate(places)),
            samples_R=tuple(row.sample for row in found),
            sources_R=tuple(row.source for row in found),
        )

    def loss(self, model: Any, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        found: Losses = self._objective.loss(model, batch, scale, compiled)
        return found

    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._objective.scores(model, batch)
        return found

    def answers(self, model: Any, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The assistant's answer to what was said before its last message; and where that is known, how likely the
        assistant's words are: `nats` over `tokens`."""
        asked = [e.messages[:-1] if e.messages[-1]["role"] == "assistant" else e.messages for e in examples]
        prompts, are_whole = zip(*map(self._prompt, asked), strict=True) if asked else ((), ())
        what = (
            f"conversations leave no room for {self.config.max_answer} tokens of an answer: their beginning is not read"
        )
        self.tell_cut(len(asked) - sum(are_whole), len(asked), what)
        with answering(model):
            found = beam_search(
                model, prompts, max_tokens=self.config.max_answer, stop_ids=self.stop_ids,
                beams=self.config.beams,
            )  # fmt: skip
            answers: list[dict[str, Any]] = [{"text": self.tokenizer.decode(best[0].tokens).strip()} for best in found]
            self._score(model, examples, answers)
        return answers

    def _prompt(self, messages: Sequence[Message]) -> tuple[list[int], bool]:
        """Ids that ask for an answer and leave room for it, and whether they are all; of a long conversation without
        its oldest turns, then without its beginning."""
        positions = self.body.max_positions
        room = min(self.max_length - 1, max(positions // 2, positions + 1 - self.config.max_answer))
        given = messages
        while True:
            with _taken_by_template():
                ids, _ = self.tokenizer.encode_rendered(self.template.text(messages, asks=True))
            shorter = _without_oldest(messages)
            if len(ids) <= room or shorter is None:
                return ids[-room:].tolist(), messages is given and len(ids) <= room
            messages = shorter

    def _score(self, model: Any, examples: Sequence[Example], answers: list[dict[str, Any]]) -> None:
        known = [number for number, e in enumerate(examples) if e.messages[-1]["role"] == "assistant"]
        made = [self._tokens(examples[number].messages) for number in known]
        rows = [ChatRow(n, 0, n, ids, learnt=learnt) for n, (ids, learnt, _) in zip(known, made, strict=True)]
        silent = sum(not _num_learnt(row) for row in rows)
        what = f"conversations have no word of the assistant among their first {self.max_length} tokens: not measured"
        self.tell_cut(silent, len(rows), what)
        rows = [row for row in rows if _num_learnt(row)]
        device = next(iter(model.parameters())).device
        for run in runs_by_length(rows, TOKENS_AT_ONCE):
            losses_M = self.scores(model, self.collate([rows[i] for i in run]).to(device))["loss"].double().cpu()
            parts = losses_M.split([_num_learnt(rows[i]) for i in run])
            for i, part in zip(run, parts, strict=True):
                answers[rows[i].sample] |= {"nats": round(part.sum().item(), 4), "tokens": len(part)}

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        told = [(e, a) for e, a in zip(examples, answers, strict=True) if "nats" in a]
        golds = [[e.messages[-1]["content"]] for e, _ in told]
        return [
            Measured("likelihood", [a["tokens"] for _, a in told], [a["nats"] for _, a in told], {}),
            Measured("chrf", golds, [a["text"] for _, a in told], {}),
            Measured("rouge", golds, [a["text"] for _, a in told], {}),
        ]


@contextmanager
def _taken_by_template() -> Iterator[None]:
    """A conversation that the chat template refuses is a fault of the user's."""
    try:
        yield
    except TemplateFault as fault:
        raise UserError("the chat template must take every conversation", got=str(fault)) from fault


def _num_learnt(row: ChatRow) -> int:
    return int(row.learnt.sum())


def _without_oldest(messages: Sequence[Message]) -> Sequence[Message] | None:
    """The conversation without its oldest turn (a system message stays); None where one turn is left."""
    kept = 1 if messages and messages[0]["role"] == "system" else 0
    turns = [i for i, message in enumerate(messages) if i >= kept and message["role"] == "user"]
    return [*messages[:kept], *messages[turns[1] :]] if len(turns) > 1 else None
