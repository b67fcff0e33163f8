"""Metrics as TensorBoard event files in the run folder (`tensorboard --logdir runs`)."""

from pathlib import Path
from typing import Any

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.log import Sink


class Config(PartConfig):
    kind: str = "tensorboard"
    """Name of the part."""

    def build(self, folder: Path, resumed_from: int | None) -> Sink:
        return TensorBoard(folder, resumed_from)


class TensorBoard:
    def __init__(self, folder: Path, resumed_from: int | None = None) -> None:
        """resumed_from: the last step that counts of what a killed run wrote; None: a new run."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # needs an extra package
        except ImportError as error:
            raise UserError(
                "track: tensorboard needs the package tensorboard", do="pip install foundling[tensorboard]"
            ) from error
        self._open = lambda last: SummaryWriter(str(folder), purge_step=None if last is None else last + 1)
        self._writer = self._open(resumed_from)

    def write(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        self._writer.close()
        self._writer = self._open(step)

    def close(self) -> None:
        self._writer.close()
