"""A pretrained body with a task's head: one model for the loop, for files and for answers."""

# Shapes: W = places that the head reads, C = classes, D = width.

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor, nn

from foundling.core.config import Part, PartConfig, Strict, resolved
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.heads.base import Head, HeadConfig
from foundling.models.base import Style
from foundling.nn.attention import Kernel
from foundling.nn.dropout import dropout


class TaskShape(Strict):
    """The shape of a task's model."""

    objectives: ClassVar[tuple[str, ...]] = ()
    """It predicts no text."""

    family: str
    """Family of the body: bert, gpt, xlnet."""
    body: Any
    """The family's own config, without a head of its own."""
    head: Annotated[PartConfig, Part("heads")]
    """What stands on it."""

    @field_validator("body", mode="plain")
    @classmethod
    def _of_the_family(cls, value: Any, info: Any) -> Any:
        config = load_part("models", info.data["family"]).Config
        return config.model_validate(resolved(value) if isinstance(value, Strict) else value)

    @property
    def vocab_size(self) -> int:
        return int(self.body.vocab_size)

    @property
    def layers(self) -> int:
        return int(self.body.layers)

    @property
    def width(self) -> int:
        return int(self.body.width)

    @property
    def heads(self) -> int:
        return int(self.body.heads)

    @property
    def groups(self) -> int:
        return int(self.body.groups)

    @property
    def max_positions(self) -> int:
        return int(self.body.max_positions)

    def build(self) -> "TaskModel":
        return TaskModel(self)


class TaskModel(nn.Module):
    """Call it with a `Batch` for the head's logits [W, C] at the batch's `target_index_M`; only what they need is
    computed."""

    lr_factors: ClassVar[dict[str, float]] = {}

    def __init__(self, config: TaskShape) -> None:
        super().__init__()
        assert isinstance(config.head, HeadConfig)
        self.config = config
        self.body: Any = config.body.build()
        self.head: Head = config.head.build(config.width)
        self.head.dropout = dropout(config.body.dropout)

    @property
    def parallel_plan(self) -> dict[str, Style]:
        return {f"body.{pattern}": style for pattern, style in self.body.parallel_plan.items()}

    @property
    def matrices(self) -> Mapping[str, int | None]:
        return {f"body.{pattern}": rows for pattern, rows in self.body.matrices.items()}

    def blocks(self) -> Sequence[nn.Module]:
        found: Sequence[nn.Module] = self.body.blocks()
        return found

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        self.body.set_kernel(kernel, compiled=compiled)

    def forward(self, batch: Batch) -> Tensor:
        assert batch.target_index_M is not None, "a task says which hidden states its head reads"
        logits_WC: Tensor = self.head(self.body.encode(batch, batch.target_index_M), batch)
        return logits_WC

    def initialize(self, generator: torch.Generator | None = None) -> None:
        self.body.initialize(generator)
        self.head.initialize(generator)

    def flops_per_token(self, row_length: int) -> float:
        """Of the blocks alone, every token attending to its whole row: heads are small."""
        matrices = sum(p.numel() for block in self.blocks() for p in block.parameters() if p.ndim == 2)
        return 6.0 * matrices + 12.0 * len(self.blocks()) * row_length * self.config.width


def adopted(base: Any, config: TaskShape) -> Mapping[str, Tensor]:
    """What a task's model takes from a pretrained one, by the names that it has here.

    An inner layer of the head starts from the pretrained one that does the same work, where there is one: BERT's
    pooler, ModernBERT's layer before its masked-language head. A head of two tokens finds none: its layer is wider.
    """
    if isinstance(base, TaskModel):
        return {name: p.detach() for name, p in base.named_parameters() if not name.startswith("head.out")}
    found = {f"body.{name}": parameter.detach() for name, parameter in base.named_parameters()}
    assert isinstance(config.head, HeadConfig)
    if config.head.kind == "pair":
        return found
    same_work = {
        "tanh": {"head.inner": getattr(base, "pooler", None)},
        "gelu": {"head.inner": getattr(base.head, "dense", None), "head.norm": getattr(base.head, "norm", None)}
        if getattr(base, "head", None) is not None
        else {},
        "none": {},
    }[config.head.inner]
    for ours, module in same_work.items():
        if isinstance(module, nn.Module):
            found |= {f"{ours}.{name}": parameter.detach() for name, parameter in module.named_parameters()}
    return found
