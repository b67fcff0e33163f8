"""Numbers as golds and answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.core.errors import UserError


def numbers(values: Sequence[Any]) -> np.ndarray:
    """fp64 [N]; UserError where one is no finite number."""
    try:
        found = np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise UserError(f"golds and answers must be numbers: {error}") from error
    if not np.isfinite(found).all():
        raise UserError("golds and answers must be finite numbers", got=found[~np.isfinite(found)][0])
    return found
