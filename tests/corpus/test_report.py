"""The page and the command show what the manifest says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foundling.cli.corpus import app
from foundling.core.errors import UserError
from foundling.corpus.folder import open_corpus
from foundling.corpus.report import size


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"text": f"<script>alert({i})</script> " + "word " * i} for i in range(40)]
    rows += [rows[3], {"text": " "}]
    path = tmp_path / "in" / "news.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n", encoding="utf-8")
    return path


class Tags(HTMLParser):
    """Every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page(source: Path, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["build", str(source), "--out", str(tmp_path / "out")], catch_exceptions=False)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "svg" in tags.seen
    assert "script" not in tags.seen, "text of documents must be escaped"
    assert "&lt;script&gt;alert(3)" in page
    assert not re.search(r'(src|href)="|url\(|@import', page), "the page must stand alone"
    for word in ("duplicate", "too_short", "malformed_line", "news.jsonl: line 43", "prefers-color-scheme: dark"):
        assert word in page


def test_build_and_report_commands(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    run = CliRunner().invoke(app, ["build", str(source), "--out", out, "steps.1.min_characters=40", "seed=7"])
    assert run.exit_code == 0, run.output
    settings = open_corpus(Path(out)).manifest["settings"]
    assert settings["seed"] == 7
    assert settings["steps"][1]["min_characters"] == 40
    assert [step["kind"] for step in settings["steps"]] == ["unicode", "length", "exact"]
    shown = CliRunner().invoke(app, ["report", out])
    assert "= valid" in shown.output
    assert "1 lines left out: not a JSON object" in shown.output
    dropped = CliRunner().invoke(app, ["report", out, "--dropped", "length.too_short", "--limit", "2"])
    assert dropped.output.count("news.jsonl:") == 2
    wrong = CliRunner().invoke(app, ["report", out, "--dropped", "to_short"])
    assert isinstance(wrong.exception, UserError)
    assert "did you mean 'too_short'" in str(wrong.exception)


def test_a_file_whose_name_holds_an_equals_sign_is_a_source(source: Path, tmp_path: Path) -> None:
    odd = source.rename(source.with_name("a=b.jsonl"))
    run = CliRunner().invoke(app, ["build", str(odd), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    wrong = CliRunner().invoke(app, ["build", str(odd), "--out", str(tmp_path / "out"), "sead=1"])
    assert "did you mean 'seed'" in str(wrong.exception)


@pytest.mark.parametrize("command", ["build", "report"])
def test_help_ends_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert "Example: foundling corpus" in " ".join(shown.split())


def test_size() -> None:
    assert [size(n) for n in (0, 999, 1234, 1_234_567, 5e12)] == ["0 B", "999 B", "1.23 kB", "1.23 MB", "5 TB"]
