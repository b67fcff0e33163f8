"""Messages as the text that a chat model reads: Jinja templates, as model folders carry them (chat_template.jinja).

What the assistant says is found in the text by the template's own marks (`{% generation %}`), or where it has none by
rendering the messages one after another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from foundling.core.errors import UserError

Message = Mapping[str, str]
"""role: system, user, assistant or tool; content: text."""

_START, _END = "\ue0f0", "\ue0f1"
"""Characters for private use that stand around what the assistant says, and are taken out again."""


class TemplateFault(Exception):
    """What a template says against these messages."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: what is inside is the assistant's."""

    tags = {"generation"}  # noqa: RUF012 (what the base class says)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    @staticmethod
    def _marked(caller: Any) -> str:
        return f"{_START}{caller()}{_END}"


@dataclass(frozen=True)
class Rendered:
    """Messages as one text."""

    text: str
    said: tuple[tuple[int, int], ...]
    """Where the assistant's words stand, their end mark included: the first character, and the first behind them."""


class ChatTemplate:
    """A template of a tokenizer's folder, or our own plain one, which needs no special tokens but the end of a text."""

    def __init__(self, source: str | None, tokens: Mapping[str, str]) -> None:
        """source: Jinja; None: our own. tokens: special tokens by their name in templates (bos_token, eos_token)."""
        self.source = source if source is not None else own_template()
        self._tokens = dict(tokens)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        try:
            self._template = environment.from_string(self.source)
        except jinja2.TemplateError as error:
            raise UserError("a chat template must be Jinja", got=str(error)) from error

    def text(self, messages: Sequence[Message], *, asks: bool = False) -> str:
        """The messages as text. asks: with what makes the assistant speak at the end. TemplateFault: see there."""
        return self._with_marks(messages, asks).replace(_START, "").replace(_END, "")

    def _with_marks(self, messages: Sequence[Message], asks: bool) -> str:
        clean = [{k: v.replace(_START, "").replace(_END, "") for k, v in message.items()} for message in messages]
        try:
            return self._template.render(messages=clean, add_generation_prompt=asks, **self._tokens)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateFault(str(error)) from error

    def rendered(self, messages: Sequence[Message]) -> Rendered:
        """The messages with the places of what the assistant says. UserError: a template that has no marks and does
        not write messages one after another."""
        marked = self._with_marks(messages, asks=False)
        if _START in marked:
            return _unmarked(marked)
        whole, said = marked, []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, after = self.text(messages[:number], asks=True), self.text(messages[: number + 1])
            if not (after.startswith(before) and whole.startswith(after)):
                raise UserError(
                    "a chat template must mark what the assistant says, or write messages one after another",
                    got="one that writes earlier messages otherwise when later ones follow",
                    do="put {% generation %} ... {% endgeneration %} around the assistant's words in "
                    "chat_template.jinja",
                )
            said.append((len(before), len(after)))
        return Rendered(whole, tuple(said))


@cache
def own_template() -> str:
    """The template for tokenizers that bring none."""
    return files("foundling.tokenizers").joinpath("chat.jinja").read_text(encoding="utf-8")


def _unmarked(marked: str) -> Rendered:
    text, said = "", []
    for piece in marked.split(_START):
        inside, end, after = piece.partition(_END)
        if end:
            said.append((len(text), len(text) + len(inside)))
        text += inside + after
    return Rendered(text, tuple(said))


def _refuse(message: str) -> None:
    raise TemplateFault(message)
