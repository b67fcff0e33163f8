"""HTML to main text: what a reader of the page reads, and all of it."""

import json
import random
import re
import time
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from xml.etree import ElementTree

import pytest

from foundling.corpus.extract import main_text, title_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
MARKUP = re.compile(r"</?[a-zA-Z!?]|&#?\w+;|epub:|xmlns")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>Head</h1>\n<p>One\n  line.</p><p>Two.</p>", "Head\n\nOne line.\n\nTwo."),
        ("<p>line one<br>line two<br/>three</p><p>a<br><br>b</p>", "line one\nline two\nthree\n\na\n\nb"),
        ("<p>Are:</p><ul><li>one</li><li>two<ul><li>deep</li></ul></li></ul>", "Are:\n\n- one\n- two\n  - deep"),
        ("<ol><li>first</li><li>second</li></ol>", "1. first\n2. second"),
        (
            "before <b>bold</b>, <i>it</i>alic &amp; &lt;tag&gt; &eacute;&#8212;&#x4e2d;",
            "before bold, italic & <tag> é—中",
        ),
        ("<p>if a &lt; b &amp;&amp; c &gt; d</p>", "if a < b && c > d"),
        ("<p>Mr.&nbsp;Smith\u2060—so\u00adft</p>", "Mr. Smith—soft"),
        ("<pre>def f():\n    return 1\n</pre>", "def f():\n    return 1"),
        ("<p>第一段。\n  第二行，\nand English.</p><p>字</p>", "第一段。第二行， and English.\n\n字"),
        ("<p><ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>字</p>", "漢字"),
        ("<p>True.<sup><a href='#n1'>[1]</a></sup> H<sub>2</sub>O, x<sup>2</sup></p>", "True. H2O, x2"),
        ("<h2>The dbm module<a class='headerlink' href='#dbm'>¶</a></h2><p>One.</p>", "The dbm module\n\nOne."),
        (
            "<p><a href='#C'>C</a>, <a href='#add'>+</a></p><p>Said so. <a href='#r1'>↩\ufe0e</a></p>",
            "C, +\n\nSaid so.",
        ),
        ("<p>Yes.</p><p>字</p><p>“A little.”</p>", "Yes.\n\n字\n\n“A little.”"),
        ("<script>var a = '<p>no</p>';</script><style>p{}</style><!-- no --><p>yes</p>", "yes"),
        ("<p hidden>no</p><p style='display:none'>no</p><template>no</template><p>yes</p>", "yes"),
        ("<p>unclosed<p>paragraphs<li>and items", "unclosed\n\nparagraphs\n\n- and items"),
        ("", ""),
        ("no markup", "no markup"),
    ],
)
def test_small_pieces(html: str, text: str) -> None:
    assert main_text(html) == text


def test_tables_are_lines() -> None:
    rows = "<caption>Ages</caption><tr><th>Name<th>Age<tr><td><p>Ann</p><td>1<br>2<tr><td>Bob<td>"
    assert main_text(f"<p>Before</p><table>{rows}</table><p>After</p>") == (
        "Before\n\nAges\nName | Age\nAnn | 1 2\nBob | \n\nAfter".replace("| \n", "|\n")
    )
    layout = f"<table><tr><td><p>{'Prose in a cell. ' * 30}</p><p>And more.</p></td></tr></table>"
    assert "cell.\n\nAnd more." in main_text(layout)


PAGE = """<!DOCTYPE html><html><head><title>Title &amp; more</title></head><body>
<header><div class="logo">Site</div><nav><a href="/">Home</a><a href="/a">About</a></nav></header>
<div id="left-sidebar"><ul><li><a href="/1">First post</a></li><li><a href="/2">Second post</a></li></ul></div>
<div class="content"><h1>The head</h1><p>A first paragraph that says something, with a <a href="/x">link</a> in it.</p>
<div class="cookie-banner">We use cookies.</div>
<ul><li><a href="/t1">Tag</a></li><li><a href="/t2">Other</a></li><li><a href="/t3">Third</a></li></ul>
<p>A second one that is as long as the first one was.</p><ul><li>an item</li><li>another</li></ul></div>
<footer>Copyright 2020 by all of us</footer></body></html>"""


def test_what_is_no_text_of_the_page_goes() -> None:
    first = "A first paragraph that says something, with a link in it."
    second = "A second one that is as long as the first one was."
    assert main_text(PAGE) == f"The head\n\n{first}\n\n{second}\n\n- an item\n- another"
    assert title_of(PAGE) == "Title & more"


def test_rules_that_take_too_much_are_not_followed() -> None:
    """A page whose whole text stands in something called `sidebar`, and one that is nothing but links."""
    text = "The only text of this page, and there is no other."
    assert main_text(f"<html><body><div class='sidebar'><p>{text}</p></div></body></html>") == text
    parts = [f"Part {n} of the text, each of which stands in a block of a name like others." for n in range(6)]
    blocks = "".join(f"<div class='related'><p>{part}</p></div>" for part in parts)
    assert main_text(f"<html><body>{blocks}</body></html>") == "\n\n".join(parts)
    links = "".join(f"<li><a href='/{n}'>A book {n}</a></li>" for n in range(5))
    assert main_text(f"<html><body><ul>{links}</ul></body></html>").count("book") == 5


def test_xhtml() -> None:
    page = """<?xml version="1.0" encoding="utf-8"?>
    <html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title/>
    <script src="a.js"/></head><body epub:type="bodymatter"><section id="c1"><h2 epub:type="title">One</h2><a id="p1"/>
    <p>He <i xml:lang="fr">said</i>,
<a epub:type="noteref" href="#n">1</a> <abbr epub:type="z3998:name">Mr.</abbr> X.</p>
    <blockquote><p>Dear sir,</p><footer><p>Yours</p></footer></blockquote></section></body></html>"""
    assert main_text(page) == "One\n\nHe said, Mr. X.\n\nDear sir,\n\nYours"


def test_anything_can_be_read() -> None:
    """Tags nested and torn at random: never an error, never what cannot be written as UTF-8."""
    rng = random.Random(0)
    tags = "html body div p ul li table tr td nav header footer main article a br script pre sup ruby rt select"
    attributes = ["", " class=nav", " id=sidebar", " hidden", " href='#x'", " role=main"]
    words = ["word ", "字", "&lt;", "\n", "<!--", "-->", "\0", "1", "<![CDATA["]
    for _ in range(300):
        parts = []
        for _ in range(rng.randrange(80)):
            kind, tag = rng.random(), rng.choice(tags.split())
            opened = f"<{tag}{rng.choice(attributes)}>"
            parts.append(opened if kind < 0.45 else f"</{tag}>" if kind < 0.7 else rng.choice(words))
        text = main_text("".join(parts))
        assert text.encode().decode() == text


@pytest.mark.parametrize(
    "html", ["<div>" * 50_000, "<ul><li><a href=x>y</a>" * 1000, "<!-- a -->" * 20_000 + "x", "\u3000\n" * 50_000]
)
def test_no_page_takes_forever(html: str) -> None:
    start = time.process_time()
    main_text(html)
    assert time.process_time() - start < 5


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
def test_chapters_equal_their_plain_reading() -> None:
    chapters = sorted((DATA / "literature-html").glob("*/*.xhtml"))
    assert len(chapters) == 199
    for path in chapters:
        source = path.read_text(encoding="utf-8")
        body = ElementTree.fromstring(source.encode()).find("{http://www.w3.org/1999/xhtml}body")
        assert body is not None
        text = main_text(source)
        plain, got = (Counter(re.findall(r"\w+", t.replace("\u2060", ""))) for t in ("".join(body.itertext()), text))
        assert (plain & got).total() >= 0.998 * max(plain.total(), got.total()), path
        assert not MARKUP.search(text), path
        assert text.count("\n\n") >= len(body.findall(".//{http://www.w3.org/1999/xhtml}p")) - 60


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
def test_fragments_equal_their_clean_text() -> None:
    lines = (DATA / "dirty.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if '"kind": "html_fragment"' in line]
    assert len(rows) == 20
    for row in rows:
        assert SequenceMatcher(None, main_text(row["text"]), row["clean"], autojunk=False).ratio() >= 0.995, row["id"]
