"""What the step `unicode` takes out, and above all what it leaves."""

from unicodedata import category

import pytest

from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import unicode


def made(text: str) -> Document:
    return Document(id="a", text=text, source="s", domain="d")


def cleaned(text: str, **settings: object) -> Document:
    answer = unicode.Config(kind="unicode", **settings).build().apply(made(text))
    assert isinstance(answer, Document)
    return answer


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("one\r\ntwo\rthree\nfour", "one\ntwo\nthree\nfour"),
        ("one\r\r\ntwo\r\n", "one\ntwo\n"),
        ("a stray\r return, a\x0b tab and a\x0c page, word\x0cword", "a stray return, a tab and a page, word\nword"),
        ("end of page\n\x0cnext", "end of page\nnext"),
        ("a\x00b\x07c\x7f\x9fd", "abcd"),
        ("\x1b[31mred\x1b[0m \x1b[1;4mand\x1b[K \x1bc", "red and c"),
        ("tab\tstays, so does\nthe line", "tab\tstays, so does\nthe line"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),  # composed after what stood between is gone
        ("next\x85line\u2028sep\u2029par", "next\nline\nsep\n\npar"),
        ("ﬁne Ａ ² ™", "ﬁne Ａ ² ™"),  # compatibility characters are what was written
        ("\ufeffstart and mid\ufeffdle", "start and middle"),
        ("hy\u00adphen\u00adated, a\u2060b\ufffcc\ufdd0", "hyphenated, abc"),
        ("zero\u200bwidth\u200c\u200d and 中\u200b文\u200c字", "zerowidth and 中文字"),
        ("plain \u202eleft\u202c\u200f to \u2066right\u2069", "plain left to right"),
        ("tags\U000e0041\U000e0042 hidden, one\ufe0f\ufe0e\ufe00 selector", "tags hidden, one\ufe0f selector"),
        ("\ue001icon \uf8ff", "icon "),
        ("\ue001首页 关于\ue002\ue003 我们", "首页 关于 我们"),
        ("lost \ufffd\ufffd\ufffd byte of a text that is long enough to keep for all its other characters", None),
        ("\ud83d\ude00 and \ud800 alone in a text of some length", "😀 and \ufffd alone in a text of some length"),
    ],
)
def test_unicode(given: str, wanted: str | None) -> None:
    wanted = given.replace("\ufffd\ufffd\ufffd", "\ufffd") if wanted is None else wanted
    once = cleaned(given)
    assert once.text == wanted
    assert cleaned(once.text).text == once.text


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم کتاب\u200cها را ببینم",  # Persian: the non-joiner parts a prefix from its verb
        "क\u094d\u200dष और क\u094d\u200cष",  # Hindi: half forms
        "ශ\u0dca\u200dරී ලංකා",  # Sinhala
        "ភាសា\u200bខ្មែរ\u200bមាន",  # Khmer: zero-width spaces part words
        "👩\u200d👧 🏳\ufe0f\u200d🌈 ❤\ufe0f 👍🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "שלום \u200f(ABC)\u200e עולם \u2067כן\u2069",
        "葛\U000e0100城 \u3000全角　空白",
        "泗水\ue157回，\ue158波",  # a rare character that the encoding had no place for
        "curly “quotes”, dashes – and — and… no\u00a0break",
    ],
)
def test_unicode_leaves_what_has_a_meaning(text: str) -> None:
    given = made(text)
    assert unicode.Config(kind="unicode").build().apply(given) == given


def test_unicode_leaves_no_control_character_and_takes_no_other() -> None:
    text = "".join(map(chr, range(0x250)))
    left = cleaned(text).text
    assert [c for c in left if category(c) == "Cc" and c not in "\t\n"] == []
    assert [c for c in left if category(c) != "Cc"] == [c for c in text if category(c) not in ("Cc", "Cf")]


def test_unicode_counts_what_it_found() -> None:
    found = cleaned("a\x00\x01 b\u200b\u200b c\u200d d\u00ad \ue000\ue001 \u202ex").found
    assert found == {"control": 2, "zero_width": 2, "soft_hyphen": 1, "private_use": 1, "bidi_control": 1}
    assert cleaned("nothing here").found == {}


def test_unicode_nfkc_and_private_use_are_asked_for() -> None:
    assert cleaned("ﬁne Ａ", form="NFKC").text == "fine A"
    assert cleaned("\ue001 icon", private_use="keep").text == "\ue001 icon"


def test_unicode_drops_what_was_lost_in_decoding() -> None:
    step = unicode.Config(kind="unicode").build()
    answer = step.apply(made("text \ufffd\ufffd\ufffd of bytes"))
    assert answer == Drop("undecodable", "share of U+FFFD 0.18 > 0.05")
    assert isinstance(step.apply(made("one \ufffd only " * 3)), Drop)
    assert isinstance(step.apply(made("one \ufffd only, in a longer text")), Document)
