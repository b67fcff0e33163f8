"""`foundling tokenizer`: train a tokenizer on a corpus or on raw text, extend one, and see what it does to texts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foundling.corpus.folder import Corpus
    from foundling.tokenizers.base import Tokenizer

app = typer.Typer(no_args_is_help=True, help="Train and examine tokenizers.", rich_markup_mode="markdown")

_MAX_REPORTED = 2000
"""Documents that the report after training looks at."""


@app.command(
    epilog="Example: `foundling tokenizer train corpora/mine --kind bpe --vocab-size 16K --out tokenizers/bpe-16k`"
)
def train(
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS... [key=value ...]",
            help="A corpus folder, or files and folders of raw text; and settings as key=value.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The tokenizer folder to write.")],
    kind: Annotated[str, typer.Option(help="bpe, wordpiece, unigram, char or words.")] = "bpe",
    vocab_size: Annotated[
        str | None, typer.Option(help="Tokens, special tokens included: 8000, 16K, ...; None: the kind's own.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a tokenizer there that was made from other text or settings.")
    ] = False,
) -> None:
    """Trains on the documents of the corpus's train split and writes a folder in the Hugging Face layout.

    Raw text is cleaned as `pretrain` does it (steps=plain). Settings (by kind): special_tokens,
    extra_tokens, min_count, lowercase, coverage, max_piece.
    """
    from foundling.core.config import override, validate
    from foundling.core.log import console
    from foundling.core.registry import load_part
    from foundling.corpus.settings import is_there
    from foundling.tokenizers.train import train_tokenizer

    assignments = [text for text in corpus if "=" in text and not is_there(text)]
    paths = [Path(text) for text in corpus if text not in assignments]
    given = {"kind": kind} if vocab_size is None else {"kind": kind, "vocab_size": vocab_size}
    config = validate(load_part("tokenizers", kind).Config, override(given, assignments), "tokenizer")
    with _opened(paths, out.parent, cleaned=True) as opened:
        texts = (document.text for document in opened.documents("train"))
        with console.status(f"training {kind}"):
            tokenizer = train_tokenizer(texts, config, out, inputs={"corpus": opened.key}, replace=replace)
        _show(tokenizer, opened, out)
    console.print(f"[dim]tokenizer: {out}[/]", soft_wrap=True)


@app.command(epilog="Example: `foundling tokenizer report tokenizers/bpe-16k --text news.jsonl`")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with a tokenizer.json, ours or anybody's.")],
    text: Annotated[Path, typer.Option(help="A corpus folder, or a file or folder of raw text.")],
) -> None:
    """Prints bytes per token, tokens per word, unknowns, round trip over the text, by source, domain and language."""
    from foundling.tokenizers.base import load_tokenizer

    tokenizer = load_tokenizer(folder)
    with (
        TemporaryDirectory(prefix="foundling-") as temporary,
        _opened([text], Path(temporary), cleaned=False) as opened,
    ):
        _show(tokenizer, opened, None)


@app.command(epilog="Example: `foundling tokenizer extend models/bert --words terms.txt --out tokenizers/medical`")
def extend(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with a tokenizer.json, such as a model's.")],
    out: Annotated[Path, typer.Option(help="The tokenizer folder to write.")],
    words: Annotated[Path | None, typer.Option(help="A text file, one new word a line.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Instead of words: a corpus folder or raw text to take them from.")
    ] = None,
    add: Annotated[int, typer.Option(min=1, help="With --corpus: so many words at most.")] = 1000,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a tokenizer that stands there.")] = False,
) -> None:
    """Adds words that are now cut into many pieces. A model goes on with them by
    `model.from=MODEL tokenizer.path=DIR tokenizer.extend=true`.
    """
    from foundling.core.errors import UserError
    from foundling.core.log import console
    from foundling.tokenizers.base import load_tokenizer
    from foundling.tokenizers.extend import extend_tokenizer, read_words, words_worth_a_token
    from foundling.tokenizers.train import check_free

    if (words is None) == (corpus is None):
        raise UserError("give one of --words and --corpus", got="neither" if words is None else "both")
    old = load_tokenizer(folder)
    check_free(out, replace)
    if words is not None:
        chosen = read_words(words)
    else:
        assert corpus is not None
        with (
            TemporaryDirectory(prefix="foundling-") as temporary,
            _opened([corpus], Path(temporary), cleaned=True) as opened,
        ):
            chosen = words_worth_a_token(old, (document.text for document in opened.documents("train")), add)
    new = extend_tokenizer(old, chosen)
    new.save(out, settings={"words": chosen}, inputs={"tokenizer": old.sha256})
    examples = ", ".join(str(new.token_of(i)) for i in range(old.vocab_size, min(new.vocab_size, old.vocab_size + 8)))
    console.print(f"{new.vocab_size - old.vocab_size:,} new tokens: {examples}, ...", markup=False, soft_wrap=True)
    console.print(f"[dim]tokenizer: {out}[/]", soft_wrap=True)


def _show(tokenizer: "Tokenizer", corpus: "Corpus", out: Path | None) -> None:
    """Prints the report, over the first documents and into the folder where there is one (after training)."""
    from foundling.core.log import console
    from foundling.tokenizers.report import examine

    split = "valid" if out is not None and corpus.num_documents("valid") else None
    found = examine(tokenizer, corpus.documents(split), _MAX_REPORTED if out is not None else None)
    console.print(found.table())
    for line in found.remarks():
        console.print(line, markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"[dim]report: {found.save(out)}[/]", soft_wrap=True)


@contextmanager
def _opened(paths: list[Path], beside: Path, *, cleaned: bool) -> "Iterator[Corpus]":
    """The corpus in a folder, or one made of raw text that is gone afterwards.

    cleaned: as `pretrain` does it (steps=plain); otherwise every character stays as it is and every document counts.
    """
    from foundling.core.errors import UserError
    from foundling.core.files import MANIFEST, holds
    from foundling.corpus.build import Config, build_corpus, preset
    from foundling.corpus.folder import KIND, open_corpus

    if not paths:
        raise UserError("a corpus folder or raw text must be named", got="settings alone")
    if len(paths) == 1 and (paths[0] / MANIFEST).exists():
        yield open_corpus(paths[0])
        return
    if corpora := [path for path in paths if holds(path, KIND)]:
        raise UserError(
            "one corpus folder may be named, or raw text",
            got=f"{len(paths)} sources, {corpora[0]} among them a corpus folder",
            do="make one of them: foundling corpus build A B --out C",
        )
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".foundling-corpus-", dir=beside) as temporary:
        config = Config(steps=preset("plain")) if cleaned else Config(steps=[], valid_fraction=0)
        yield build_corpus(paths, Path(temporary) / "corpus", config)
