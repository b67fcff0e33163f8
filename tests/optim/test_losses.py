"""Losses of a head's logits against torch's, one for each row."""

import pytest
import torch
from torch.nn import functional as F

from foundling.core.errors import UserError
from foundling.core.registry import load_part, part_names
from foundling.optim.losses.base import FOLDER, PLAIN, shape_of

R, C = 7, 5
KINDS = part_names(FOLDER)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(R, C, generator=generator).requires_grad_()
    return logits, torch.randint(0, C, (R,), generator=generator), torch.rand(C, generator=generator) + 0.5


def test_the_shipped_ones_are_found() -> None:
    assert {"cross_entropy", "label_smoothing", "focal", "binary_cross_entropy", "squared_error"} == set(KINDS)


@pytest.mark.parametrize("weighted", [False, True])
def test_classes(weighted: bool) -> None:
    logits, truth, weights = inputs()
    given = weights if weighted else None
    counted = weights[truth] if weighted else torch.ones(R)
    plain = F.cross_entropy(logits, truth, reduction="none")
    p = (-plain).exp()
    expected = {
        "cross_entropy": plain * counted,
        "label_smoothing": F.cross_entropy(logits, truth, reduction="none", label_smoothing=0.1) * counted,
        "focal": (1 - p) ** 2 * plain * counted,
    }
    for kind, wanted in expected.items():
        found = load_part(FOLDER, kind).Config(kind=kind).build(given).of_logits(logits, truth)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
        ours, theirs = (torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (found, wanted))
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    beside = load_part(FOLDER, "cross_entropy").Config(z_loss=0.1).build().of_logits(logits, truth)
    torch.testing.assert_close(beside, plain + 0.1 * logits.logsumexp(-1) ** 2, atol=1e-6, rtol=1e-6)


def test_an_answer_that_is_wholly_right_has_a_finite_gradient() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    loss = load_part(FOLDER, "focal").Config(gamma=0.5).build().of_logits(logits, torch.tensor([0])).sum()
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_several_classes_and_numbers() -> None:
    logits, _, weights = inputs()
    truth = (torch.rand(R, C, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    found = load_part(FOLDER, "binary_cross_entropy").Config().build(weights).of_logits(logits, truth)
    wanted = F.binary_cross_entropy_with_logits(logits, truth, weight=weights, reduction="none").mean(1)
    torch.testing.assert_close(found, wanted)
    found = load_part(FOLDER, "squared_error").Config().build().of_logits(logits, truth)
    torch.testing.assert_close(found, F.mse_loss(logits, truth, reduction="none").mean(1))


def test_tokens_have_one_truth() -> None:
    assert shape_of(None) == PLAIN
    with pytest.raises(UserError, match="one true token"):
        shape_of(load_part(FOLDER, "squared_error").Config(kind="squared_error"))
