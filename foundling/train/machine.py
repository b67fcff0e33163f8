"""What this machine is good at, measured in a blink: types, rates, compilers, and how many rows to take at once."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from foundling.core.native import cpp_compiler

_SIZE, _SMALL_SIZE = 1024, 256
"""Edges of the matrices measured on CPU. 1,024: 2 GFLOP a product, some milliseconds on a laptop, but seconds in a type
that the processor emulates; the small ones tell."""
_EMULATED_FROM = 10
"""How many times as long as fp32 a product takes in such a type, at least (seen: 80)."""
_BF16_MUST_WIN_BY = 1.3


@dataclass(frozen=True)
class Precision:
    name: str
    """bf16 or fp32."""
    dtype: torch.dtype
    flops_per_second: float
    """Measured rate of square matrix products in this type: the machine's limit."""


def device_here() -> torch.device:
    """The device that training in one process takes."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@cache
def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product, the best of several short tries."""
    return _rate(dtype, device, _SIZE if device.type == "cpu" else 8192)


def _rate(dtype: torch.dtype, device: torch.device, size: int) -> float:
    a_SS, b_SS = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(_seconds(lambda: a_SS @ b_SS, device) for _ in range(12))


def _emulates_bf16(device: torch.device) -> bool:
    """Whether bf16 is so slow here that a measurement of it would be a wait."""
    if device.type != "cpu":
        return False
    fp32, bf16 = (_rate(dtype, device, _SMALL_SIZE) for dtype in (torch.float32, torch.bfloat16))
    return fp32 > _EMULATED_FROM * bf16


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def choose_precision(asked: str, device: torch.device) -> Precision:
    """bf16 where its products measure at least 1.3 times as fast as fp32's, unless the recipe says which."""
    rates = dict.fromkeys(("bf16", "fp32"), 0.0)
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if asked == "auto" and _emulates_bf16(device):
        asked = "fp32"
    if asked == "auto":
        rates = {name: matmul_rate(dtype, device) for name, dtype in dtypes.items()}
        asked = "bf16" if rates["bf16"] >= _BF16_MUST_WIN_BY * rates["fp32"] else "fp32"
    return Precision(asked, dtypes[asked], rates[asked] or matmul_rate(dtypes[asked], device))


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler for CPU, Triton for CUDA."""
    if device.type == "cuda":
        return torch.utils._triton.has_triton()
    return cpp_compiler() is not None


def vectorizes() -> bool:
    """Whether torch's compiler writes vector code here, where torch's own kernels have it.

    It finds out by child processes that load such code. Where one dies, for whatever reason, scalar code is written,
    about five times slower, and nothing is said; so they are asked again before that is believed.
    """
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return True
    from torch._inductor import cpu_vec_isa

    for _ in range(3):
        if cpu_vec_isa.pick_vec_isa():
            return True
        cpu_vec_isa.valid_vec_isa_list.cache_clear()
        cpu_vec_isa.VecISA._VecISA__bool__impl.cache_clear()  # type: ignore[attr-defined]
    return False


def describe() -> dict[str, str | int]:
    """The machine, for a run's manifest."""
    found: dict[str, str | int] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
