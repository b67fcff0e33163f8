"""Kernels in C++ beside the Python that calls them, compiled for this processor at their first use and kept.

Torch's compiler writes a reduction over rows whose length it does not know with a division and a branch in each step;
such kernels are three to eight times as fast in a few lines of C++. They need what `torch.compile` needs on CPU, a C++
compiler; where there is none, or it fails, callers keep to torch's own.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from foundling.core.log import logger

_HEADERS = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
"""Without -ffast-math, which would take NaN for impossible and so hide it."""


@cache
def native(source: Path) -> ctypes.CDLL | None:
    """The compiled library of a C++ file, which may include `native.h`; None where it cannot be compiled.

    The library is shared by all processes of a user, and by runs to come: it stands in a folder of the user's own
    under a name that follows from the text, the compiler, its flags and the processor.
    """
    compiler = cpp_compiler()
    if compiler is None:
        return None
    command = [compiler, *_FLAGS, f"-I{_HEADERS}", str(source)]
    parts = [source.read_bytes(), (_HEADERS / "native.h").read_bytes(), " ".join(_FLAGS).encode(), compiler.encode()]
    key = hashlib.sha256(b"\0".join([*parts, _version(compiler), _processor()])).hexdigest()[:16]
    try:
        library = _folder() / f"{source.stem}-{key}.so"
        if not library.exists():
            _compile(command, library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.CalledProcessError) as fault:
        told = getattr(fault, "stderr", None) or str(fault)
        logger.warning("%s: not compiled, torch's own kernels are used: %s", source.name, told.strip().splitlines()[0])
        return None


def native_kernel(source: Path, name: str, argtypes: Sequence[Any]) -> Callable[..., Any] | None:
    """A function of a C++ file, called with the given ctypes; None where the file cannot be compiled."""
    library = native(source)
    if library is None:
        return None
    kernel = getattr(library, name)
    kernel.argtypes = argtypes
    return kernel  # type: ignore[no-any-return]


def cpp_compiler() -> str | None:
    """The C++ compiler of this machine, `$CXX` first; None: there is none. Torch's own search takes the import of its
    compiler, longer than that of torch itself."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _folder() -> Path:
    """Beside what torch keeps of its own compilations. What another user laid there is not run."""
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(named) / "foundling" if named else Path(tempfile.gettempdir()) / f"foundling_{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _compile(command: list[str], library: Path) -> None:
    """Under a name of its own first, so that a library that exists is whole, whoever else compiles it just now."""
    number, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(number)
    try:
        subprocess.run([*command, "-o", name], check=True, capture_output=True, text=True)
        os.replace(name, library)
    finally:
        Path(name).unlink(missing_ok=True)


def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], check=False, capture_output=True).stdout


def _processor() -> bytes:
    """What `-march=native` follows."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
