"""Scripts, words and thresholds by script."""

from typing import Annotated

import pytest

from foundling.core.config import Strict, resolved, validate
from foundling.core.errors import UserError
from foundling.corpus.scripts import ByScript, Script, script_of, within, words_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("It was a bright cold day in April.", "latin"),
        ("Es war ein schöner Tag für Übungen – ça va?", "latin"),
        ("白日依山盡,黃河入海流。", "cjk"),
        ("我们用 PyTorch 训练一个模型", "cjk"),
        ("我们训练模型 Transformer model", "cjk"),
        ("これはペンです。", "cjk"),
        ("ภาษาไทยไม่มีช่องว่าง", "cjk"),
        ("Все счастливые семьи похожи друг на друга", "other"),
        ("모든 국민은 법 앞에 평등하다", "other"),
        ("हिन्दी में लिखा हुआ", "other"),
        ("اللغة العربية", "other"),
        ("The character 道 means way.", "latin"),
        ("1234 – 5678", "latin"),
        ("“Yes,” he said – “naïve” as ever.", "latin"),
        ("", "latin"),
    ],
)
def test_script_of(text: str, script: Script) -> None:
    assert script_of(text) == script
    assert script_of(text * 400) == script  # longer than the sample


def test_script_of_looks_at_start_middle_and_end() -> None:
    assert script_of("Title: " + "字" * 30_000 + " The end.") == "cjk"
    assert script_of("標題" + "word " * 30_000 + "字") == "latin"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop: the well-known 3rd one -- 'now'!", ["Don't", "stop", "the", "well-known", "3rd", "one", "now"]),
        ("Der Käse, l’été", ["Der", "Käse", "l’été"]),
        ("我用GPU。好!", ["我", "用", "GPU", "好"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("کتاب\u200cها", ["کتاب\u200cها"]),
        ("น้ำ", ["น้", "ำ"]),
        ("한국어 문장", ["한국어", "문장"]),
        (" … ", []),
    ],
)
def test_words_of(text: str, words: list[str]) -> None:
    assert words_of(text) == words


class _Config(Strict):
    share: Annotated[ByScript, within(0, 1)] = ByScript(latin=0.5, cjk=0.25, other=None)


def test_by_script_takes_one_number_for_all() -> None:
    one = validate(_Config, {"share": 0.3}, "step").share
    assert one == ByScript(latin=0.3, cjk=0.3, other=0.3)
    assert validate(_Config, {"share": {"latin": 1, "cjk": 0, "other": None}}, "step").share.of("other") is None
    assert _Config().share.of("cjk") == 0.25


def test_by_script_survives_saving() -> None:
    config = _Config(share=ByScript(latin=1, cjk=0.5, other=None))
    assert resolved(config) == {"share": {"latin": 1, "cjk": 0.5, "other": None}}
    assert validate(_Config, resolved(config), "step") == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1.5, "latin must be between 0 and 1; got 1.5"),
        ("many", "expected a number, or a mapping with the keys latin, cjk, other"),
        (True, "expected a number"),
        ({"latin": 0.1, "cjk": 0.2, "othr": 0.3}, "did you mean 'other'"),
    ],
)
def test_by_script_refuses(given: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(_Config, {"share": given}, "step")


@pytest.mark.parametrize("text", ["北京的天气", "Grüße aus l’été, x-y 3", "한국어 Текст 𠀋字", "ไทย ภาษา"])
@pytest.mark.parametrize("marked", ["नमस्ते", "e\u0301", "𑀓𑀸"])
def test_a_mark_elsewhere_changes_no_word(text: str, marked: str) -> None:
    assert words_of(f"{text} {marked}") == words_of(text) + words_of(marked)
