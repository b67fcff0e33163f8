"""Lines of a page's furniture go, lines of text stay."""

import pytest

from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import furniture

TEXT = "The harbour lay quiet in the morning light.\n\nNobody had seen the boat come in."


def cleaned(text: str, **settings: int) -> Document | Drop:
    step = furniture.Config(kind="furniture", **settings).build()
    return step.apply(Document(id="a", text=text, source="s", domain="d"))


@pytest.mark.parametrize(
    "line",
    [
        "Home | About us | Contact",
        "Home / News / Politics",
        "Skip to main content",
        "Read more »",
        "« Older posts   Newer posts »",
        "12 comments",
        "Page 3 of 20 1 2 3 4 … 20 Next",
        "Share this: Facebook Twitter Email",
        "404 Not Found",
        "Please enable JavaScript to view the comments.",
        "This site uses cookies. Learn more",
        "By using this site you agree to our Terms of Use and our Privacy Policy.",
        "© 2019 The Paper. All rights reserved. Privacy Policy",
        "Subscribe to our weekly newsletter!",
        "Zum Inhalt springen",
        "Lire la suite",
        "Читать далее",
        "上一页 下一页",
        "当前位置：首页 > 新闻",
        "分享到：微信 微博 QQ空间",
        "続きを読む",
    ],
)
def test_furniture_goes(line: str) -> None:
    answer = cleaned(f"{line}\n{TEXT}\n{line}")
    assert isinstance(answer, Document)
    assert answer.text == TEXT
    assert answer.found == {"furniture_lines": 2}
    assert cleaned(line) == Drop("only_furniture", "1 lines")


@pytest.mark.parametrize(
    "line",
    [
        "Home",
        "“In stock?”",
        "Cookies are small files (RFC 6265); this section says how a server uses cookies.",
        "JavaScript is a language of the web.",
        "Copyright (C) The Internet Society (1999). All Rights Reserved.",
        "print(comments)",
        "## Terms of Use",
        "He read more and more, until the light failed.",
        "We use them to catch fish.",
        "News came from home about the follow-up.",
        "上一页写着他的名字，下一页是空白。",
        "第十二章",
        "Telegram, October 24th.",
        "May 4, 1823 - June 3, 1823",
        "January, February, March, April",
        "/home/ | the folders of all users",
        "- Home/End go to begin/end of line",
        "401: ('Unauthorized',",
        "字体大小",
    ],
)
def test_text_stays(line: str) -> None:
    assert cleaned(line) == cleaned(line)
    answer = cleaned(f"{TEXT}\n{line}")
    assert isinstance(answer, Document)
    assert answer.text == f"{TEXT}\n{line}"


def test_likely_lines_go_in_company_only() -> None:
    alone = cleaned(f"Advertisement\n{TEXT}")
    assert isinstance(alone, Document)
    assert alone.text.startswith("Advertisement")
    company = cleaned(f"Advertisement\n{TEXT}\nSkip to main content")
    assert isinstance(company, Document)
    assert company.text == TEXT


def test_blank_lines_close_up() -> None:
    answer = cleaned("One line of text.\n\nRead more\n\nAnother line of text.")
    assert isinstance(answer, Document)
    assert answer.text == "One line of text.\n\nAnother line of text."


def test_a_bound_on_lines() -> None:
    text = f"Read more\n{TEXT}\nBack to top"
    answer = cleaned(text, max_lines=1)
    assert isinstance(answer, Document)
    assert answer.text == text


def test_nothing_but_likely_lines() -> None:
    assert cleaned("Menu\nSearch...\nLog in") == Drop("only_furniture", "3 lines")
    assert isinstance(cleaned("Menu\nSearch..."), Document)
