"""What a model will see, before anything is computed: rows of a recipe's objective as it collates them.

Corpus, tokenizer and tokens are made as `pretrain` would make them, and found again by it.
"""

# Shapes: R = rows, N = packed tokens, M = targets.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.files import write_text
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.tokenizers.base import Tokenizer
from foundling.train.prepare import Data, documents_of_row, prepare
from foundling.train.recipe import Recipe
from foundling.train.settings import row_lengths_of

_SURVEYED_ROWS = 64
"""Rows behind the figures at the top."""
_VISIBLE = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍"})
_SPACES_UNWRITTEN = ("wordpiece", "wordlevel")
"""Kinds of tokenizers whose tokens do not say where a space stood."""

Kind = Literal["text", "special", "end", "beyond"]
"""A token of the text, a special one, one that ends a document, and one that is asked for and never read."""


@dataclass(frozen=True)
class Piece:
    """A token as the model sees it."""

    text: str
    """What it stands for, whole characters where it has them; line ends and tabs are made visible."""
    token: int
    position: int
    kind: Kind
    asked: bool = False
    """Whether the loss asks for it: for this very token, wherever the answer is read."""
    target: str | None = None
    """What the loss asks for here, where the token that is read may be another one."""
    rank: int | None = None
    """Its place in the factorization order, where there is one."""


@dataclass(frozen=True)
class Section:
    """A stretch of a row that is seen alike."""

    title: str
    pieces: list[Piece]

    @property
    def num_read(self) -> int:
        """Tokens that the model reads."""
        return sum(piece.kind != "beyond" for piece in self.pieces)


@dataclass(frozen=True)
class ShownRow:
    title: str
    facts: list[str]
    sections: list[Section]


@dataclass(frozen=True)
class Look:
    name: str
    facts: list[tuple[str, str]]
    """(figure, what it is)."""
    rows: list[ShownRow]


def look(recipe: Recipe, *, first: int = 0, num_rows: int = 4) -> Look:
    """Samples `first` to `first + num_rows - 1` of the recipe's order, and figures over the first 64.

    They are those of the run's beginning: what limits or changes a mixture, and later phases with longer rows, come
    later in a run than anybody looks.
    UserError for whatever keeps the recipe from being trained on its data.
    """
    if first < 0 or num_rows < 1:
        raise UserError("first must be at least 0 and rows at least 1", got=f"{first} and {num_rows}")
    data = prepare(recipe, recipe.folder)
    config: Any = recipe.objective
    objective = config.build(data.tokenizer)
    row_length = row_lengths_of(recipe)[0]
    samples = objective.samples(data.train, None, row_length=row_length, seed=recipe.seed)
    beginning = replace(data.mixture, max_epochs=None, changes=()).phases(samples.rows_per_stream, None)
    samples = objective.samples(data.train, beginning, row_length=row_length, seed=recipe.seed)
    chosen = [samples[i] for i in range(first, first + num_rows)]
    batch = objective.collate(chosen)
    surveyed = objective.collate([samples[i] for i in range(min(_SURVEYED_ROWS, samples.num_rows))])
    return Look(recipe.name, _figures(surveyed, recipe, samples, data), rows_of(batch, chosen, data))


def _figures(batch: Batch, recipe: Recipe, samples: Any, data: Data) -> list[tuple[str, str]]:
    ends = int(torch.isin(batch.tokens_N, _ends(data.tokenizer)).sum())
    return [
        (recipe.objective.kind, "objective"),
        (f"{samples.row_length:,}", "tokens a row, at most"),
        (f"{batch.num_tokens / batch.num_rows:,.1f}", "tokens a row, without padding"),
        (f"{batch.num_targets / batch.num_tokens:.1%}", "of the tokens are targets"),
        (f"{ends / batch.num_rows:.2f}", "end tokens a row"),
        (f"{samples.num_rows:,}", "rows in an epoch"),
    ]


def _ends(tokenizer: Tokenizer) -> Tensor:
    end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    return torch.tensor([] if end_id is None else [end_id], dtype=torch.int64)


def rows_of(batch: Batch, rows: Sequence[Row], data: Data) -> list[ShownRow]:
    """Each row of a batch, token by token."""
    spell = _Speller(data.tokenizer)
    index_M = torch.arange(batch.num_targets) if batch.target_index_M is None else batch.target_index_M
    asked = dict(zip(index_M.tolist(), batch.targets_M.tolist(), strict=True))
    bounds, tokens = batch.bounds_R1.tolist(), batch.tokens_N.tolist()
    nexts = sum(tokens[i + 1] == t for i, t in asked.items() if i + 1 < len(tokens) and i + 1 not in bounds)
    # a token is asked for where the one before it is read, if that is what nearly all targets say
    by_next = nexts > 0.5 * sum(i + 1 not in bounds for i in asked)
    shown = []
    for number, row in enumerate(rows):
        first, end = bounds[number], bounds[number + 1]
        targets = {i - first: t for i, t in asked.items() if first <= i < end}
        pieces = _pieces(batch, first, end, targets, by_next, spell)
        facts = [f"{batch.tokens_of_rows[number]:,} tokens", f"{len(targets):,} targets"]
        facts.append(documents_of_row(data.train[row.source], row))
        if row.label is not None:
            facts.append("the true pair (label 0)" if row.label == 0 else f"a false pair (label {row.label})")
        sections = [*_beside(batch, number, spell), *_sections(batch, number, pieces)]
        shown.append(ShownRow(f"sample {row.sample}, {data.names[row.source]}", facts, sections))
    return shown


def _pieces(
    batch: Batch, first: int, end: int, targets: dict[int, int], by_next: bool, spell: "_Speller"
) -> list[Piece]:
    ranks = None if batch.ranks_N is None else batch.ranks_N[first:end].tolist()
    tokens, positions = batch.tokens_N[first:end].tolist(), batch.positions_N[first:end].tolist()
    pieces = []
    for i, token in enumerate(tokens):
        piece = replace(spell(token, positions[i]), rank=None if ranks is None else ranks[i])
        if by_next:
            piece = replace(piece, asked=targets.get(i - 1) == token)
        elif i in targets:
            other = targets[i] != token or ranks is None  # a rank tells already that a token is asked for
            piece = replace(piece, asked=not other, target=spell(targets[i], 0).text if other else None)
        pieces.append(piece)
    last = len(tokens) - 1
    if by_next and last in targets:
        pieces.append(replace(spell(targets[last], positions[last] + 1), kind="beyond", asked=True))
    return pieces


def _sections(batch: Batch, number: int, pieces: list[Piece]) -> list[Section]:
    """A row cut where its prefix ends and where its segments change."""
    first = int(batch.bounds_R1[number])
    titles = ["target" if batch.source_tokens_S is not None else "text"] * len(pieces)
    if batch.prefix_R is not None:
        titles = ["prefix" if i < int(batch.prefix_R[number]) else "text" for i in range(len(pieces))]
    elif batch.segments_N is not None:
        segments = batch.segments_N[first : first + len(pieces)].tolist()
        titles = [f"segment {chr(ord('A') + s)}" for s in segments] + titles[len(segments) :]
    found: list[Section] = []
    for title, piece in zip(titles, pieces, strict=True):
        if not found or found[-1].title != title:
            found.append(Section(title, []))
        found[-1].pieces.append(piece)
    return found


def _beside(batch: Batch, number: int, spell: "_Speller") -> list[Section]:
    """What a row's tokens see besides their own row."""
    found = []
    if batch.source_tokens_S is not None:
        assert batch.source_bounds_R1 is not None
        span = slice(*batch.source_bounds_R1[number : number + 2].tolist())
        found.append(Section("source", [spell(t, i) for i, t in enumerate(batch.source_tokens_S[span].tolist())]))
    if batch.memory is not None:
        span = slice(*batch.memory.bounds_R1[number : number + 2].tolist())
        places = batch.memory.positions_N[span].tolist()
        tokens = batch.memory.tokens_N[span].tolist()
        if tokens:
            found.append(Section("memory", [spell(t, p) for t, p in zip(tokens, places, strict=True)]))
    return found


class _Speller:
    """Token ids to what people read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.special_ids)
        self._ends = set(_ends(tokenizer).tolist())

    def __call__(self, token: int, position: int) -> Piece:
        kind: Kind = "end" if token in self._ends else "special" if token in self._special else "text"
        return Piece(self._text(token).translate(_VISIBLE), token, position, kind)

    def _text(self, token: int) -> str:
        """The characters; of a piece of a character or of a word, the vocabulary's own spelling."""
        spelled = self._tokenizer.token_of(token) or f"[{token}]"
        if token in self._special or spelled.startswith("##"):
            return spelled
        if spelled.startswith("▁"):
            return " " + spelled[1:]
        decoded = self._tokenizer.decode([token], skip_special=False)
        if not decoded or "\N{REPLACEMENT CHARACTER}" in decoded:
            return spelled
        return f" {decoded}" if self._tokenizer.kind in _SPACES_UNWRITTEN else decoded


def write_page(found: Look, path: Path) -> None:
    """The look as one HTML page that stands alone, whole or not at all."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["css"] = Markup(files("foundling.core").joinpath("report.css").read_text(encoding="utf-8"))
    template = files("foundling.train").joinpath("show.html.jinja").read_text(encoding="utf-8")
    write_text(path, environment.from_string(template).render(look=found))
