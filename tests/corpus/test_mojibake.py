"""What the step `mojibake` mends, and the much larger lot that it leaves alone."""

import json
from pathlib import Path

import pytest

from foundling.corpus.document import Document
from foundling.corpus.legacy import from_legacy
from foundling.corpus.steps import mojibake

DIRTY = Path(__file__).parents[3] / "shared" / "data" / "corpora" / "dirty.jsonl"
STEP = mojibake.Config(kind="mojibake").build()


def cleaned(text: str) -> Document:
    answer = STEP.apply(Document(id="a", text=text, source="s", domain="d"))
    assert isinstance(answer, Document)
    return answer


GOOD = [
    "“It’s naïve,” she said – ‘and façade’ has a cedilla…",
    "Größe, Äpfel, Übung; ﬁne ligatures, ＦＵＬＬ width, £5, 20 °C, §3, «oui», ½",
    "À la carte, ça va? L’été à Ãndale: Â is a letter, and so is Ã.",
    "Все счастливые семьи похожи друг на друга — «так».",
    "Đây là tiếng Việt; Ångström; São Paulo; İstanbul; Łódź; Ελλάδα",
    "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。",
    "木客提蔬束，江烏接飯丸。",  # the bytes of its GBK hold pieces of UTF-8
    "我们用“引号”，还有《书名》、省略号……",
    "これは日本語の文章です。한국어 문장입니다.",
    "│ box │ drawing ├──┤ ░▒▓ █",
    "a lone \ufffd and an emoji 😀 &amp; an entity",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_text_stays(text: str) -> None:
    assert cleaned(text).text == text
    assert cleaned(text).found == {}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1251", "mac-roman"])
@pytest.mark.parametrize(
    "text",
    [
        "“It’s all talk,” said he — don’t you know?",
        "The façade of the naïve café cost £20…",
    ],
)
def test_utf8_read_as_single_bytes(text: str, encoding: str) -> None:
    # As browsers and editors do: bytes without a place in the encoding stand for themselves.
    broken = "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())
    assert cleaned(f"One line.\n{broken}\nAnother “line”.").text == f"One line.\n{text}\nAnother “line”."
    assert cleaned(broken).found == {"mojibake": 1}


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ("浣犲ソ锛屼笘鐣�", "你好，世\ufffd"),
        ("It鈥檚 a 鈥渢est鈥�", "It’s a “test\ufffd"),
        ("鈥淚 know 鈥攁nd left", "“I know —and left"),
    ],
)
def test_utf8_read_as_gbk(broken: str, text: str) -> None:
    assert cleaned(broken).text == text


@pytest.mark.parametrize(
    "text", ["白日依山盡，黃河入海流。", "我们在酒店住了两个晚上，服务很好。", "“Yes”—so he said."]
)
def test_utf8_read_as_gbk_comes_back_whole_where_no_byte_was_lost(text: str) -> None:
    raw = text.encode()
    broken = raw.decode("gb18030", "replace")
    if "\ufffd" not in broken:
        assert cleaned(broken).text == text
    # However the reading went: nothing good is made worse, and the second pass has nothing to do.
    once = cleaned(broken)
    assert cleaned(once.text).text == once.text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_german(encoding: str) -> None:
    assert cleaned("Größe, Übungen für Äpfel".encode().decode(encoding)).text == "Größe, Übungen für Äpfel"


def test_twice_mistaken() -> None:
    twice = "“café”".encode().decode("latin-1").encode().decode("latin-1")
    assert cleaned(twice).text == "“café”"


@pytest.mark.skipif(not DIRTY.exists(), reason=f"needs {DIRTY}")
def test_dirty_crawl() -> None:
    for line in DIRTY.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        assert cleaned(row["text"]).text == (row["clean"] if row["kind"] == "mojibake" else row["text"]), row["id"]


LEGACY = {
    "gbk": "显示每个文件所在的文件系统的信息，默认显示所有文件系统。",
    "cp1251": "Строки данного формата определяют порядок поиска в справочных разделах.",
    "koi8-r": "Строки данного формата определяют порядок поиска в справочных разделах.",
    "shift_jis": "このプログラムは、指定されたファイルの内容を表示する。日本語の文章も扱う。",
    "euc_kr": "이 프로그램은 지정한 파일의 내용을 화면에 보여 줍니다. 한국어 문장도 다룹니다.",
    "big5": "顯示每個檔案所在的檔案系統的資訊，預設顯示所有檔案系統。",
    "iso8859-7": "Το πρόγραμμα αυτό εμφανίζει τα περιεχόμενα των αρχείων στην οθόνη.",
}


@pytest.mark.parametrize("encoding", LEGACY)
def test_legacy_encodings_read_as_latin_1(encoding: str) -> None:
    text = LEGACY[encoding] + "\nA line in English.\n" + LEGACY[encoding] + " gzip -9"
    lines = text.encode(encoding).decode("latin-1")
    assert from_legacy(lines) == (text, 2)
    answer = STEP.apply(Document("a", lines, "s", "d"))
    assert isinstance(answer, Document)
    assert answer.text == text
    assert answer.found == {"mojibake": 2}


@pytest.mark.parametrize(
    "text",
    [
        "Où est-il allé, l’été dernier ? « Çà et là », répondit-elle… Noël – à Pâques",
        "Þórður sá æði öfund, ðað ááá ééé íí óóó",
        "¡¡¡Olé!!! ¿¿Qué?? ÀÈÌÒÙ ÁÉÍÓÚ ÄÖÜ ÃÕÑ ÂÊÎÔÛ",
        "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ\n³ menu ³\nÀÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÙ",
        "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
        "°°°·····°°°´´´´´``¨¨¨¨¸¸¸¸¤¤¤¤ºª«»§¶",
    ],
)
def test_what_is_no_legacy_encoding(text: str) -> None:
    assert from_legacy(text) == (text, 0)
