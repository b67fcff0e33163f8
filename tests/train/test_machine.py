"""What a machine is good at decides the precision, and finding it out is no wait."""

import pytest
import torch

from foundling.train import machine

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("fp32", "bf16", "taken", "big_products"),
    [
        (100.0, 1.0, "fp32", ["fp32"]),
        (100.0, 120.0, "fp32", ["fp32", "bf16"]),
        (100.0, 150.0, "bf16", ["fp32", "bf16"]),
    ],
)
def test_bf16_must_be_faster_and_is_not_waited_for(
    fp32: float, bf16: float, taken: str, big_products: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def rate(dtype: torch.dtype, device: torch.device, size: int) -> float:
        name = "bf16" if dtype == torch.bfloat16 else "fp32"
        if size == machine._SIZE:
            asked.add(name)
        return bf16 if name == "bf16" else fp32

    monkeypatch.setattr(machine, "_rate", rate)
    machine.matmul_rate.cache_clear()
    try:
        precision = machine.choose_precision("auto", CPU)
    finally:
        machine.matmul_rate.cache_clear()
    assert (precision.name, precision.flops_per_second) == (taken, max(fp32, bf16) if taken == "bf16" else fp32)
    assert asked == set(big_products)
