"""What every objective must do, whoever wrote it: found by name, tried unasked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foundling.core.config import resolved
from foundling.core.registry import load_part, part_names
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.objectives.base import Objective, Scale
from tests.tiny import END, FIRST_ORDINARY, ArrayStream, tiny_model, tiny_tokenizer

KINDS = part_names("objectives")
VOCAB = 50
ZERO_GRADIENT: tuple[str, ...] = ()
"""Ends of the names of parameters whose gradient is zero by mathematics."""

UNTRAINED_LOSS = {"word2vec": (1 + 5 * 43 / 44) * np.log(2)}
"""Of objectives that do not choose among the whole vocabulary; the others': log(vocabulary). word2vec tells a target
from 5 noise words, log 2 each, less those (1 of 44 words here) that are the target itself and do not count."""

VARIANTS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in KINDS),
    {"kind": "word2vec", "mode": "cbow"},
    *({"kind": "mlm", "next": {"kind": kind}} for kind in part_names("objectives.next")),
]


@pytest.fixture(
    params=VARIANTS,
    ids=lambda data: "-".join([data["kind"], *data.get("next", {}).values(), *data.get("mode", "").split()]),
)
def config(request: pytest.FixtureRequest) -> Any:
    return load_part("objectives", request.param["kind"]).Config.model_validate(request.param)


@pytest.fixture
def objective(config: Any) -> Objective:
    return config.build(tiny_tokenizer(VOCAB))


@pytest.fixture
def net(config: Any) -> Any:
    """A tiny model of the first family that the objective can train, with the heads that it asks for."""
    family = next(f for f in part_names("models") if config.kind in load_part("models", f).Config.objectives)
    return tiny_model(family, VOCAB, **getattr(config, "implied", {}))


def some_rows(objective: Objective, number: int = 6) -> list[Row]:
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, VOCAB, 600)
    tokens[49::50] = END  # documents of 50 tokens
    samples = objective.samples([ArrayStream(tokens, documents=12)], None, row_length=12, seed=0)
    return [samples[i] for i in range(number)]


def total(objective: Objective, net: Any, batch: Batch, per_target: float, per_row: float) -> Tensor:
    parts = objective.loss(net, batch, Scale(per_target, per_row), False).parts
    assert all(part.shape == () and part.dtype == torch.float32 for part in parts.values())
    return torch.stack(list(parts.values())).sum()


def gradients(net: Any, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))


def test_the_shipped_ones_are_found() -> None:
    assert "causal" in KINDS


def test_config_is_documented_and_survives_its_own_dump(config: Any) -> None:
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


def test_collating_is_deterministic_and_names_its_rows(objective: Objective) -> None:
    rows = some_rows(objective)
    torch.manual_seed(1)
    one = objective.collate(rows)
    torch.manual_seed(2)
    two = objective.collate(rows)
    for name in Batch.__dataclass_fields__:
        first, second = getattr(one, name), getattr(two, name)
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second, name
    assert one.samples_R == tuple(row.sample for row in rows)
    assert len(one.sources_R) == one.num_rows
    assert one.bounds_R1[0] == 0
    assert one.bounds_R1[-1] == len(one.tokens_N)
    assert one.max_row_length == int(one.bounds_R1.diff().max())
    assert one.num_targets > 0


def test_the_loss_is_finite_and_its_gradient_reaches_every_parameter(objective: Objective, net: Any) -> None:
    loss = total(objective, net, objective.collate(some_rows(objective)), 1.0, 1.0)
    assert torch.isfinite(loss)
    assert loss > 0
    for (name, _), gradient in zip(net.named_parameters(), gradients(net, loss), strict=True):
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        if not name.endswith(ZERO_GRADIENT):
            assert gradient.abs().sum() > 0, name


def test_an_untrained_model_knows_nothing(config: Any, objective: Objective, net: Any) -> None:
    batch = objective.collate(some_rows(objective))
    wanted = UNTRAINED_LOSS.get(config.kind, np.log(VOCAB))
    assert objective.scores(net, batch)["loss"].mean().item() == pytest.approx(wanted, rel=0.05)


def test_scores_are_the_losses_of_the_targets(objective: Objective, net: Any) -> None:
    batch = objective.collate(some_rows(objective))
    losses = objective.scores(net, batch)["loss"]
    assert losses.shape == (batch.num_targets,)
    for values in objective.scores(net, batch).values():
        assert values.dtype == torch.float32
        assert values.ndim == 1
        assert not values.requires_grad
    assert total(objective, net, batch, 1.0, 0.0).item() == pytest.approx(losses.sum().item(), rel=1e-6)
    each = objective.loss(net, batch, Scale(3.0, 5.0), False).each
    assert not each.requires_grad
    torch.testing.assert_close(each, losses, atol=1e-5, rtol=1e-5)


def test_scaled_parts_add_up_to_the_whole(objective: Objective, net: Any) -> None:
    rows = some_rows(objective)
    whole = objective.collate(rows)
    per_target, per_row = 1 / whole.num_targets, 1 / whole.num_rows
    wanted = total(objective, net, whole, per_target, per_row)
    parts = [
        total(objective, net, objective.collate(part), per_target, per_row) for part in (rows[:1], rows[1:4], rows[4:])
    ]
    torch.testing.assert_close(sum(parts), wanted, atol=1e-6, rtol=1e-6)
    for one, two in zip(gradients(net, sum(parts)), gradients(net, wanted), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "mlm", "permutation", "seq2seq"])
def test_the_loss_of_tokens_has_the_shape_that_is_asked_for(kind: str) -> None:
    """By hand from logits, with their gradient; what is told of validation stays cross entropy."""
    loss = {"kind": "label_smoothing", "smoothing": 0.3, "z_loss": 0.1}
    config = load_part("objectives", kind).Config.model_validate({"kind": kind, "loss": loss})
    objective = config.build(tiny_tokenizer(VOCAB))
    family = next(f for f in part_names("models") if kind in load_part("models", f).Config.objectives)
    model = tiny_model(family, VOCAB, **getattr(config, "implied", {}), init_std=0.3)
    batch = objective.collate(some_rows(objective))
    out = model(batch)
    logits_MV = F.linear(out.hidden_MD, out.head_weight_VD, out.head_bias_V)
    smoothed = F.cross_entropy(logits_MV, batch.targets_M, label_smoothing=0.3, reduction="sum")
    wanted = 0.5 * (smoothed + 0.1 * logits_MV.logsumexp(-1).square().sum())
    found, each = objective.loss(model, batch, Scale(0.5, 1.0), False)
    assert list(found) == [kind]
    assert each.sum().item() == pytest.approx(2 * wanted.item(), rel=1e-5), "as it is trained, not as it is told"
    torch.testing.assert_close(found[kind], wanted, atol=0, rtol=1e-5)
    for one, two in zip(gradients(model, found[kind]), gradients(model, wanted), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    plain = F.cross_entropy(logits_MV, batch.targets_M, reduction="none")
    torch.testing.assert_close(objective.scores(model, batch)["loss"], plain.detach(), atol=1e-5, rtol=1e-5)
