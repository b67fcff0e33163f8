"""What every task and head must be: found by name, tried unasked."""

import pytest
import torch

from foundling.core.config import resolved
from foundling.core.registry import load_part, part_names
from foundling.data.batch import rows_batch
from foundling.heads.base import HeadConfig
from foundling.tasks.base import TaskConfig

TASKS, HEADS = (part_names(folder) for folder in ("tasks", "heads"))


def test_the_shipped_ones_are_found() -> None:
    assert {"classification", "ner", "relation", "qa", "translation", "summarization", "dialogue"} <= set(TASKS)
    assert {"sequence", "token", "span", "pair"} <= set(HEADS)


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_is_documented_and_survives_its_own_dump(kind: str) -> None:
    part = load_part("tasks", kind)
    config = part.Config.model_validate({"kind": kind, "train": "x.jsonl"})
    assert isinstance(config, TaskConfig)
    assert part.__doc__
    assert all(field.description for field in part.Config.model_fields.values())
    assert part.Config.model_validate(resolved(config)) == config
    assert config.metric
    assert set(config.families) <= set(part_names("models"))


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_answers_what_it_reads_and_learns_from_it(kind: str) -> None:
    config = load_part("heads", kind).Config.model_validate({"kind": kind, "num_classes": 2})
    assert isinstance(config, HeadConfig)
    assert all(field.description for field in type(config).model_fields.values())
    head = config.build(8)
    head.initialize(torch.Generator().manual_seed(0))
    tokens = torch.zeros(3, 4, dtype=torch.int64)
    hidden = torch.randn(6, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits = head(hidden, rows_batch(tokens, tokens))
    assert logits.shape[-1] == 2
    logits.square().sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum(-1).min() > 0, "a head that asks for a hidden state reads it"
    assert head.out.weight.grad is not None
