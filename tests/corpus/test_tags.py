"""Source and domain tags from names, paths, expressions and fields."""

from pathlib import Path

import pytest

from foundling.core.config import PartConfig, override, validate
from foundling.corpus.build import Config
from foundling.corpus.inputs import InputFile
from foundling.corpus.tags import Tags, checked_tag, tag

FILE = InputFile(Path("/x"), "top/law/2020/a.b.jsonl.gz", "top", PartConfig(), 1)
SINGLE = InputFile(Path("/x"), "a.txt", "a", PartConfig(), 1)


@pytest.mark.parametrize(
    ("setting", "expected", "single"),
    [
        (None, "top", "a"),
        ("wiki", "wiki", "wiki"),
        ("from:folder", "law", "a"),
        ("from:file", "a", "a"),
        ("{folder}", "law", "a"),
        ("{source}-{parent}", "top-2020", "a-a"),
        ("from:{2}/{3}", "law/2020", "a"),
        (r"re:/(\w+)/\d{4}/", "law", "a"),
        (r"re:\d{4}", "2020", "a"),
        ("field:topic", "news", "news"),
        ("field:meta.site", "example.com", "example.com"),
        ("field:year", "1999", "1999"),
        ("field:nothing", "top", "a"),
        ("field:empty", "top", "a"),
    ],
)
def test_tags(setting: str | None, expected: str, single: str) -> None:
    meta = {"topic": "news", "meta": {"site": "example.com"}, "year": 1999, "empty": " ", "list": []}
    assert tag(checked_tag(setting), FILE, meta) == expected
    assert tag(setting, SINGLE, meta) == single
    assert Tags(setting, None).of(FILE, meta) == (expected, "top")


def test_a_pattern_that_yaml_took_for_a_mapping() -> None:
    assert checked_tag({"folder": None}) == "{folder}"
    assert validate(Config, override({}, ["domain={2}"]), "corpus").domain == "{2}"
    assert validate(Config, override({}, ["source=from:{parent}-{1}"]), "corpus").source == "from:{parent}-{1}"


def test_what_cannot_be_a_tag_is_told() -> None:
    for setting, match in (
        ("from:title", "from:folder or from:file"),
        ("re:(", "regular expression"),
        ("{folder", "pattern"),
        ("{name}", "{folder}, {file}"),
        ("{0}", "{folder}"),
        ("field:", "field:NAME"),
    ):
        with pytest.raises(ValueError, match=match):
            checked_tag(setting)
