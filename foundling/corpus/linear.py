"""A linear text classifier over hashed n-grams: small, quick, and for any script.

As fastText's classifier (Joulin et al. 2017, arXiv:1607.01759) without the hidden layer: words and their n-grams are
hashed into a fixed number of buckets (Weinberger et al. 2009, arXiv:0902.2206), and a multinomial logistic regression
reads them. Where no spaces stand between words, each character is a word, so Chinese gets characters, pairs and
triples. Counts are damped by their square root and each text has length 1, so that long texts do not outweigh short
ones.

Shapes: F distinct features of a text, B buckets, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors.numpy import load_file, save_file

from foundling.core.errors import UserError
from foundling.core.files import read_manifest, verify_files
from foundling.corpus.scripts import script_of, words_of

KIND = "classifier"
WEIGHTS = "weights.safetensors"
_BATCH_TEXTS = 64
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


class _Words(dict[str, int]):
    """Hashes of words, each made once. Emptied when it has grown large, since texts bring new words without end."""

    def __missing__(self, word: str) -> int:
        if len(self) > 1 << 18:
            self.clear()
        value = self[word] = crc32(word.encode("utf-8", "surrogatepass"))
        return value


@dataclass(frozen=True)
class Features:
    """What of a text is looked at."""

    num_buckets: int
    max_ngram: int
    """Longest n-gram of words."""
    max_ngram_cjk: int
    """Longest n-gram of characters, where no spaces stand between words."""
    max_characters: int
    """Of a text's beginning that are read."""

    def of(self, text: str, words: "_Words") -> tuple[np.ndarray, np.ndarray]:
        """Bucket numbers [F] int64, ascending, and their values [F] float32, of length 1 in all."""
        text = text[: self.max_characters]
        longest = self.max_ngram_cjk if script_of(text) == "cjk" else self.max_ngram
        known = words_of(text.lower())
        ids = np.fromiter(map(words.__getitem__, known), np.uint64, len(known))
        grams, hashes = [], np.zeros_like(ids)
        for length in range(1, min(longest, len(ids)) + 1):
            num = len(ids) - length + 1
            hashes = (hashes[:num] + ids[length - 1 :] + np.uint64(length)) * _MULTIPLIER
            grams.append(hashes ^ (hashes >> _SHIFT))
        if not grams:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        buckets = (np.concatenate(grams) % np.uint64(self.num_buckets)).astype(np.int64)
        buckets_F, counts_F = np.unique(buckets, return_counts=True)
        values_F = np.sqrt(counts_F).astype(np.float32)
        return buckets_F, values_F / np.float32(np.sqrt(counts_F.sum()))


class LinearModel:
    """Weights and what they belong to. `labels`: the classes' names, in the order of the columns."""

    def __init__(self, features: Features, labels: Sequence[str], weight_BC: np.ndarray, bias_C: np.ndarray) -> None:
        self.features, self.labels = features, tuple(labels)
        self._weight_BC, self._bias_C = weight_BC, bias_C
        self._words = _Words()

    def probabilities(self, text: str) -> np.ndarray:
        """[C] float64, of sum 1."""
        buckets_F, values_F = self.features.of(text, self._words)
        return softmax(values_F @ self._weight_BC[buckets_F] + self._bias_C)

    def save(self, folder: Path) -> None:
        """Writes the weights into a folder; the manifest is the caller's."""
        save_file({"weight": self._weight_BC, "bias": self._bias_C}, folder / WEIGHTS)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def load_linear(folder: Path) -> LinearModel:
    """The classifier in a folder. Raises UserError where it is none, or damaged."""
    manifest = read_manifest(folder, KIND)
    verify_files(folder, manifest)
    tensors = load_file(folder / WEIGHTS)
    settings = manifest["settings"]
    features = Features(**settings["features"])
    labels = settings["labels"]
    if tensors["weight"].shape != (features.num_buckets, len(labels)) or tensors["bias"].shape != (len(labels),):
        raise UserError(
            f"{folder / WEIGHTS} must hold {features.num_buckets} x {len(labels)} weights",
            got=str(tensors["weight"].shape),
            do="train the classifier again",
        )
    return LinearModel(features, labels, tensors["weight"], tensors["bias"])


def fit(
    texts: Iterable[str],
    classes: Sequence[int],
    labels: Sequence[str],
    features: Features,
    *,
    epochs: int,
    rate: float,
    seed: int,
) -> LinearModel:
    """Weights by AdaGrad (Duchi et al. 2011) on batches of 64 texts; classes weigh the same whatever their numbers.

    rate: AdaGrad's step. The same input gives the same weights.
    """
    words = _Words()
    rows = [(buckets_F.astype(np.int32), values_F) for buckets_F, values_F in (features.of(t, words) for t in texts)]
    class_of = np.asarray(classes)
    num_classes = len(labels)
    class_weight_C = len(class_of) / (num_classes * np.maximum(1, np.bincount(class_of, minlength=num_classes)))
    weight_BC = np.zeros((features.num_buckets, num_classes), np.float32)
    bias_C = np.zeros(num_classes, np.float32)
    squares_BC, bias_squares_C = np.full_like(weight_BC, 1e-6), np.full_like(bias_C, 1e-6)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(order), _BATCH_TEXTS):
            chosen = order[start : start + _BATCH_TEXTS]
            lengths = [len(rows[i][0]) for i in chosen]
            buckets, at_F = np.unique(np.concatenate([rows[i][0] for i in chosen]), return_inverse=True)
            values_F = np.concatenate([rows[i][1] for i in chosen])
            row_of_F = np.repeat(np.arange(len(chosen)), lengths)
            touched_UC = weight_BC[buckets]  # U: buckets that this batch touches
            logits_RC = np.zeros((len(chosen), num_classes), np.float32) + bias_C
            np.add.at(logits_RC, row_of_F, values_F[:, None] * touched_UC[at_F])
            error_RC = softmax(logits_RC)
            error_RC[np.arange(len(chosen)), class_of[chosen]] -= 1
            error_RC *= class_weight_C[class_of[chosen], None] / len(chosen)
            gradient_UC = np.empty_like(touched_UC)
            for c in range(num_classes):
                products_F = values_F * error_RC[row_of_F, c]
                gradient_UC[:, c] = np.bincount(at_F, weights=products_F, minlength=len(buckets))
            squares_BC[buckets] += gradient_UC**2
            weight_BC[buckets] = touched_UC - rate * gradient_UC / np.sqrt(squares_BC[buckets])
            bias_gradient_C = error_RC.sum(axis=0).astype(np.float32)
            bias_squares_C += bias_gradient_C**2
            bias_C -= rate * bias_gradient_C / np.sqrt(bias_squares_C)
    return LinearModel(features, labels, weight_BC, bias_C)
