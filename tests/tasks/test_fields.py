"""What the parts of an example are called: usual names, given ones, and what is said where there is none."""

from collections import Counter
from typing import Any

import pytest

from foundling.core.config import Strict, validate
from foundling.core.errors import UserError
from foundling.tasks.fields import NamedFields, field_of, has_field, is_usual, usual_names
from foundling.tasks.files import Data, RowFault


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"sentence": "a", "label": 1, "idx": 0}, {"text": "a", "label": 1, "id": 0}),  # GLUE
        ({"sentence1": "a", "sentence2": "b", "label": -1}, {"premise": "a", "hypothesis": "b", "label": -1}),
        ({"question1": "a", "question2": "b"}, {"premise": "a", "hypothesis": "b"}),  # QQP
        ({"question": "a", "sentence": "b"}, {"premise": "a", "hypothesis": "b"}),  # QNLI
        ({"text_a": "a", "text_b": "b"}, {"premise": "a", "hypothesis": "b"}),
        ({"gold_label": "x", "premise": "a", "hypothesis": "b"}, {"premise": "a", "hypothesis": "b", "label": "x"}),
        ({"tokens": ["a"], "ner_tags": [0], "pos_tags": [3]}, {"tokens": ["a"], "tags": [0]}),  # CoNLL 2003
        ({"words": ["a"], "labels": ["O"]}, {"tokens": ["a"], "tags": ["O"]}),
        ({"article": "a", "highlights": "b", "id": "i"}, {"document": "a", "summary": "b"}),  # CNN / DailyMail
        ({"dialogue": "a", "summary": "b", "summaries": ["b", "c"]}, {"document": "a", "summary": ["b", "c"]}),
        ({"document": "a", "summary": "b"}, {"document": "a", "summary": "b"}),  # XSum
        ({"instruction": "a", "input": "", "output": "c"}, {"instruction": "a", "input": "", "output": "c"}),  # Alpaca
        ({"prompt": "a", "completion": "b"}, {"instruction": "a", "output": "b"}),
        ({"conversations": [{"from": "human"}]}, {"messages": [{"from": "human"}]}),  # ShareGPT
        ({"Text": "a", "Gold Label": "b"}, {"text": "a", "label": "b"}),
        ({"文本": "a", "标签": "b"}, {"text": "a", "label": "b"}),
        ({"text": None, "content": "a"}, {"text": "a"}),
        ({"TEXT": "a", "content": "b"}, {"text": "b"}),  # a name as it is usual goes first
    ],
)
def test_usual_names_are_known(data: dict[str, Any], parts: dict[str, Any]) -> None:
    assert {role: field_of(data, role, {}) for role in parts} == parts
    assert all(has_field(data, role, {}) for role in parts)


def test_given_names_are_the_only_ones() -> None:
    data = {"text": "a", "body": "b", "translation": {"en": "c", "de": "d"}, "x.y": "e"}
    assert field_of(data, "text", {"text": "body"}) == "b"
    assert field_of(data, "source", {"source": "translation.en", "target": "translation.de"}) == "c"
    assert field_of(data, "text", {"text": "x.y"}) == "e"
    assert not has_field(data, "text", {"text": "Body"})
    with pytest.raises(RowFault, match=r"it has no 'words' \(it has text, body, translation.en, translation.de, x.y\)"):
        field_of(data, "text", {"text": "words"})


def test_languages_are_not_guessed_but_shown() -> None:
    data = {"translation": {"en": "c", "de": "d"}}
    for role in ("source", "target"):
        assert not has_field(data, role, {})
        with pytest.raises(
            RowFault, match=rf"\(it has translation.en, translation.de\); set task.fields={{{role}: NAME}}"
        ):
            field_of(data, role, {})


def test_a_part_that_is_missing_is_told_with_what_there_is() -> None:
    with pytest.raises(
        RowFault, match=r"it has no label or labels or class \(it has nothing\); set task.fields={label: NAME}"
    ):
        field_of({}, "label", {})
    with pytest.raises(RowFault, match=r"\(it has 0, 1, .*, 11 and 8 more\)"):
        field_of({str(n): n for n in range(20)}, "label", {})


def test_what_was_taken_is_counted_for_the_rows_of_a_file() -> None:
    chosen: Counter[tuple[str, str]] = Counter()
    for row in ({"text": "a"}, {"sentence": "a", "label": 1}, {"text": "b", "y": 2}):
        data = Data(row, chosen)
        field_of(data, "text", {})
        assert has_field(data, "label", {}) == ("label" in row)  # asking is no taking
    field_of(data, "label", {"label": "y"})
    assert chosen == {("text", "text"): 2, ("text", "sentence"): 1, ("label", "y"): 1}


def test_a_role_that_does_not_exist_is_named() -> None:
    class Config(Strict):
        fields: NamedFields
        """Names."""

    assert validate(Config, {"fields": {"text": "body"}}, "it").fields == {"text": "body"}
    with pytest.raises(UserError, match="'txt' is none; did you mean 'text'"):
        validate(Config, {"fields": {"txt": "body"}}, "it")


def test_each_role_is_called_by_its_own_name_too() -> None:
    own = "text label premise hypothesis tokens tags entities head tail question context answers source target document"
    roles = [*own.split(), "is_impossible", "messages", "instruction", "input", "output"]
    for role in roles:
        assert usual_names(role)[0] == role
        assert is_usual(role.upper())
    assert not is_usual("film")
