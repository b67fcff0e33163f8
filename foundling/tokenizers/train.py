"""`train_tokenizer`: texts to a tokenizer folder, skipped where it already stands for the same texts and settings."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.core.files import artefact_key, is_current
from foundling.core.log import logger
from foundling.tokenizers.base import Tokenizer, TokenizerConfig, load_tokenizer


def train_tokenizer(
    texts: Iterable[str],
    config: TokenizerConfig,
    out: Path | None,
    *,
    inputs: dict[str, str],
    replace: bool = False,
) -> Tokenizer:
    """A tokenizer trained on a stream of texts, saved to the folder `out` (None: not saved).

    inputs: what the texts are, name -> sha256 or key. With the same inputs and settings as the folder's manifest says,
    nothing is read or trained. replace: whether another tokenizer at `out` may be overwritten; anything else that
    stands there is a UserError. The same texts and settings give the same file.
    """
    settings = tokenizer_settings(config)
    if out is not None:
        if is_current(out, "tokenizer", artefact_key("tokenizer", settings, inputs)):
            logger.info("tokenizer: %s is up to date", out)
            return load_tokenizer(out)
        check_free(out, replace)
    counted = _Counted(texts)
    tokenizer = config.build().train(counted)
    if out is not None:
        counts = {"documents": counted.num_documents, "characters": counted.num_characters}
        tokenizer.save(out, settings=settings, inputs=inputs, counts=counts)
    return tokenizer


def tokenizer_settings(config: TokenizerConfig) -> dict[str, Any]:
    """What decides a tokenizer beside its texts: the config, and the library whose algorithm it is."""
    return {**resolved(config), "tokenizers": tokenizers.__version__}


def check_free(out: Path, replace: bool) -> None:
    """UserError where a tokenizer must not be written: something else stands there, or a tokenizer without replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / "tokenizer.json").exists():
        raise UserError("a tokenizer must be written to a new folder", got=f"{out}, which holds something else")
    if not replace:
        raise UserError(
            "a tokenizer must not silently take another's place",
            got=f"{out}, trained on other text or with other settings",
            do="name another folder, or allow it with --replace",
        )


class _Counted:
    """Passes texts on and counts them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.num_documents = 0
        self.num_characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_documents += 1
            self.num_characters += len(text)
            yield text
