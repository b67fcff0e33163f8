"""A classifier trained from sets of examples that the user gives, and how good it is on examples that it never saw."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from foundling.core.config import Strict, resolved
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, artefact_key, hash_of, holds, is_current, read_json, whole_folder
from foundling.core.files import write_manifest as write_folder_manifest
from foundling.core.log import logger
from foundling.core.units import Count
from foundling.corpus.build import Config as CorpusConfig
from foundling.corpus.build import build_corpus
from foundling.corpus.folder import KIND as CORPUS
from foundling.corpus.folder import open_corpus
from foundling.corpus.linear import KIND, Features, LinearModel, fit, load_linear

_FEWEST_EXAMPLES = 20
_FORMAT_VERSION = 1


class Config(Strict):
    """How a classifier is trained. The defaults suit a few hundred to a few hundred thousand examples."""

    num_buckets: Annotated[Count, Field(ge=1024, le=1 << 28)] = 1 << 18
    """Buckets that n-grams are hashed into; the folder takes 4 bytes for each bucket and class."""
    max_ngram: Annotated[int, Field(ge=1, le=8)] = 2
    """Longest n-gram of words."""
    max_ngram_cjk: Annotated[int, Field(ge=1, le=8)] = 3
    """Longest n-gram of characters, for texts in scripts without spaces between words."""
    max_characters: Annotated[Count, Field(ge=1)] = 20_000
    """Characters of a text's beginning that are read."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the examples."""
    rate: Annotated[float, Field(gt=0)] = 0.3
    """AdaGrad's step."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the examples that are not trained on but measured, in (0, 1)."""
    max_examples: Annotated[Count, Field(ge=1)] = 200_000
    """Most examples of a class; of more, the first are taken."""
    seed: int = 0
    """Decides the order of the examples and which are held out."""


def train_classifier(
    examples: Mapping[str, Sequence[Path | str]], out: Path, config: Config, *, replace: bool = False
) -> dict[str, Any]:
    """Trains a classifier, measures it on examples held out, and writes its folder. Returns the manifest.

    examples: label -> corpus folders, folders, files or globs, as for `build_corpus`. Raises UserError for fewer than
    two labels, labels with fewer than 20 examples, and inputs that cannot be read.
    """
    if len(examples) < 2:
        raise UserError("a classifier needs at least two sets of examples", got=", ".join(examples) or "none")
    labels = sorted(examples)
    texts = {label: _texts(label, examples[label], config.max_examples) for label in labels}
    settings = {**resolved(config), "labels": labels, "format_version": _FORMAT_VERSION}
    features = Features(config.num_buckets, config.max_ngram, config.max_ngram_cjk, config.max_characters)
    settings["features"] = vars(features) | {}
    inputs = {label: hash_of([sha256(text.encode()).hexdigest() for text in texts[label]]) for label in labels}
    if is_current(out, KIND, artefact_key(KIND, settings, inputs)):
        logger.info("%s is up to date", out)
        return dict(read_json(out / MANIFEST))
    if out.exists() and any(out.iterdir()) and not (replace and holds(out, KIND)):
        raise UserError(
            f"{out} must not exist", got="a folder with other things", do="choose another --out, or --replace it"
        )
    train, held = _split(texts, labels, config)
    model = fit(
        [text for text, _ in train],
        [label for _, label in train],
        labels,
        features,
        epochs=config.epochs,
        rate=config.rate,
        seed=config.seed,
    )
    counts = {"num_train": len(train), **_measured(model, held)}
    counts["num_examples"] = {label: len(texts[label]) for label in labels}
    with whole_folder(out) as folder:
        model.save(folder)
        return write_folder_manifest(folder, KIND, settings=settings, inputs=inputs, counts=counts)


def _texts(label: str, sources: Sequence[Path | str], most: int) -> list[str]:
    """Different texts of one class; raw files are read as a corpus is, without cleaning."""
    found: dict[str, None] = {}
    raw = [source for source in sources if not holds(Path(source), CORPUS)]
    for source in sources:
        if source not in raw:
            found.update(dict.fromkeys(d.text for d in islice(open_corpus(Path(source)).documents(), most)))
    if raw:
        with tempfile.TemporaryDirectory() as temporary:
            plain = CorpusConfig.model_validate({"steps": "plain", "valid_fraction": 0})
            corpus = build_corpus(raw, Path(temporary) / "examples", plain)
            found.update(dict.fromkeys(d.text for d in islice(corpus.documents(), most)))
    if len(found) < _FEWEST_EXAMPLES:
        raise UserError(
            f"a set of examples must hold at least {_FEWEST_EXAMPLES} different texts",
            got=f"{len(found)} for {label!r}",
        )
    return list(islice(found, most))


def _split(
    texts: Mapping[str, Sequence[str]], labels: Sequence[str], config: Config
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(train, held out), by a hash of the text: the same text never stands on both sides."""
    train: list[tuple[str, int]] = []
    held: list[tuple[str, int]] = []
    for number, label in enumerate(labels):
        shares = {text: _share(text, config.seed) for text in texts[label]}
        away = {text for text, share in shares.items() if share < config.held_out}
        if not away or len(away) == len(shares):  # chance, among few examples
            away = {min(shares, key=shares.__getitem__)}
        train += [(text, number) for text in shares if text not in away]
        held += [(text, number) for text in away]
    shared = len(train) + len(held) - len({text for text, _ in train + held})
    if shared:
        logger.warning("%d texts are examples of more than one class", shared)
    return train, sorted(held, key=lambda pair: (pair[1], _share(pair[0], config.seed)))


def _share(text: str, seed: int) -> float:
    digest = sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _measured(model: LinearModel, held: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Figures on the examples held out, for the manifest and the user."""
    probabilities_NC = np.stack([model.probabilities(text) for text, _ in held])
    truth_N = np.array([label for _, label in held])
    told_N = probabilities_NC.argmax(axis=1)
    confusion_CC = np.zeros((len(model.labels), len(model.labels)), int)
    np.add.at(confusion_CC, (truth_N, told_N), 1)
    right = int((told_N == truth_N).sum())
    low, high = wilson(right, len(held))
    classes = {}
    for number, label in enumerate(model.labels):
        hits = int(confusion_CC[number, number])
        classes[label] = {
            "num_held_out": int(confusion_CC[number].sum()),
            "recall": hits / max(1, int(confusion_CC[number].sum())),
            "precision": hits / max(1, int(confusion_CC[:, number].sum())),
        }
    return {
        "num_held_out": len(held),
        "accuracy": right / len(held),
        "accuracy_interval": [low, high],
        "log_loss_nats": float(-np.log(np.maximum(probabilities_NC[np.arange(len(held)), truth_N], 1e-12)).mean()),
        "classes": classes,
        "confusion": {
            label: {told: int(n) for told, n in zip(model.labels, row, strict=True)}
            for label, row in zip(model.labels, confusion_CC, strict=True)
        },
    }


def wilson(num_right: int, num: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share (1927), at 95 % by default: sound for few examples and near 0 or 1."""
    share = num_right / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    reach = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return max(0.0, middle - reach), min(1.0, middle + reach)


__all__ = ["KIND", "Config", "load_linear", "train_classifier", "wilson"]
