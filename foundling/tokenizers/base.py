"""`Tokenizer`: text to ids and back, saved in the Hugging Face layout; `load_tokenizer` reads any such folder.

`tokenizer.json` is the exchange format of the `tokenizers` library; `transformers.AutoTokenizer`, vLLM and others read
the same folder.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import numpy as np
import tokenizers
from annotated_types import Ge
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, read_json, sha256_of, whole_folder, write_json, write_manifest, write_text
from foundling.core.units import Count
from foundling.tokenizers._pieces import PieceEncoder
from foundling.tokenizers.aligned import WordEncoder, WordTokens

Role = Literal["bos", "eos", "pad", "unk", "mask", "cls", "sep"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What special tokens are for; `{role}_token` is their key in the Hugging Face files."""

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
_UNLIMITED = 10**30
"""`model_max_length` of a tokenizer that knows no limit: the value that transformers writes."""


class Trainer(Protocol):
    """What a part's `Config.build()` returns."""

    def train(self, texts: Iterable[str]) -> "Tokenizer":
        """A tokenizer learned from a stream of texts; UserError where they cannot fill the vocabulary."""
        ...


@dataclass(frozen=True)
class SpecialTokens:
    """Role -> token text, for example `{"eos": "<|endoftext|>"}`; one token may have several roles."""

    by_role: dict[Role, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert set(self.by_role) <= set(ROLES), self.by_role

    @property
    def distinct(self) -> list[str]:
        """The tokens, each once, in the order of their first role."""
        return list(dict.fromkeys(self.by_role.values()))


class TokenizerConfig(PartConfig):
    """What every kind of tokenizer is told."""

    vocab_size: Annotated[Count, Ge(2)] = 16_000
    """Tokens in the vocabulary, special tokens included. The text must be able to fill it."""

    special_tokens: dict[Role, str] = Field(default_factory=dict)
    """Role (bos, eos, pad, unk, mask, cls, sep) -> token. Given roles are laid over the kind's own."""

    extra_tokens: list[str] = Field(default_factory=list)
    """Further special tokens that have no role, such as the marks of a chat."""

    @property
    def special(self) -> SpecialTokens:
        """The kind's own special tokens with the given ones laid over them."""
        return SpecialTokens({**self.default_special, **self.special_tokens})

    @property
    def default_special(self) -> dict[Role, str]:
        """The special tokens of the kind."""
        raise NotImplementedError

    @property
    def reserved(self) -> list[str]:
        """All special tokens, each once, in the order of their ids from 0."""
        return list(dict.fromkeys([*self.special.distinct, *self.extra_tokens]))

    def build(self) -> Trainer:
        """The trainer of this kind."""
        raise NotImplementedError


def added(tokens: list[str]) -> list[tokenizers.AddedToken]:
    """Special tokens for the library: found before normalization."""
    return [tokenizers.AddedToken(token, special=True, normalized=False) for token in tokens]


@contextmanager
def _told(texts: Iterable[str]) -> Iterator[None]:
    """UserError where encoding fails because a text holds half a surrogate pair, which no UTF-8 can spell: Python has
    them of command lines in other encodings, and JSON may."""
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    "a text must hold whole characters (UTF-8)",
                    got=f"{text[error.start]!a} at character {error.start}",
                ) from None
        raise


class Tokenizer:
    """A trained tokenizer.

    raw: the tokenizer of the `tokenizers` library. special: its special tokens by role. kind: name of the part that
    made it, or of the model inside a foreign file (`bpe`, `wordpiece`, `unigram`, `wordlevel`). max_length: the
    longest sequence its model takes, in tokens, None where unknown. chat_template: Jinja source, None where there is
    none. A special token whose text stands in a document is ordinary text to `encode`, unless `special=True`.
    """

    def __init__(
        self,
        raw: tokenizers.Tokenizer,
        special: SpecialTokens,
        *,
        kind: str,
        max_length: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        raw.no_truncation()
        raw.no_padding()
        self._json = raw.to_str(pretty=True)
        self._raw = raw
        self._raw.encode_special_tokens = True
        self.special = special
        self.kind = kind
        self.max_length = max_length
        self.chat_template = chat_template
        self.vocab_size: int = max(raw.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the largest id: the rows that an embedding needs."""
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)
        """The smallest unsigned integer type that holds every id."""
        missing = [token for token in special.distinct if raw.token_to_id(token) is None]
        if missing:
            raise UserError("every special token must be in the vocabulary", got=f"{', '.join(missing)}, which is not")

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 of `tokenizer.json` as `save` writes it: the tokenizer's identity."""
        return hashlib.sha256(self._json.encode()).hexdigest()

    @cached_property
    def _reads_special(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self._json)

    @cached_property
    def _pieces(self) -> PieceEncoder:
        return PieceEncoder(self._raw, self.dtype)

    @cached_property
    def _by_word(self) -> WordEncoder:
        return WordEncoder(self._json)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text.

        special: special tokens written in the text are read as such, and those that frame a text (`[CLS] ... [SEP]`)
        are added; otherwise the ids stand for the text alone.
        """
        with _told([text]):
            if special:
                return self._reads_special.encode(text).ids
            return self._raw.encode(text, add_special_tokens=False).ids

    def encode_rendered(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a chat template's text, int64 [T], and the character where each begins, int64 [T]. Special tokens
        in it are read as such, and none are added."""
        with _told([text]):
            found = self._reads_special.encode(text, add_special_tokens=False)
        return np.array(found.ids, dtype=np.int64), np.array([start for start, _ in found.offsets], dtype=np.int64)

    def encode_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a text as `encode` gives them, int64 [T], and the characters that each stands for, int64 [T, 2]:
        the place of the first, and of the first behind them, without white space around.

        A token of white space alone stands for none (both places are one). Tokens that spell one character together
        stand for it each.
        """
        with _told([text]):
            found = self._raw.encode(text, add_special_tokens=False)
        offsets = np.array(found.offsets, dtype=np.int64).reshape(-1, 2)
        for token, (start, end) in enumerate(offsets.tolist()):
            piece = text[start:end]
            if piece[:1].isspace() or piece[-1:].isspace():
                end -= len(piece) - len(piece.rstrip())
                offsets[token] = min(end, start + len(piece) - len(piece.lstrip())), end
        return np.array(found.ids, dtype=np.int64), offsets

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as `encode` gives them, as arrays of `dtype` `[num_tokens]`; fast, for many texts."""
        with _told(texts):
            return self._pieces.encode_batch(list(texts))

    def encode_words(self, texts: Sequence[str], words: Sequence[Sequence[tuple[int, int]]]) -> list[WordTokens]:
        """The ids of each text, with the word that each is of: no token reaches from one word into another.

        words: of each text, (first character, character after the last), in order, none inside another. A word may
        have no token, where the tokenizer drops all its characters.
        """
        with _told(texts):
            return self._by_word(texts, words)

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special: bool = True) -> str:
        """The text of ids; special tokens are left out, or written with skip_special=False."""
        return self._raw.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def id_of(self, token: str) -> int | None:
        """The id of a token's text, None where the vocabulary lacks it."""
        return self._raw.token_to_id(token)

    def token_of(self, token_id: int) -> str | None:
        """The token's text as the vocabulary spells it (byte-level alphabet, `##`, `▁`), None for an unused id."""
        return self._raw.id_to_token(token_id)

    def _role(self, role: Role) -> int | None:
        token = self.special.by_role.get(role)
        return None if token is None else self._raw.token_to_id(token)

    @property
    def eos_id(self) -> int | None:
        return self._role("eos")

    @property
    def bos_id(self) -> int | None:
        return self._role("bos")

    @property
    def pad_id(self) -> int | None:
        return self._role("pad")

    @property
    def unk_id(self) -> int | None:
        return self._role("unk")

    @property
    def mask_id(self) -> int | None:
        return self._role("mask")

    @property
    def cls_id(self) -> int | None:
        return self._role("cls")

    @property
    def sep_id(self) -> int | None:
        return self._role("sep")

    @property
    def special_ids(self) -> list[int]:
        """The ids of all special tokens, sorted."""
        return sorted(i for i, token in self._raw.get_added_tokens_decoder().items() if token.special)

    @property
    def json(self) -> str:
        """The text of `tokenizer.json`."""
        return self._json

    def unknown(self, ids: np.ndarray) -> np.ndarray:
        """Which ids [T] stand for text that the tokenizer does not know, bool [T]. Of byte-level tokenizers that name
        their end token for it none do."""
        if self.unk_id is None or self.unk_id in (self.eos_id, self.bos_id, self.pad_id, self.sep_id):
            return np.zeros(len(ids), dtype=bool)
        return ids == self.unk_id

    def write_files(self, folder: Path, *, most: int | None = None) -> None:
        """Writes the tokenizer's files, without a manifest, into a folder that exists (a model's, for example). most:
        tokens that the model has positions for."""
        limits = [limit for limit in (self.max_length, most) if limit]
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": min(limits, default=_UNLIMITED),
            "clean_up_tokenization_spaces": False,
            **{f"{role}_token": self.special.by_role[role] for role in ROLES if role in self.special.by_role},
        }
        write_text(folder / TOKENIZER_FILE, self._json)
        write_json(folder / CONFIG_FILE, config)
        if self.chat_template is not None:
            write_text(folder / TEMPLATE_FILE, self.chat_template)

    def save(
        self,
        folder: Path,
        *,
        settings: Any = None,
        inputs: dict[str, str] | None = None,
        counts: dict[str, Any] | None = None,
    ) -> None:
        """Writes a tokenizer folder, whole or not at all: the Hugging Face files and a manifest.

        settings, inputs, counts: what the manifest says about its making.
        """
        with whole_folder(folder) as temporary:
            self.write_files(temporary)
            described = {"kind": self.kind, "vocab_size": self.vocab_size, "sha256": self.sha256, **(counts or {})}
            write_manifest(temporary, "tokenizer", settings=settings, inputs=inputs or {}, counts=described)


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer of a folder with a `tokenizer.json`, ours or anybody's; UserError for anything else.

    Special tokens are read from `tokenizer_config.json` and `special_tokens_map.json`.
    """
    folder = Path(folder)
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise UserError(f"a tokenizer folder must hold a {TOKENIZER_FILE}", got=str(folder))
    _verify(folder, path)
    try:
        raw = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception for every fault of the file
        raise UserError(f"{path} must be a tokenizer file of the `tokenizers` library", got=_one_line(error)) from error
    config = _mapping(folder / CONFIG_FILE)
    named = {**_mapping(folder / "special_tokens_map.json"), **config}
    by_role: dict[Role, str] = {}
    for role in ROLES:
        token = named.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and raw.token_to_id(token) is not None:
            by_role[role] = token
    limit = config.get("model_max_length")
    return Tokenizer(
        raw,
        SpecialTokens(by_role),
        kind=_kind(folder, raw),
        max_length=int(limit) if isinstance(limit, int | float) and 0 < limit < 10**9 else None,
        chat_template=_chat_template(folder, config),
    )


def _verify(folder: Path, path: Path) -> None:
    """Our own folders know what their `tokenizer.json` must be."""
    if not (folder / MANIFEST).exists():
        return
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files", {}).get(TOKENIZER_FILE, {}) if isinstance(manifest, dict) else {}
    if "sha256" in listed and listed["sha256"] != sha256_of(path):
        raise UserError(f"{path} is damaged: its sha256 is not the manifest's", do="train or copy the tokenizer again")


def _kind(folder: Path, raw: tokenizers.Tokenizer) -> str:
    if (folder / MANIFEST).exists():
        manifest = read_json(folder / MANIFEST)
        kind = manifest.get("counts", {}).get("kind") if manifest.get("kind") == "tokenizer" else None
        if isinstance(kind, str):
            return kind
    return json.loads(raw.to_str())["model"]["type"].lower()


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # older files: named templates
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object", got=type(value).__name__)
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
