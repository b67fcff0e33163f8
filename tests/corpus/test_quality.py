"""Each rule of quality and repetition takes what it names, and real kinds of good text pass them all."""

import gzip
import json
import random
from pathlib import Path

import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import quality, repetition
from tests.tiny import CHINESE, ENGLISH

SHARED = Path(__file__).parents[3] / "shared" / "data" / "corpora"
RNG = random.Random(0)
HAN = "".join(chr(0x4E00 + 37 * i) for i in range(80))  # all different


def prose(num_words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(ENGLISH, k=num_words)) + "."


def made(text: str) -> Document:
    return Document(id="a", text=text, source="s", domain="d")


def judged(text: str, **settings: object) -> str | None:
    answer = validate(quality.Config, {"kind": "quality", **settings}, "step").build().apply(made(text))
    assert not isinstance(answer, Drop) or answer.detail
    return answer.reason if isinstance(answer, Drop) else None


def repeats(text: str, **settings: object) -> str | None:
    answer = validate(repetition.Config, {"kind": "repetition", **settings}, "step").build().apply(made(text))
    assert not isinstance(answer, Drop) or answer.detail
    return answer.reason if isinstance(answer, Drop) else None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "too_few_words"),
        ("To be continued", "too_few_words"),
        ("未完待续", "too_few_words"),
        ("Продолжение следует", "too_few_words"),
        ("\n".join(f"see https://www.example.org/a/long/path/to/page-{i}.html" for i in range(9)), "links"),
        ("\n".join(f"{i}.5 {i * 7} {i * 31} kg" for i in range(100, 140)), "few_letters"),
        ("one 1 2 3 two 4 5 6 three 7 8 9 four 1 2 " * 4, "few_words_with_letters"),
        ("t h i s i s b r o k e n t e x t f r o m a s c a n", "short_words"),
        (" ".join("QmFzZTY0IGVuY29kZWQgZGF0YQ" + str(i) for i in range(20)), "long_words"),
        ("#love #sun #beach with #friends and #family " * 5, "symbols"),
        ("\n".join(f"- the offer number {ENGLISH[i]} of today" for i in range(12)), "bullets"),
        ("\n".join(f"• the offer number {ENGLISH[i]} of today" for i in range(12)), "bullets"),
        ("\n".join(f"The story of the {ENGLISH[i]} goes on and..." for i in range(12)), "ellipses"),
        ("\n".join(ENGLISH[:20]), "menu"),
        ("\n".join(["新闻", "体育", "财经", "娱乐", "科技", "汽车", "房产", "教育", "旅游", "健康"]), "menu"),
        ("Welcome. Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.", "lorem_ipsum"),
        ("\n".join("Dear {{ name }}, thank you for your order of today" for _ in range(5)), "template"),
    ],
)
def test_what_goes(text: str, reason: str) -> None:
    assert judged(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        prose(12),
        "def add(a: int, b: int) -> int:\n    return {'a': a, 'b': b}  # [not] a template: ${}\n\n\nprint(add(1, 2))\n",
        "秋川雄帝宅，函谷壮皇居。\n绮殿千寻起，离宫百雉余。",
        "Wanderers Nachtlied\n\nÜber allen Gipfeln\nIst Ruh,\nIn allen Wipfeln\nSpürest du\nKaum einen Hauch;",
        "The phrase lorem ipsum has filled pages since the sixties, " + prose(80),
        "Tôi đi chợ để mua rau và cá về nấu cơm cho cả nhà ăn tối nay",
        "나는 어제 친구와 함께 바다에 가서 아주 오래 걸었다",
        "\n".join(f"- {prose(9, i)}" for i in range(6)) + "\n" + prose(30),
        "\n".join(f"– {prose(9, i)}" for i in range(6)),
        "— Где ты был?\n— В лесу, у реки!\n— И что ты там делал?..\n— Ничего. «Спал под деревом.»",
        "".join(f"表单{HAN[7 * i : 7 * i + 7]}。" for i in range(11)),
    ],
)
def test_what_stays(text: str) -> None:
    assert judged(text) is None
    assert repeats(text) is None


def test_thresholds_by_script_and_for_all() -> None:
    chinese = "".join(random.Random(1).choices(CHINESE, k=40))
    assert judged(prose(30), min_words={"latin": 50, "cjk": 8, "other": 8}) == "too_few_words"
    assert judged(chinese, min_words={"latin": 50, "cjk": 8, "other": 8}) is None
    assert judged(chinese, min_words=50) == "too_few_words"
    assert judged(prose(30), max_words=20) == "too_many_words"
    assert judged("", min_words=None) is None
    with pytest.raises(UserError, match="between 0 and 1"):
        judged("", max_links=2)


LINE = "Nothing is known of what became of him after."
OTHERS = [prose(9, i) for i in range(40)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join([*OTHERS[:3], *[LINE] * 9]), "looping_lines"),
        ("\n".join([OTHERS[0], OTHERS[1], OTHERS[2]] * 6), "looping_lines"),
        ("\n".join(["花开花落"] * 12), "looping_lines"),
        (
            "\n".join(line for other in OTHERS[:12] for line in (LINE, LINE.upper(), LINE.lower(), other)),
            "repeated_lines",
        ),
        (
            " ".join(word for i in range(40) for word in ("buy shoes", ENGLISH[i % 30], ENGLISH[(7 * i) % 29])),
            "top_ngram",
        ),
        (f"{prose(20)} " + f"{LINE} {OTHERS[1]} {OTHERS[2]} {OTHERS[3]} " * 6, "repeated_ngrams"),
        ("".join(f"表单字段{HAN[7 * i : 7 * i + 7]}。" for i in range(11)), "top_ngram"),
        ("".join(CHINESE[:30] + CHINESE[i] for i in range(6)), "repeated_ngrams"),
    ],
)
def test_what_repeats(text: str, reason: str) -> None:
    assert repeats(text) == reason


def test_songs_and_code_stay() -> None:
    chorus = OTHERS[30:34]
    song = "\n\n".join("\n".join(OTHERS[4 * i : 4 * i + 4] + chorus) for i in range(4))
    assert repeats(song) is None
    ballad = "\n".join(
        line for i in range(0, 20, 2) for line in (OTHERS[i], LINE, OTHERS[i + 1], "And the wind blew free.")
    )
    assert repeats(ballad) is None
    for module in (repetition, quality, random, json, gzip):
        code = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert repeats(code) is None
        assert judged(code) is None
    assert repeats("\n".join([*OTHERS[:5], "Hurrah!", "Hurrah!", "Hurrah!"])) is None


def test_texts_twice_stay_and_thrice_go() -> None:
    text = prose(300)
    assert repeats(f"{text} {text}") is None
    assert repeats(f"{text} {text} {text}") == "repeated_ngrams"


@pytest.mark.parametrize("name", ["news", "medicine", "politics", "zh-poetry"])
def test_real_text_survives(name: str) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    steps = [part.Config(kind="x").build() for part in (quality, repetition)]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(3000), strict=False)]
    lost = [text for text in texts if any(isinstance(step.apply(made(text)), Drop) for step in steps)]
    assert len(lost) <= 0.001 * len(texts)
