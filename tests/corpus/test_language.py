"""Languages: by script, by model, in mixed and short texts; the step that tags and keeps."""

import gzip
import json
from pathlib import Path

import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.document import Document, Drop
from foundling.corpus.identify import _model, _table, identify, known_languages
from foundling.corpus.steps import language

DATA = Path(__file__).parents[3] / "shared" / "data"


def made(text: str, **fields: object) -> Document:
    return Document(id="a", text=text, source="s", domain="d", **fields)  # type: ignore[arg-type]


SENTENCES = {
    "en": "The harbour lay quiet in the morning light.",
    "de": "Die Straße führt über die Brücke zum alten Rathaus.",
    "fr": "Le chat dort sur la chaise près de la fenêtre.",
    "es": "El perro corre por la calle detrás de los niños.",
    "it": "Il treno per la città parte domani mattina.",
    "nl": "De fiets staat achter het huis van mijn broer.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi.",
    "ru": "Все счастливые семьи похожи друг на друга.",
    "uk": "Усі люди народжуються вільними і рівними.",
    "bg": "Всички хора се раждат свободни и равни.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι.",
    "he": "כל בני האדם נולדו בני חורין",
    "ar": "يولد جميع الناس أحرارا ومتساوين في الكرامة",
    "fa": "تمام افراد بشر آزاد زاده می‌شوند",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में स्वतन्त्रता प्राप्त है",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระ",
    "ja": "すべての人間は、生まれながらにして自由である。",
    "ko": "모든 인간은 태어날 때부터 자유롭다.",
    "vi": "Tất cả mọi người sinh ra đều được tự do.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_identify(code: str) -> None:
    found = identify(SENTENCES[code])
    assert found.language == code
    assert 0.2 < found.probability <= 1
    assert identify(SENTENCES[code] * 200).language == code  # longer than the sample


@pytest.mark.parametrize(
    ("text", "code", "script"),
    [
        ("海上生明月，天涯共此時。", "zh", "Hant"),
        ("这家酒店的服务还可以", "zh", "Hans"),
        ("山水之人", "zh", None),
        ("我们用 PyTorch 和 CUDA 训练 Transformer 模型，效果很好", "zh", "Hans"),
        ("Click here to read the article 道德经 in full and subscribe to our newsletter", "en", None),
        ("The Russian word Москва is the name of the city", "en", None),
        ("東京は日本の首都", "ja", None),
        ("THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG", "en", None),
        ("The draft Import Risk", "en", None),  # the prior: there are few Albanian texts
        ("A competent modeller can", "en", None),
        ("see https://example.de/straße/über/die/brücke for the whole story of it", "en", None),
    ],
)
def test_mixed_and_short(text: str, code: str, script: str | None) -> None:
    found = identify(text)
    assert (found.language, found.script) == (code, script)


@pytest.mark.parametrize("text", ["", "1234 5678", "… !!! ???", "\ufffd\ufffd", "https://example.org/the/page"])
def test_no_letters_no_language(text: str) -> None:
    assert identify(text).language is None


def test_a_mixed_text_is_less_probable() -> None:
    assert identify("我们训练模型 and then we evaluate").probability < identify("我们训练模型，然后评估。").probability


def test_every_answer_of_the_model_is_known() -> None:
    table = _table()
    answers = {table["rename"].get(label, label) for label in _model().labels} - {None, *table["never"]}
    answers |= {entry["languages"][0] for entry in table["scripts"].values() if len(entry["languages"]) == 1}
    assert answers == set(known_languages())


def test_the_step_tags_and_drops_nothing() -> None:
    step = language.Config(kind="language").build()
    tagged = step.apply(made("海上生明月，天涯共此時。", meta={"kept": 1}))
    assert tagged == made("海上生明月，天涯共此時。", meta={"kept": 1, "script": "Hant"}, language="zh")
    assert step.apply(made("12:30")) == made("12:30")
    assert step.apply(made(SENTENCES["en"], language="xx")) == made(SENTENCES["en"], language="xx")
    over = language.Config(kind="language", overwrite=True).build()
    assert over.apply(made(SENTENCES["en"], language="xx")) == made(SENTENCES["en"], language="en")
    assert over.apply(made("12:30", language="xx")) == made("12:30")


def test_the_step_keeps_what_is_named() -> None:
    step = language.Config(kind="language", keep=["en", "zh-Hans"]).build()
    assert isinstance(step.apply(made(SENTENCES["en"])), Document)
    assert isinstance(step.apply(made(SENTENCES["zh"])), Document)
    answer = step.apply(made(SENTENCES["de"]))
    assert isinstance(answer, Drop)
    assert answer.reason == "other_language"
    assert answer.detail is not None
    assert answer.detail.startswith("de ")
    assert step.apply(made("海上生明月，天涯共此時。")) == Drop("other_language", "zh 1.00")
    assert step.apply(made("12:30")) == Drop("unsure_language", "no letters 0.00 < 0.2")
    assert step.apply(made("x", language="fr")) == Drop("other_language", "fr as it came")


@pytest.mark.parametrize(
    ("keep", "message"),
    [(["eng"], "got 'eng'"), (["zh-hant"], "did you mean 'zh-Hant'"), ([], "keep must name a language")],
)
def test_bad_settings(keep: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(language.Config, {"keep": keep}, "language")


@pytest.mark.skipif(not DATA.exists(), reason=f"needs {DATA}")
def test_real_snippets() -> None:
    """Five words, or eight characters: shares of right answers a little under what the benchmark measures."""

    def lines(path: str, key: str, code: str, least: float) -> None:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(DATA / path, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)[key] for line, _ in zip(file, range(200), strict=False)]
        pieces = [text[:8] if code == "zh" else " ".join(text.split()[:5]) for text in texts]
        assert sum(identify(piece).language == code for piece in pieces) >= least * len(pieces)

    lines("tasks/multi30k-en-de/test.jsonl", "source", "en", 0.97)
    lines("tasks/multi30k-en-de/test.jsonl", "target", "de", 0.97)
    lines("corpora/zh-poetry.jsonl.gz", "text", "zh", 1.0)
    lines("tasks/chnsenticorp-hotel/test.jsonl", "text", "zh", 0.97)
