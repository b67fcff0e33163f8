"""HTML to the text that a reader of the page reads: paragraphs by blank lines, no markup, no menus.

Parsing and the walk to text are resiliparse's (Bevendorff et al., "Elastic ChatNoir", ECIR 2018). What goes before is
decided here: resiliparse's own main-content rule takes whole lists, date lines and one-character paragraphs with it
(99 words of 199 chapters of fiction, and 漢字 of a paragraph with ruby), so menus are told by their names and links.
"""

import re
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

_UNSEEN = (
    "script, style, template, noscript, iframe, object, embed, svg, canvas, audio, video, map, head, "
    "button, select, textarea, input, option, datalist, dialog, nav, menu, rt, rp, rtc, annotation, annotation-xml, "
    "[hidden], [aria-hidden='true'], [style*='display:none'], [style*='display: none'], [role='navigation'], "
    "[role='search'], [role='banner'], [role='contentinfo'], [role='menu'], [role='menubar'], [role='dialog'], "
    "[epub\\:type~='noteref'], [role='doc-noteref'], sup.reference, .footnote-ref, .mw-editsection, .sr-only, "
    ".visually-hidden, .screen-reader-text, .skip-link"
)
_NAMED = (
    "nav menu sidebar breadcrumb footer paginat pager cookie consent gdpr newsletter subscribe share sharing social "
    "related advert sponsor promo toolbar masthead popup modal signup login copyright"
)
_BOILERPLATE = (
    "nav navbar navigation navi menu menubar submenu sidebar breadcrumb breadcrumbs footer pagination pager cookie "
    "cookies consent gdpr newsletter subscribe share sharing social related advert advertisement adverts sponsor "
    "sponsored promo toolbar masthead popup modal signup login copyright"
)
_BOILERPLATE_WORDS = frozenset(_BOILERPLATE.split())
_BLOCKS = ("div", "ul", "ol", "section", "aside", "p", "table", "form", "header", "footer", "dl", "td", "tr")
_NAMED_SELECTOR = ", ".join(f"[class*='{word}' i], [id*='{word}' i]" for word in _NAMED.split())
_LINKED_SELECTOR = ", ".join(f"{tag}:has(a)" for tag in _BLOCKS)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

_MAX_NAMED_SHARE = 0.25  # of the page's text that something called `sidebar` or the like may hold and still go
_MIN_LINKS, _LINK_SHARE, _LINK_CHARACTERS = 3, 0.75, 40  # a menu is mostly links, and its links are short
_MAX_LINK_VISITS = 50  # of one link, by the blocks around it
_MIN_KEPT_SHARE = 0.3  # of the text outside of links: with less left, the rules were wrong about this page
_MAX_UNCLOSED = 500  # more open <div> are nested in one another, and the search for menus would take seconds
_MAIN_SHARE = 0.5  # of the text that the one <main> or <article> holds where it is the page
_CELL_CHARACTERS = 300  # a table with longer cells is for layout

_CJK = "\u2e80-\u2fdf\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_ANY_CJK = re.compile(f"[{_CJK}]")
_CJK_BREAK = re.compile(rf"(?<=[{_CJK}])[ \t]*\r?\n[ \t\r\n]*(?=[{_CJK}])")
_SELF_CLOSED = re.compile(
    r"<((?!(?:br|hr|img|input|meta|link|col|area|base|embed|source|track|wbr)\b)[a-zA-Z][\w:-]*)(\s[^<>]*)?/>"
)
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
_UNSEEN_CHARACTERS = "\u00ad\u2060\ufeff"
_BULLET = re.compile(r"^  ((?:  )*)\u2022 ?", re.MULTILINE)
_NUMBER = re.compile(r"^  ((?:  )*\d+\. )", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_SIGN = re.compile("[¶§#^↑↩↵⏎⚓🔗][\ufe0e\ufe0f]?")  # a heading's own address, the way back from a note
_NOTE_MARK = re.compile(r"\[?(?:\d{1,3}|[a-z]|[*†‡§]+|note \d+)\]?", re.IGNORECASE)


def main_text(html: str) -> str:
    """The main text of a page or a fragment. What is no menu, script, hidden or page footer is kept, all of it.

    Paragraphs and headings are parted by a blank line, lines of `<br>` and list items by a line end; items begin with
    `- ` or their number, cells of a table's row are joined by ` | `. Note marks and ruby readings are left out.
    """
    if not html.isascii() and "<pre" not in html and _ANY_CJK.search(html):
        html = _CJK_BREAK.sub("", html)
    if "/>" in html and _is_xhtml(html):
        html = _SELF_CLOSED.sub(r"<\1\2></\1>", html)
    tree = HTMLTree.parse(html)
    body = tree.body
    if body is None:
        return ""
    _remove(body, _UNSEEN)
    _remove_note_marks(body)
    is_torn = html.count("<div") > html.count("</div") + _MAX_UNCLOSED
    if not is_torn and _prune(body):
        return _tidied(_text(tree))
    whole = HTMLTree.parse(html)
    assert whole.body is not None
    _remove(whole.body, _UNSEEN)
    _remove_note_marks(whole.body)
    return _tidied(_text(whole))


def title_of(html: str) -> str | None:
    """The page's title on one line, or None."""
    match = re.search(r"<title[^>]*>(.{0,2000}?)</title", html[:100_000], re.IGNORECASE | re.DOTALL)
    title = " ".join(main_text(f"<p>{match[1]}</p>").split()) if match else ""
    return title or None


def _is_xhtml(html: str) -> bool:
    start = html[:2000]
    return start.lstrip().startswith("<?xml") or "http://www.w3.org/1999/xhtml" in start


def _remove(node: Any, selector: str) -> None:
    for element in node.query_selector_all(selector).values():
        element.decompose()


def _remove_note_marks(body: Any) -> None:
    """Takes out the marks of notes, and links to places of the page that are a sign and no word."""
    for element in body.query_selector_all("sup:has(a[href^='#'])").values():
        if _NOTE_MARK.fullmatch((element.text or "").strip()):
            element.decompose()
    for element in body.query_selector_all("a[href^='#']").values():
        if element.parent is not None and _SIGN.fullmatch((element.text or "").strip()):
            element.decompose()


def _prune(body: Any) -> bool:
    """Takes menus and the like out; False: it took so much that the page must be read without."""
    num_characters = _length(body)
    links = body.query_selector_all("a").values()
    num_linked = sum(map(_length, links))
    _remove_page_ends(body)
    for element in body.query_selector_all(_NAMED_SELECTOR).values():
        if element.parent is not None and _is_named_boilerplate(element, num_characters):
            element.decompose()
    if len(links) >= _MIN_LINKS:
        _remove_menus(body, num_characters, _MAX_LINK_VISITS * len(links))
    _keep_main(body)
    return _length(body) >= _MIN_KEPT_SHARE * (num_characters - num_linked)


def _length(element: Any) -> int:
    """Characters of an element's text without white space."""
    text = element.text or ""
    return len(text) - text.count(" ") - text.count("\n") - text.count("\t")


def _remove_page_ends(body: Any) -> None:
    """The page's own footer and header; those of sections stay, and so does a header with the page's only title."""
    has_one_title = len(body.query_selector_all("h1").values()) == 1
    for element in body.query_selector_all("footer, header").values():
        parent = element.parent
        if parent is not None and parent.tag == "div":
            parent = parent.parent
        if parent is None or parent.tag != "body":  # None: it went with the one around it
            continue
        if element.tag == "footer" or element.query_selector("h1" if has_one_title else "h2") is None:
            element.decompose()


def _is_named_boilerplate(element: Any, num_characters: int) -> bool:
    if element.tag not in _BLOCKS:
        return False
    words = {word.lower() for word in _WORD.findall(f"{element.class_name or ''} {element.id or ''}")}
    if not words & _BOILERPLATE_WORDS or element.query_selector("h1, article, main") is not None:
        return False
    length = _length(element)
    return length <= _MAX_NAMED_SHARE * num_characters or _linked_length(element) > _LINK_SHARE * length


def _linked_length(element: Any) -> int:
    return sum(_length(link) for link in element.query_selector_all("a").values())


def _remove_menus(body: Any, num_characters: int, max_visits: int) -> None:
    """Takes out what is mostly short links. max_visits: of links; in lists nested by the thousand, not all are seen."""
    for element in body.query_selector_all(_LINKED_SELECTOR).values():
        if element.parent is None:
            continue
        links = element.query_selector_all("a").values()
        max_visits -= len(links)
        if max_visits < 0:
            return
        length, linked = _length(element), sum(map(_length, links))
        is_menu = _LINK_SHARE * length <= linked <= _LINK_CHARACTERS * len(links)
        if len(links) >= _MIN_LINKS and is_menu and length < num_characters / 2:
            element.decompose()


def _keep_main(body: Any) -> None:
    """Where one <main> or one <article> is the page, what stands beside it goes."""
    for selector in ("main, [role='main']", "article"):
        found = body.query_selector_all(selector).values()
        if len(found) != 1 or _length(found[0]) < _MAIN_SHARE * _length(body):
            continue
        node = found[0]
        while node is not None and node.tag != "body":
            parent = node.parent
            for sibling in list(parent.child_nodes):
                if sibling != node:
                    sibling.decompose()
            node = parent
        return


def _text(tree: Any) -> str:
    for table in tree.body.query_selector_all("table:not(:has(table))").values():
        _to_lines(tree, table)
    return extract_plain_text(tree, preserve_formatting=True, list_bullets=True, alt_texts=False)


def _to_lines(tree: Any, table: Any) -> None:
    """A table of data becomes a line a row; one for layout stays."""
    for element in table.query_selector_all("br, p, div, li").values():
        element.before(tree.create_text_node(" "))
    rows = []
    for row in table.query_selector_all("tr").values():
        cells = [" ".join((cell.text or "").split()) for cell in row.query_selector_all("td, th").values()]
        if any(len(cell) > _CELL_CHARACTERS for cell in cells):
            return
        if any(cells):
            rows.append(" | ".join(cells))
    if not rows:
        return
    caption = table.query_selector("caption")
    lines = tree.create_element("pre")
    title = " ".join((caption.text or "").split()) if caption is not None else ""
    lines.text = "\n".join([title, *rows] if title else rows)
    table.replace_with(lines)


def _tidied(text: str) -> str:
    if not text.isascii():
        for space in _SPACES:
            text = text.replace(space, " ")
        for character in _UNSEEN_CHARACTERS:
            text = text.replace(character, "")
        text = _BULLET.sub(r"\1- ", text) if "\u2022" in text else text
    if "\n  " in text or text.startswith("  "):
        text = _NUMBER.sub(r"\1", text)
    text = "\n".join(map(str.rstrip, text.replace("\r", "").replace("\t", " ").split("\n")))
    return _BLANK_LINES.sub("\n\n", text).strip("\n").rstrip()
