"""The page and the command show what the manifest says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foundling.cli.corpus import app
from foundling.core.errors import UserError
from foundling.corpus.diff import pieces, visible
from foundling.corpus.folder import open_corpus
from foundling.corpus.report import percent, size
from foundling.corpus.settings import is_setting, read_settings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"text": f"<script>alert({i})</script> " + "\u200bword " * i} for i in range(40)]
    rows += [rows[30], {"text": " "}]
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
    steps = "steps=[unicode,furniture,quality,{kind: length, min_characters: 100},exact]"
    CliRunner().invoke(app, ["build", str(source), "--out", str(tmp_path / "out"), steps], catch_exceptions=False)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r'src=|href="[^#]|url\(|@import', page), "the page must stand alone"
    assert "script" not in tags.seen, "text of documents must be escaped"
    assert "&lt;script&gt;alert(" in page
    for word in ("duplicate", "too_few_words", "malformed line", "news.jsonl", "43", "prefers-color-scheme: dark"):
        assert word in page
    assert "a token is here a word" in page
    counts = open_corpus(tmp_path / "out").manifest["counts"]
    tokens = [counts["num_words_read"], *(step["num_words"] for step in counts["steps"])]
    rows = re.findall(r'<span class="name"><code>(\w+)</code>.*?((?:<span class="n">[^<]*</span>)+)', page, re.S)
    assert [name for name, _ in rows] == ["read", "unicode", "furniture", "quality", "length", "exact"]
    assert [re.findall(r">([^<]+)</span>", cells)[2] for _, cells in rows] == [f"{number:,}" for number in tokens]
    assert tokens[0] > tokens[-1] > 0


def test_build_and_report_commands(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    settings = ["steps=plain", "steps.length.min_characters=40", "seed=7"]
    run = CliRunner().invoke(app, ["build", str(source), "--out", out, *settings])
    assert run.exit_code == 0, run.output
    settings = open_corpus(Path(out)).manifest["settings"]
    assert settings["seed"] == 7
    assert settings["steps"][1]["min_characters"] == 40
    assert [step["kind"] for step in settings["steps"]] == ["unicode", "length", "exact"]
    shown = CliRunner().invoke(app, ["report", out])
    assert "= valid" in shown.output
    counts = open_corpus(Path(out)).manifest["counts"]
    for sums in (counts["steps"][1], counts["splits"]["train"]):
        assert re.search(rf" {sums['num_documents']} +\S+ k?B +{sums['num_words']} ", shown.output)
    assert "a token is here a word" in " ".join(shown.output.split())
    assert "1 lines left out: not a JSON object" in shown.output
    dropped = CliRunner().invoke(app, ["report", out, "--dropped", "length.too_short", "--limit", "2"])
    assert dropped.output.count("news.jsonl:") == 2
    by_step = CliRunner().invoke(app, ["report", out, "--dropped", "length"])
    assert "length too_short" in by_step.output
    wrong = CliRunner().invoke(app, ["report", out, "--dropped", "to_short"])
    assert isinstance(wrong.exception, UserError)
    assert "did you mean 'too_short'" in str(wrong.exception)


def test_a_file_whose_name_holds_an_equals_sign_is_a_source(source: Path, tmp_path: Path) -> None:
    odd = source.rename(source.with_name("a=b.jsonl"))
    run = CliRunner().invoke(app, ["build", str(odd), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    wrong = CliRunner().invoke(app, ["build", str(odd), "--out", str(tmp_path / "out"), "sead=1"])
    assert "did you mean 'seed'" in str(wrong.exception)


def test_changes_in_the_terminal(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    CliRunner().invoke(app, ["build", str(source), "--out", out, "steps=plain"], catch_exceptions=False)
    shown = CliRunner().invoke(app, ["report", out, "--changed", "unicode", "--limit", "1"])
    assert "[-[U+200B]-]word" in shown.output
    wrong = CliRunner().invoke(app, ["report", out, "--changed", "unicod"])
    assert "did you mean 'unicode'" in str(wrong.exception)


def test_settings_faults_come_all_at_once_in_words_of_a_corpus() -> None:
    with pytest.raises(UserError) as caught:
        read_settings(["sead=1", "steps.qualty.x=1", "valid_fraction=9", "steps.quality.max_links=7", "seed.a.b=1"])
    told = str(caught.value)
    assert told.startswith("corpus settings: 5 faults")
    for part in ("'seed'", "did you mean 'quality'", "less than 1", "max_links: latin must be between 0 and 1", "seed"):
        assert part in told
    assert "recipe" not in told
    with pytest.raises(UserError, match="counted from 0"):
        read_settings(["steps.99.x=1"])


def test_settings_reach_a_step_by_name_and_place() -> None:
    config = read_settings(["steps=plain", "steps.length.min_characters=5", "steps.0.form=NFKC"])
    assert [step.kind for step in config.steps] == ["unicode", "length", "exact"]
    assert config.steps[1].model_dump()["min_characters"] == 5
    assert config.steps[0].model_dump()["form"] == "NFKC"
    short = read_settings(["steps=[unicode, quality]", "steps.quality.min_words=3"])
    assert short.steps[1].model_dump()["min_words"] == {"latin": 3, "cjk": 3, "other": 3}
    assert not is_setting("s3://bucket/a=b")
    assert is_setting("steps.quality.min_words=3")


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("the cat sat", "the cat sat down", [("same", "the cat sat"), ("new", " down")]),
        ("a\u200bb c d e f g", "ab c d e f g", [("same", "a"), ("gone", "\u200b"), ("same", "b c d e f g")]),
        ("one two three", "four five six", None),
        ("", "", []),
    ],
)
def test_pieces(before: str, after: str, wanted: list[tuple[str, str]] | None) -> None:
    found = pieces(before, after)
    assert "".join(text for what, text in found if what != "new") == before
    assert "".join(text for what, text in found if what != "gone") == after
    assert wanted is None or found == wanted


def test_what_an_excerpt_cuts_off_is_no_change() -> None:
    assert pieces("Read more. One two three fo…", "One two three four five…") == [
        ("gone", "Read more. "),
        ("same", "One two three "),
        ("same", "…"),
    ]


def test_what_cannot_be_seen_is_shown() -> None:
    assert visible("a\x07b") == "a[U+0007]b"
    assert visible(" \n") == "␣⏎\n"
    assert visible("plain words") == "plain words"


@pytest.mark.parametrize("command", ["build", "report"])
def test_help_ends_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert "Example: foundling corpus" in " ".join(shown.split())


def test_size() -> None:
    assert [size(n) for n in (0, 999, 1234, 1_234_567, 5e12)] == ["0 B", "999 B", "1.23 kB", "1.23 MB", "5 TB"]


def test_percent() -> None:
    assert [percent(share) for share in (0, 0.00001, 0.05, 0.123, 1)] == ["0 %", "< 0.1 %", "5 %", "12.3 %", "100 %"]


def test_dry_run_lists_and_builds_nothing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = CliRunner().invoke(app, ["build", str(source.parent), "--out", str(out), "--dry-run", "steps=plain"])
    assert run.exit_code == 0, run.output
    for word in ("jsonl", "text_field text", "news.jsonl", "length", "min_characters 1", "nothing was built"):
        assert word in run.output
    assert not out.exists()


def test_masked_data_is_not_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    rows = [
        {"text": f"The ferry leaves at noon, so write to anna{i}@example.org before. " + "Bring bread. " * i}
        for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "out"
    CliRunner().invoke(app, ["build", str(path), "--out", str(out), "steps=[unicode,privacy]"], catch_exceptions=False)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "•••••@•••••••.•••" in page
    assert "anna" not in page
