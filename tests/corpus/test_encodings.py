"""Which encoding bytes are in."""

import os

import pytest

from foundling.corpus.encodings import guess_encoding_of

CHINESE = "人类社会发展的历史告诉我们，语言是思想的直接现实。天下大势，分久必合，合久必分。"
TRADITIONAL = "滾滾長江東逝水，浪花淘盡英雄。是非成敗轉頭空，青山依舊在，幾度夕陽紅。"
TEXTS = {
    "gb18030": CHINESE,
    "big5": TRADITIONAL,
    "cp1252": "Die Straße führt über die Brücke zum alten Rathaus – „größer, als man denkt“. " * 2,
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "euc_jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "cp949": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "utf-16": CHINESE,
    "utf-32": CHINESE,
    "utf-16-le": "ASCII text as Windows writes it\r\n",
    "utf-16-be": "ASCII text as nobody writes it\r\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_text_is_read_back(encoding: str) -> None:
    data = TEXTS[encoding].encode(encoding)
    guess = guess_encoding_of(data, is_whole=True)
    assert guess.name is not None
    assert data.decode(guess.name) == TEXTS[encoding]


@pytest.mark.parametrize(
    "text", ["", "plain", CHINESE, TRADITIONAL, "café", "a \ufffd b", "tab\tand\fform feed\x1b[0m"]
)
def test_utf8_is_utf8(text: str) -> None:
    assert guess_encoding_of(text.encode(), is_whole=True).name == "utf-8"


def test_a_character_may_be_cut_at_the_end_of_what_is_seen() -> None:
    assert guess_encoding_of(CHINESE.encode()[:-1], is_whole=False).name == "utf-8"


def test_a_damaged_byte_in_utf8_makes_no_other_encoding() -> None:
    data = bytearray((CHINESE * 10).encode())
    data[100] = 0xFF
    assert guess_encoding_of(bytes(data), is_whole=True).name == "utf-8"


def test_binary_is_no_text() -> None:
    for data in (b"\x7fELF\0\0\0", b"\0\1\2", os.urandom(5000), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        guess = guess_encoding_of(data, is_whole=True)
        assert guess.name is None
        assert guess.reason


def test_what_a_page_declares_is_believed_where_it_decodes() -> None:
    data = "café".encode("cp1250")
    assert guess_encoding_of(data, is_whole=True, declared="iso-8859-2").name == "iso8859-2"
    assert guess_encoding_of("字".encode(), is_whole=True, declared="latin-1").name == "utf-8"
    assert guess_encoding_of(CHINESE.encode("gbk"), is_whole=True, declared="no-such-thing").name == "gb18030"
