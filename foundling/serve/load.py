"""`load(MODEL)`: a model and its tokenizer as one thing that answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.models.gpt import Gpt
from foundling.models.hub import find_model_dir, load_model
from foundling.models.seq2seq import Seq2Seq
from foundling.serve.language_model import LanguageModel
from foundling.serve.source_model import SourceModel
from foundling.serve.text_model import TextModel
from foundling.tasks.folder import is_task_folder, load_task
from foundling.tokenizers.base import load_tokenizer

_ID_FILES = ("generation_config.json", "config.json")


def load(
    path: Path | str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    task: Mapping[str, Any] | None = None,
) -> TextModel:
    """What answers for the model of a run folder, a model folder or any Hugging Face folder of a known family.

    A decoder gives a `LanguageModel`, an encoder-decoder a `SourceModel`; other families a `TextModel`, which scores
    text and generates none. Where the model is fine-tuned, it answers examples too (`predict`).

    device: None: a CUDA device where there is one, else the CPU. dtype: of the weights. task: settings of its task
    that its answers shall follow, such as `{"abstain_below": 0.6}` or `{"beams": 1}`. UserError: no such folder, a
    family or config we do not compute, faulty weights, no tokenizer, one with more ids than the model.
    """
    folder = find_model_dir(path)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model: Any
    own = None
    if is_task_folder(folder):
        own, model = load_task(folder, dtype=dtype, settings=task)
        tokenizer = own.tokenizer
    elif task:
        raise UserError("settings of a task need a model that is fine-tuned for one", got=str(path))
    else:
        model, tokenizer = load_model(folder, dtype=dtype), load_tokenizer(folder)
    if isinstance(model, Seq2Seq):
        return SourceModel(model.to(chosen).eval(), tokenizer, stop_ids=_stop_ids(folder), task=own)
    if isinstance(model, Gpt):
        return LanguageModel(model.to(chosen).eval(), tokenizer, stop_ids=_stop_ids(folder), task=own)
    return TextModel(model.to(chosen).eval(), tokenizer, task=own)


def _stop_ids(folder: Path) -> frozenset[int]:
    """The ids that end a text by the folder's own word; generation_config.json goes before config.json."""
    for name in _ID_FILES:
        data = read_json(folder / name) if (folder / name).is_file() else {}
        ids = data.get("eos_token_id") if isinstance(data, dict) else None
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()
