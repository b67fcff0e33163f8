"""Texts that are HTML, whole pages or fragments that a crawler cut out, become what a reader reads (`extract`).

Only texts that are HTML as a whole: prose, Markdown, source code and mathematics in which tags or `<` occur stay as
they are. See `is_html` for what tells them apart.
"""

import re

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.extract import main_text

REASONS: dict[str, str] = {}

_BLOCK = (
    "html head body title meta link p div br hr h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table thead tbody tfoot tr td th "
    "blockquote pre section article header footer main nav aside figure figcaption address center form script style "
    "noscript iframe img"
)
_INLINE = (
    "a abbr acronym b bdi bdo big button cite code del dfn em font i input ins kbd label mark q samp select option "
    "small span strike strong sub sup textarea time tt u var wbr ruby rt rp rb picture source video audio svg path "
    "caption col colgroup object embed param area map base fieldset legend details summary template canvas"
)
_BLOCKS, _KNOWN = frozenset(_BLOCK.split()), frozenset((_BLOCK + " " + _INLINE).split())
_VOID_NAMES = "br hr img meta link input wbr col source area base embed param"
_UNCLOSED_NAMES = "p li td tr th dd dt option"
_VOID, _UNCLOSED = frozenset(_VOID_NAMES.split()), frozenset(_UNCLOSED_NAMES.split())
_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*(?:<!doctype html|<html[\s>])", re.IGNORECASE | re.DOTALL
)
_UNREAD = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<!doctype[^>]*>", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:_-]*)((?:\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*)?)(/?)>")
# What writers of HTML by hand or machine do not write around tags, and those who write about tags do.
_QUOTED_TAG = re.compile(r"[`'\"“‘「(\[]</?[a-zA-Z][^<>\n]*>[`'\"”’」)\],.]")
_MENTIONED_TAG = re.compile(r"\w </?([a-zA-Z][a-zA-Z0-9]*)> \w")
_MARKDOWN = re.compile(r"^(?:#{1,6} \S|```|~~~|\.\. [\w-]+::|[=~^-]{4,}$)|\]\(|`[^`\n]+`|\*\*\S", re.MULTILINE)
_MARKDOWN_ITEM = re.compile(r"^(?:[-*+] \S|\d+[.)] \S|>{1,3} )", re.MULTILINE)  # in a page it may be speech or a list
_SHOWN_CODE = re.compile(r"<(pre|code|samp|kbd)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(
    r"^[ \t]*(?:import |from \S+ import |def \w+\(|class \w+|function\b|(?:const|let|var) \w+|return\b|#include\b|"
    r"package |public |private |using |if ?\(|for ?\(|while ?\(|elif |@\w+|\w+[ \t]*=[ \t]*\S|"
    r"[}\])]+;?[ \t]*$|[\w.]+\(.*\);?[ \t]*$)"
    r"|<\?php|<%|\{\{|\{%|=\{|className=|=>|&&|\bv-(?:if|for|model|bind)",
    re.MULTILINE,
)
_MIN_TAGS, _MAX_CHARACTERS_A_TAG = 3, 1000
_MIN_KNOWN_SHARE = 0.9
_MAX_MARKDOWN, _MAX_CODE_SHARE = 2, 0.1
_TAGS_A_MARK = 5
_MAX_PASSES = 3  # for HTML that was escaped once more: `&lt;p&gt;`


class Config(PartConfig):
    """Changes texts that are HTML, drops nothing."""

    def build(self) -> "Html":
        return Html()


class Html:
    def apply(self, document: Document) -> Document | Drop:
        text = document.text
        for _ in range(_MAX_PASSES):
            if "<" not in text or not is_html(text):
                break
            text = main_text(text)
        return document.with_text(text)


def is_html(text: str) -> bool:
    """Whether a text is HTML as a whole.

    It is where it begins as a page does. Otherwise at least nine of ten tags are HTML's and what opens is closed; the
    text shows no Markdown or reStructuredText, at most one line in ten looks like code, no tag stands in quotes or
    backticks; and it begins and ends with a tag, a block among them, or has at least three tags and prose between.
    """
    if _PAGE.match(text):
        return True
    if text.count(">") < 2:
        return False
    bare = _UNREAD.sub(" ", text).strip()
    tags = _TAG.findall(bare)
    num_attributes = sum(bool(attributes.strip()) for _, _, attributes, _ in tags)
    names = [name.lower() for _, name, _, _ in tags]
    num_known = sum(name in _KNOWN for name in names)
    if len(tags) < 2 or num_known < _MIN_KNOWN_SHARE * len(tags) or not _is_balanced(tags):
        return False
    prose = _TAG.sub("", _SHOWN_CODE.sub("", bare))
    if bare.startswith("<") and bare.endswith((">", ";")) and any(name in _BLOCKS for name in names):
        # As many as tags make likely: a page may quote its code so, and a page in Markdown has few tags.
        num_marks = len(_MARKDOWN.findall(prose)) - num_attributes // _TAGS_A_MARK
    elif len(tags) < _MIN_TAGS or len(prose) > _MAX_CHARACTERS_A_TAG * len(tags):
        return False
    else:
        num_marks = len(_MARKDOWN.findall(prose)) + len(_MARKDOWN_ITEM.findall(prose))
    return num_marks <= _MAX_MARKDOWN and not _is_mentioned(bare) and not _is_code(prose)


def _is_balanced(tags: list[tuple[str, str, str, str]]) -> bool:
    """Whether most tags have their other half. Crawlers cut, and `<p>` and `<li>` need not be closed."""
    num_open: dict[str, int] = {}
    num_good = num_faults = 0
    for slash, name, _, own_slash in tags:
        name = name.lower()
        if name in _VOID or own_slash:
            num_good += 1
        elif not slash:
            num_open[name] = num_open.get(name, 0) + 1
        elif num_open.get(name, 0):
            num_open[name] -= 1
            num_good += 1
        elif name not in _UNCLOSED:
            num_faults += 1
    num_faults += sum(count for name, count in num_open.items() if name not in _UNCLOSED)
    return num_good >= 2 * num_faults and num_good > 0


def _is_mentioned(bare: str) -> bool:
    """Whether the text speaks of tags: in quotes, or as words of a sentence, `the <div> tag`."""
    return bool(_QUOTED_TAG.search(bare)) or any(name.lower() not in _VOID for name in _MENTIONED_TAG.findall(bare))


def _is_code(prose: str) -> bool:
    num_lines = sum(1 for line in prose.split("\n") if line.strip())
    return prose[:1] in "{[" or len(_CODE.findall(prose)) > _MAX_CODE_SHARE * max(10, num_lines)
