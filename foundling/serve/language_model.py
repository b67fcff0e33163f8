"""`load(MODEL)`: a model and its tokenizer as one thing that answers."""

# Shapes: T = tokens, V = vocabulary.

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.data.batch import rows_batch
from foundling.evaluation.perplexity import document_end, perplexity
from foundling.models.gpt import Config, Gpt
from foundling.models.hub import load_model
from foundling.models.seq2seq import Seq2Seq
from foundling.serve.begin import check_ids
from foundling.serve.detokenize import StreamDecoder
from foundling.serve.generate import generate
from foundling.serve.source_model import SourceModel
from foundling.tokenizers.base import Tokenizer, load_tokenizer

_ID_FILES = ("generation_config.json", "config.json")


def find_model_dir(path: Path | str) -> Path:
    """The model folder that MODEL means: the folder itself, or the `model/` inside a run folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError("MODEL must be a run folder, a model folder or a Hugging Face folder", got=f"{path}, no folder")
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if (path / "recipe.yaml").is_file():
        raise UserError(f"the run folder {path} must hold a model/", got="none yet", do="finish the run (--resume)")
    raise UserError(f"{path} must be a run folder with a model/, or hold a config.json", got="neither")


def load(
    path: Path | str, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> "LanguageModel | SourceModel":
    """The language model of a run folder, a model folder or any Hugging Face folder of a known family.

    device: None: a CUDA device where there is one, else the CPU. dtype: of the weights. UserError: no such folder, a
    family or config we do not compute, faulty weights, no tokenizer, one with more ids than the model.
    """
    folder = find_model_dir(path)
    model = load_model(folder, dtype=dtype)
    tokenizer = load_tokenizer(folder)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(model, Seq2Seq):
        return SourceModel(model.to(chosen).eval(), tokenizer, stop_ids=_stop_ids(folder))
    if not isinstance(model, Gpt):
        raise UserError("MODEL must be a decoder that generates text", got=f"a {type(model).__name__} in {folder}")
    return LanguageModel(model.to(chosen).eval(), tokenizer, stop_ids=_stop_ids(folder))


def _stop_ids(folder: Path) -> frozenset[int]:
    """The ids that end a text by the folder's own word; generation_config.json goes before config.json."""
    for name in _ID_FILES:
        data = read_json(folder / name) if (folder / name).is_file() else {}
        ids = data.get("eos_token_id") if isinstance(data, dict) else None
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()


class LanguageModel:
    """A decoder with its tokenizer."""

    def __init__(self, model: Gpt, tokenizer: Tokenizer, *, stop_ids: frozenset[int] = frozenset()) -> None:
        """stop_ids: ids that end a text besides the tokenizer's eos."""
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer of a model of {model.config.vocab_size} ids must have at most as many",
                got=tokenizer.vocab_size,
                do="use the tokenizer that the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids if tokenizer.eos_id is None else stop_ids | {tokenizer.eos_id}

    @property
    def config(self) -> Config:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.embedding.weight.device

    @cached_property
    def _prefix(self) -> list[int]:
        """The bos token where the tokenizer itself puts one before every text, as Llama's does."""
        bos = self.tokenizer.bos_id
        return [bos] if bos is not None and bos in self.tokenizer.encode("", special=True) else []

    def prompt_ids(self, text: str) -> list[int]:
        """The ids that a prompt becomes: its own, after a bos where the tokenizer adds one to every text.

        An empty prompt is the beginning of a document: that bos, else the token between documents in training (eos,
        else sep), else bos. Special tokens written in the text are ordinary text.
        """
        ids = self._prefix + self.tokenizer.encode(text)
        if ids:
            return ids
        if self.tokenizer.eos_id is None and self.tokenizer.sep_id is None and self.tokenizer.bos_id is not None:
            return [self.tokenizer.bos_id]
        return [document_end(self.tokenizer)]

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Logits fp32 [T, V] after each of T ids, on the CPU, without gradients. At most `max_positions` ids."""
        listed = [int(i) for i in ids]
        check_ids(self.model, listed)
        if len(listed) > self.config.max_positions:
            raise UserError(f"there must be at most {self.config.max_positions} ids", got=len(listed))
        tokens_1T = torch.tensor([listed])
        with torch.inference_mode():
            return self.model(rows_batch(tokens_1T, tokens_1T).to(self.device)).logits().float().cpu()

    def stream(self, text: str, *, max_tokens: int = 200, **settings: Any) -> Iterator[str]:
        """The continuation of a text in pieces, as they become whole characters.

        settings: temperature, top_k, top_p, min_p, repetition_penalty, seed, as for `generate.generate`. It ends at a
        stop id or after max_tokens. Faults are told at once, not at the first piece.
        """
        if unknown := sorted(settings.keys() & {"stop_ids", "num_samples"}):
            raise UserError("a stream is one continuation that ends at the model's own stop ids", got=unknown)
        ids = self.prompt_ids(text)
        steps = generate(self.model, ids, max_tokens=max_tokens, stop_ids=self.stop_ids, **settings)
        return self._pieces(ids, (step[0] for step in steps))

    def _pieces(self, prompt_ids: list[int], tokens: Iterator[int | None]) -> Iterator[str]:
        decoder = StreamDecoder(self.tokenizer.decode, prompt_ids)
        for token in tokens:
            assert token is not None, "a single sample ends with its stream"
            if piece := decoder.add(token):
                yield piece
        if piece := decoder.end():
            yield piece

    def generate(self, text: str, *, max_tokens: int = 200, **settings: Any) -> str:
        """The continuation of a text, without the text itself: the whole of `stream`."""
        return "".join(self.stream(text, max_tokens=max_tokens, **settings))

    def bits_per_byte(self, text: str) -> float:
        """Bits the model needs for a byte of a text that stands as one document, its end included."""
        found = perplexity(self.model, self.tokenizer, [("", text)], row_length=self.config.max_positions, workers=0)
        return found.total.bits_per_byte
