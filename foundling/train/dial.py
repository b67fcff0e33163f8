"""One dial: `depth` alone gives a model's shape and the settings to train it with.

Width is 64 per layer and a head is 64 wide, so depth 6 is 6 layers x 384. Matrix sizes then grow with the square of the
depth and weights with its cube. Rates follow 1/width, as the updates of AdamW ask for (Yang et al. 2022,
arXiv:2203.03466, table 3) and three depths have shown (docs/log.md); the batch grows with the power 0.383 of the
tokens (Bergsma et al. 2025, arXiv:2505.13738), which grow with the weights at 20 a weight
(Hoffmann et al. 2022, arXiv:2203.15556).
"""

import math

HEAD_WIDTH = 64
TOKENS_PER_WEIGHT = 20
_REFERENCE_WIDTH = 192
_REFERENCE_LR = 1.4e-3  # at depth 3, with an eightfold embedding rate (docs/log.md)
_REFERENCE_TOKENS = 1_000_000
_REFERENCE_BATCH = 2_048


def shape_of_depth(depth: int) -> dict[str, int]:
    """Layers, width and heads of a model of this depth."""
    return {"layers": depth, "width": HEAD_WIDTH * depth, "heads": depth}


def default_lr(width: int, *, goes_on: bool = False) -> float:
    """Peak rate of AdamW for a model of this width; goes_on: a tenth of it, since what trained weights know is not
    to be lost."""
    factor = 0.1 if goes_on else 1.0
    return float(f"{factor * _REFERENCE_LR * _REFERENCE_WIDTH / width:.2g}")


def default_finetuning_lr(width: int, *, pretrained: bool = True) -> float:
    """Peak rate of AdamW for fine-tuning a body of this width: 5e-5 at BERT-base's 768; of one that is not pretrained
    that of pretraining."""
    if not pretrained:
        return default_lr(width)
    return float(f"{5e-5 * math.sqrt(768 / width):.2g}")


def default_tokens(num_weights: int) -> int:
    """Training length in tokens for a model with so many weights."""
    return TOKENS_PER_WEIGHT * num_weights


def default_batch_tokens(num_tokens: int) -> int:
    """Batch in tokens for a run of so many tokens: a power of two, at least 2,048."""
    wanted = _REFERENCE_BATCH * (num_tokens / _REFERENCE_TOKENS) ** 0.383
    return max(_REFERENCE_BATCH, 2 ** round(math.log2(wanted)))


def default_row_length(depth: int) -> int:
    """Tokens of a row: 256 for small models, 1024 from depth 12."""
    return 256 if depth < 8 else 512 if depth < 12 else 1024
