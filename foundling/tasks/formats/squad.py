"""SQuAD's JSON (Rajpurkar et al. 2016, 2018): articles of paragraphs of questions; a question is a row."""

import json
from collections.abc import Iterator
from typing import Any

from foundling.core.errors import UserError
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = ()


class Config(FormatConfig):
    kind: str = "squad"
    """Name of the part."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        """Fields: id, title, context, question, answers {text, answer_start}, is_impossible."""
        try:
            articles = json.loads(self.text(stream))["data"]
            for article in articles:
                for paragraph in article["paragraphs"]:
                    for question in paragraph["qas"]:
                        yield _row(article, paragraph, question)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{stream.path.name} must be SQuAD's JSON: data, paragraphs, context, qas, question",
                got=f"{type(error).__name__}: {error}",
            ) from error


def _row(article: dict[str, Any], paragraph: dict[str, Any], question: dict[str, Any]) -> Row:
    answers = question.get("answers") or []
    data = {
        "id": question.get("id"),
        "title": article.get("title"),
        "context": paragraph["context"],
        "question": question["question"],
        "answers": {key: [answer[key] for answer in answers] for key in ("text", "answer_start")},
        "is_impossible": bool(question.get("is_impossible", False)),
    }
    return Row(f"question {question.get('id')}", data)


def looks_like(head: str) -> bool:
    return head.lstrip().startswith("{") and '"paragraphs"' in head
