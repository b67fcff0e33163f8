"""The report's figures against counts by hand."""

from pathlib import Path

import pytest

from foundling.core.files import read_json
from foundling.core.log import console
from foundling.tokenizers.report import Text, examine, script_of
from tests.tokenizers.conftest import trained
from tests.tokenizers.texts import texts

DOCUMENTS = [
    Text("the quick brown fox", "news", "animals", "en"),
    Text("今天气很好", "forum", "weather"),
    Text("ж", "forum", "weather"),
]


def test_figures_are_counts() -> None:
    char = trained("char")
    report = examine(char, DOCUMENTS)
    data = report.as_data()
    assert data["total"]["num_texts"] == 3
    assert data["total"]["num_bytes"] == 19 + 15 + 2
    assert data["total"]["num_tokens"] == 19 + 5 + 1
    assert data["total"]["num_unknown"] == 1
    assert data["total"]["round_trip_share"] == pytest.approx(2 / 3)
    assert data["by_source"]["news"]["tokens_per_word"] == 19 / 4
    assert data["by_source"]["forum"]["bytes_per_token"] == 17 / 6
    assert set(data["by_language"]) == {"en", "cjk", "cyrillic"}
    assert data["by_domain"]["weather"]["num_unknown"] == 1
    assert data["unknown_characters"] == {"ж": 1}
    assert data["round_trip_difference"] == {"text": "ж", "decoded": ""}
    used = {i for d in DOCUMENTS for i in char.encode(d.text)}
    assert data["vocabulary_used_share"] == len(used) / char.vocab_size


def test_bytes_lose_nothing_and_the_table_says_so() -> None:
    report = examine(trained("bpe"), [Text(text) for text in texts(100)])
    assert report.as_data()["total"]["round_trip_share"] == 1
    assert report.difference is None
    assert report.remarks() == []
    with console.capture() as shown:
        console.print(report.table())
    assert "100.0%" in shown.get()
    assert "latin" in shown.get()


def test_only_so_many_documents_are_read() -> None:
    assert examine(trained("bpe"), [Text(text) for text in texts(100)], 70).total.num_texts == 70


def test_the_report_is_saved(tmp_path: Path) -> None:
    report = examine(trained("wordpiece"), DOCUMENTS)
    assert read_json(report.save(tmp_path)) == report.as_data()
    assert any("unknown characters: 'ж'" in line for line in report.remarks())


def test_scripts() -> None:
    assert script_of("Hello 中") == "latin"
    assert script_of("中文 a") == "cjk"
    assert script_of("1234 !") == "none"
