"""SQuAD's JSON, 1.1 and 2.0 (Rajpurkar et al. 2016, 2018): articles of paragraphs of questions; a question is a row."""

import re
from collections.abc import Iterator
from typing import Any

from foundling.corpus.readers.base import TextConfig
from foundling.corpus.sniff import format_of
from foundling.corpus.streams import Stream
from foundling.tasks.formats._elements import elements
from foundling.tasks.formats.base import NO, SURE, Fault, Row

SUFFIXES: tuple[str, ...] = ()
_PARAGRAPHS, _QUESTIONS = re.compile(r'"paragraphs"\s*:\s*\['), re.compile(r'"qas"\s*:\s*\[')


class Config(TextConfig):
    """How the articles of one file are read."""

    def build(self) -> "Squad":
        return Squad(self.encoding)


class Squad:
    """Fields of a row: id, title, context, question, answers {text: [...], answer_start: [...]}, is_impossible.

    answers is None where the file has none, as those of a test set.
    """

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        for where, article in elements(stream, self.encoding):
            if isinstance(article, Fault):
                yield article
            else:
                yield from _questions(article, where.replace("element", "article"))


def _questions(article: dict[str, Any], where: str) -> Iterator[Row | Fault]:
    paragraphs = article.get("paragraphs")
    if not isinstance(paragraphs, list):
        yield Fault(where, "it has no list of paragraphs")
        return
    for number, paragraph in enumerate(paragraphs, 1):
        inside = f"{where}, paragraph {number}"
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list) or not isinstance(paragraph.get("context"), str):
            yield Fault(inside, "it has no context, or no list of questions (qas)")
            continue
        for place, question in enumerate(questions, 1):
            has_id = isinstance(question, dict) and isinstance(question.get("id"), str | int)
            named = f"question {question['id']}" if has_id else f"{inside}, question {place}"
            yield _row(named, question, paragraph["context"], article.get("title"))


def _row(where: str, question: Any, context: str, title: Any) -> Row | Fault:
    if not isinstance(question, dict) or not isinstance(question.get("question"), str):
        return Fault(where, "it has no question")
    given = question.get("answers")
    if given is not None and not (isinstance(given, list) and all(map(_is_answer, given))):
        return Fault(where, "its answers must be a list of {text, answer_start}, a text and a number")
    data = {
        "id": question.get("id"),
        "title": title,
        "context": context,
        "question": question["question"],
        "answers": None if given is None else {k: [one[k] for one in given] for k in ("text", "answer_start")},
        "is_impossible": bool(question.get("is_impossible", False)),
    }
    return Row(where, data)


def _is_answer(value: Any) -> bool:
    is_text = isinstance(value, dict) and isinstance(value.get("text"), str)
    return is_text and type(value.get("answer_start")) is int


def certainty(head: bytes, text: str) -> int:
    is_json = bool(text) and format_of(head, None, is_suffix=True) == "json"
    return SURE if is_json and _PARAGRAPHS.search(text) and _QUESTIONS.search(text) else NO
