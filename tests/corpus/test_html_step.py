"""Which texts are HTML, and which only speak of it."""

import gzip
import json
import time
from pathlib import Path

import pytest

from foundling.corpus.document import Document
from foundling.corpus.steps.html import Config, is_html

DATA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
HTML = [
    "<p>Hi</p>",
    "<p>One</p>\n<p>Two",
    "<!DOCTYPE html><title>x</title>",
    '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><body>x</body></html>',
    "I loved it.<br /><br />Really did. The end was good.<br /><br />10/10",
    "A field of a database with <em>some</em> words <em>in</em> italics and <strong>bold</strong>.",
    "<p>How do I sort?</p>\n<pre><code>def f(x):\n    return sorted(x)\nimport os\n</code></pre>\n<p>Thanks</p>",
    "<p>- Bonjour</p>\n<p>- Salut</p>\n<p>- Ça va ?</p>\n<p>- Oui</p>",
    "<div>\n<span>价格：100元</span>\n<p>商品很好</p></div>",
    "<script>var a = [];\nif (a) { b(); }</script>\n<p>&ldquo;text&rdquo;</p><br>&nbsp;",
    "end of one.</p>\n<p>A whole one.</p>\n<p>Another that is cut of",
]
NOT_HTML = [
    "",
    "a < b and c > d",
    "1 <2 and 3> 2, x<y>z",
    "Use <b> for bold.",
    "The <p> tag and the </p> tag are different from <br> and <div>.",
    "Write `<p>` and `</p>`, or `<div></div>`.",
    'The text "<p>quoted</p>" has two tags, "<b>" and "</b>".',
    "# Head\n\n<p align=center><img src=x></p>\n\nSome `code` and [a link](x).\n\n## More\n\n<details>x</details>",
    "List<String> a = new ArrayList<String>();\nMap<String, List<String>> b = null;",
    "def f():\n    return '<p>' + x + '</p>'\n\ndef g():\n    return '<b>' + f() + '</b>'\n",
    "function App() {\n  return (\n    <div className={x}>\n      <p>{text}</p>\n    </div>\n  );\n}",
    "<project><modelVersion>4</modelVersion><name>x</name></project>",
    "<s> tokens </s> <s> of a language model </s>",
    "<unk> of <unk> in <unk>",
    "<alice> hi\n<bob> hello\n<alice> bye",
    '{"html": "<p>one</p><p>two</p>"}',
    "<https://example.com> and <me@example.com>",
]


def applied(text: str) -> str:
    answer = Config(kind="html").build().apply(Document("a", text, "s", "d"))
    assert isinstance(answer, Document)
    return answer.text


@pytest.mark.parametrize("text", HTML)
def test_html_is_known(text: str) -> None:
    assert is_html(text)
    assert "<" not in applied(text)
    assert applied(applied(text)) == applied(text)


@pytest.mark.parametrize("text", NOT_HTML)
def test_what_is_not_html_stays(text: str) -> None:
    assert applied(text) == text


@pytest.mark.parametrize("inside", ["a(", "`", "\n", " \n", "<!-- a -->", "<pre>", '"<b ', "a = ", "}", "@"])
def test_no_text_takes_forever(inside: str) -> None:
    start = time.process_time()
    is_html(f"<p>{inside * 50_000}</p><b>x</b>")
    is_html(inside * 50_000 + "<p>x</p>")
    assert time.process_time() - start < 5


def test_escaped_twice() -> None:
    assert applied("<div>&lt;p&gt;one&lt;/p&gt;\n&lt;p&gt;two&lt;/p&gt;</div>") == "one\n\ntwo"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
@pytest.mark.parametrize("name", ["tech", "news", "medicine", "politics"])
def test_real_text_stays(name: str) -> None:
    """Among them 736 PEPs and 639 RFCs, with XML, templates and HTML in their examples."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            assert not is_html(text), text[:200]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
def test_fragments_of_a_crawl_are_found() -> None:
    for line in (DATA / "dirty.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # 3 of its lines are not JSON
        assert is_html(row["text"]) == (row["kind"] == "html_fragment"), row["id"]
