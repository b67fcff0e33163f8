"""`foundling data show`: what is shown is what the objective gives to the model."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from foundling.cli.data import print_look
from foundling.cli.main import main
from foundling.core.errors import UserError
from foundling.tokenizers.base import load_tokenizer
from foundling.tokenizers.bpe import Config as BpeConfig
from foundling.train.prepare import prepare
from foundling.train.recipe import Recipe, recipe_from
from foundling.train.show import Look, Section, ShownRow, look, write_page
from tests.tiny import sentences

Make = Callable[..., Recipe]
SPECIAL = {"eos": "[EOS]", "mask": "[MASK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]"}


@pytest.fixture(scope="session")
def all_special(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder with whatever an objective asks for."""
    out = tmp_path_factory.mktemp("tokenizer") / "all"
    extra = [f"<extra_id_{i}>" for i in range(4)]
    config = BpeConfig(kind="bpe", vocab_size=400, extra_tokens=extra, special_tokens=SPECIAL)
    config.build().train(sentences(200)).save(out)
    return out


@pytest.fixture
def show(tiny_data: Callable[..., Any], all_special: Path) -> Callable[..., Look]:
    def made(family: str, objective: dict[str, Any], **keys: int) -> Look:
        size = {"layers": 1, "width": 32, "heads": 4}
        recipe = tiny_data(model={"family": family, "size": size}, objective=objective, tokenizer=str(all_special))
        return look(recipe_from(recipe), **keys)

    return made


def titles(row: ShownRow) -> list[str]:
    return [section.title for section in row.sections]


def text_of(section: Section) -> str:
    return "".join(piece.text for piece in section.pieces)


def test_causal_rows_are_text_and_every_token_but_the_first_is_asked_for(show: Callable[..., Look]) -> None:
    found = show("gpt", {"kind": "causal"}, first=3, num_rows=2)
    assert [row.title for row in found.rows] == ["sample 3, corpus", "sample 4, corpus"]
    row = found.rows[0]
    assert titles(row) == ["text"]
    (section,) = row.sections
    assert section.num_read == 32
    assert [piece.asked for piece in section.pieces] == [False] + [True] * 32
    assert [piece.position for piece in section.pieces] == list(range(33))
    assert section.pieces[-1].kind == "beyond"
    assert row.facts[:2] == ["32 tokens", "32 targets"]
    assert {what: figure for figure, what in found.facts}["of the tokens are targets"] == "100.0%"


def test_what_is_shown_is_the_text_of_the_documents_named(
    show: Callable[..., Look], tiny_recipe: Make, all_special: Path
) -> None:
    found = show("gpt", {"kind": "causal"}, num_rows=6)
    data = prepare(tiny_recipe(tokenizer={"path": str(all_special)}), tiny_recipe().folder)
    tokenizer, stream = load_tokenizer(all_special), data.train[0]
    for row in found.rows:
        numbers = [int(part) for part in row.facts[2].removeprefix("document ").split(" to ")]
        whole = "".join(
            tokenizer.decode(stream.read(int(stream.document_starts[i]), int(stream.document_lengths[i])), False)
            for i in range(numbers[0], numbers[-1] + 1)
        )
        if all("Ġ" not in p.text and p.text.isascii() for p in row.sections[0].pieces if p.kind == "text"):
            read = "".join(piece.text for piece in row.sections[0].pieces if piece.kind != "beyond")
            assert read in whole.replace("\n", "↵")
    ends = [piece for row in found.rows for piece in row.sections[0].pieces if piece.kind == "end"]
    assert ends
    assert all(piece.text == "[EOS]" for piece in ends)


def test_a_prefix_is_a_section_of_its_own(show: Callable[..., Look]) -> None:
    found = show("gpt", {"kind": "causal", "prefix": 0.5})
    for row in found.rows:
        assert titles(row) == ["prefix", "text"]
        assert [section.num_read for section in row.sections] == [16, 16]
        assert not any(piece.asked for piece in row.sections[0].pieces)
        assert all(piece.asked for piece in row.sections[1].pieces)


def test_spans_show_source_and_target(show: Callable[..., Look]) -> None:
    found = show("seq2seq", {"kind": "seq2seq", "pretext": "spans"})
    for row in found.rows:
        assert titles(row) == ["source", "target"]
        source, target = row.sections
        assert "<extra_id_0>" in text_of(source)
        assert [piece.text for piece in target.pieces[:2]] == ["<|endoftext|>", "<extra_id_0>"], "start token, sentinel"
        assert source.pieces[-1].text == target.pieces[-1].text == "[EOS]"
        assert [piece.asked for piece in target.pieces] == [False] + [True] * (len(target.pieces) - 1)
        assert not any(piece.asked for piece in source.pieces)
        assert target.pieces[-1].kind == "beyond"


def test_masks_show_what_they_hide_and_pairs_their_segments(show: Callable[..., Look]) -> None:
    found = show("bert", {"kind": "mlm", "next": {"kind": "nsp"}}, num_rows=20)
    pieces = [piece for row in found.rows for section in row.sections for piece in section.pieces]
    hidden = [piece for piece in pieces if piece.target is not None]
    assert {piece.text for piece in hidden} >= {"[MASK]"}
    assert all(piece.target for piece in hidden)
    assert all(piece.target is not None for piece in pieces if piece.text == "[MASK]")
    assert all(titles(row) == ["segment A", "segment B"] for row in found.rows)
    assert {fact for row in found.rows for fact in row.facts} >= {"the true pair (label 0)", "a false pair (label 1)"}


def test_a_permutation_shows_its_order(show: Callable[..., Look]) -> None:
    found = show("xlnet", {"kind": "permutation"})
    pieces = [
        piece for row in found.rows for section in row.sections if section.title != "memory" for piece in section.pieces
    ]
    assert any(piece.asked for piece in pieces)
    assert all(piece.rank for piece in pieces if piece.asked)


@pytest.mark.parametrize("width", [40, 200])
def test_lines_fit_the_terminal_and_lose_nothing(show: Callable[..., Look], width: int) -> None:
    found = show("gpt", {"kind": "causal"})
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    print_look(found, console)
    lines = console.export_text().splitlines()
    assert all(cell_len(line) <= width for line in lines if line[:7].strip().isdigit())
    for row in found.rows:
        start = next(i for i, line in enumerate(lines) if line.startswith(row.title))
        read = "".join(line[9:] for line in lines[start + 2 : start + 40] if line[:7].strip().isdigit())
        assert read.replace(" ", "").startswith(text_of(row.sections[0]).replace(" ", ""))


def test_the_page_stands_alone_and_escapes(show: Callable[..., Look], tmp_path: Path) -> None:
    found = show("seq2seq", {"kind": "seq2seq", "pretext": "spans"})
    write_page(found, tmp_path / "rows.html")
    page = (tmp_path / "rows.html").read_text(encoding="utf-8")
    assert "&lt;extra_id_0&gt;" in page
    assert "<extra_id_0>" not in page
    for outside in ("http://", "https://", "src=", "<link", "@import"):
        assert outside not in page
    assert page.count('title="position') == sum(len(s.pieces) for row in found.rows for s in row.sections)


def test_the_command_shows_and_trains_nothing(
    tiny_data: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_data()))
    assert main(["data", "show", str(recipe), "--rows", "2", "train.sequence_length=16"]) == 0
    out = capsys.readouterr().out
    assert "sample 0, corpus" in out
    assert "sample 2" not in out
    assert "16  tokens a row" in out
    assert main(["data", "show", str(recipe), "--html", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert main(["data", "show", str(recipe), "--html", str(tmp_path / "no" / "x.html")]) == 2
    assert main(["data", "show", str(recipe), "--rows", "0"]) == 2
    assert main(["data", "show", str(recipe), "train.sequence_length=100K"]) == 2
    assert "must hold at least one row" in capsys.readouterr().err


def test_rows_before_the_first_are_refused(tiny_recipe: Make) -> None:
    with pytest.raises(UserError, match="got -1 and 4"):
        look(tiny_recipe(), first=-1)
