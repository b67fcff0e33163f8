"""Answers to real examples as a model might give them: the golds, spoilt here and there, always in the same way.

The examples are those of ../shared/data/tasks, where they are; what others' programs say of these answers stands in
references.json, with a hash of the answers.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parents[4] / "shared" / "data" / "tasks"
TYPES = ("person", "location", "corporation", "group", "product", "creative-work")


def lines(name: str, number: int) -> list[dict[str, Any]]:
    """The first test examples of a task."""
    with (TASKS / name / "test.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(number), strict=False)]


def pick(chance: random.Random, values: Any) -> Any:
    return values[int(chance.random() * len(values))]


def entity_tags() -> tuple[list[list[str]], list[list[str]]]:
    """Tags of wnut17 with entities that are missing, of another type, longer, begun with I; and some of nothing."""
    chance = random.Random(1)
    golds = [row["tags"] for row in lines("wnut17", 500)]
    answers = []
    for tags in golds:
        said = list(tags)
        for place, tag in enumerate(tags):
            spoil = chance.random()
            if tag == "O":
                said[place] = f"B-{pick(chance, TYPES)}" if spoil < 0.01 else said[place]
            elif spoil < 0.1:
                said[place] = "O"
            elif spoil < 0.2:
                said[place] = f"{tag[0]}-{pick(chance, TYPES)}"
            elif spoil < 0.3:
                said[place] = f"I{tag[1:]}"
            elif spoil < 0.4 and place + 1 < len(tags):
                said[place + 1] = f"I{tag[1:]}"
        answers.append(said)
    return golds, answers


def short_answers(name: str) -> tuple[list[list[str]], list[str]]:
    """Answers of xquad-en or xquad-zh: whole, in other clothes, begun or ended elsewhere, somewhere else, none. Each
    fifth question has no gold."""
    chance = random.Random(2)
    golds: list[list[str]] = []
    answers: list[str] = []
    data = json.loads((TASKS / name / "test.json").read_text(encoding="utf-8"))["data"]
    for paragraph in [one for article in data for one in article["paragraphs"]]:
        context = paragraph["context"]
        for question in paragraph["qas"]:
            texts = [answer["text"] for answer in question["answers"]]
            start = question["answers"][0]["answer_start"]
            end = start + len(texts[0])
            spoil, far = chance.random(), int(chance.random() * 12)
            if spoil < 0.2:
                said = pick(chance, ("the {}", " {}.", "“{}”", "({})", "{} \n", "，{}")).format(texts[0].upper())
            elif spoil < 0.4:
                said = context[max(0, start - far) : end]
            elif spoil < 0.6:
                said = context[start : end + far]
            elif spoil < 0.7:
                said = context[start + far : end]
            elif spoil < 0.8:
                said = context[2 * start // 3 :][: len(texts[0])]
            else:
                said = "" if spoil < 0.9 else texts[0]
            golds.append([] if len(golds) % 5 == 4 else texts)
            answers.append(said)
    return golds, answers


def worn(text: str, chance: random.Random) -> str:
    """A text with words that are missing, that change places, and that come twice."""
    words: list[str] = []
    for word in text.split():
        spoil = chance.random()
        words += [] if spoil < 0.1 else [word, word] if spoil > 0.95 else [word]
        if spoil > 0.8 and len(words) > 1:
            words[-2:] = words[:-3:-1]
    return " ".join(words)


def translations() -> tuple[list[str], list[str]]:
    """Worn targets of multi30k-en-de."""
    chance = random.Random(3)
    golds = [row["target"] for row in lines("multi30k-en-de", 300)]
    return golds, [worn(text, chance) for text in golds]


def summaries() -> tuple[list[list[str]], list[str]]:
    """Worn summaries of dialogsum, each compared with all that people wrote of its dialogue."""
    chance = random.Random(4)
    golds = [row["summaries"] for row in lines("dialogsum", 120)]
    return golds, [worn(pick(chance, texts), chance) for texts in golds]


def hash_of(golds: Any, answers: Any) -> str:
    return hashlib.sha256(json.dumps([golds, answers], ensure_ascii=False).encode()).hexdigest()
