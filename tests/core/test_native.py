"""C++ files beside the Python that calls them: compiled once, kept, and never in the way."""

import logging
import subprocess
from pathlib import Path

import pytest

from foundling.core import native as module
from foundling.core.native import cpp_compiler, native


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))


def write(path: Path, value: str) -> Path:
    path.write_text(f'#include "native.h"\nextern "C" int answer() {{ return {value}; }}\n', encoding="utf-8")
    return path


def test_a_file_is_compiled_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "answer.cpp", "41")
    library = native(source)
    if library is None:
        pytest.skip("no C++ compiler here that makes the kernels")
    assert library.answer() == 41
    native.cache_clear()
    compiled = []
    monkeypatch.setattr(module, "_compile", lambda *given: compiled.append(given))
    assert native(source) is not None
    assert not compiled
    native.cache_clear()
    assert native(write(source, "42")) is None
    assert len(compiled) == 1
    assert [path.suffix for path in (tmp_path / "cache" / "foundling").iterdir()] == [".so"]


def test_without_a_compiler_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cpp_compiler() is None
    assert native(write(tmp_path / "lost.cpp", "1")) is None


@pytest.mark.parametrize("broken", ["compiler", "disk"])
def test_a_failure_is_told_in_one_line(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(command: list[str], library: Path) -> None:
        if broken == "disk":
            raise OSError("No space left on device")
        raise subprocess.CalledProcessError(1, command, stderr="error: unknown option\nmore\n")

    monkeypatch.setattr(module, "_compile", fail)
    with caplog.at_level(logging.WARNING, logger="foundling"):
        assert native(write(tmp_path / f"{broken}.cpp", "1")) is None
    assert caplog.text.count("torch's own kernels are used: ") == 1
    assert ("unknown option" if broken == "compiler" else "No space left") in caplog.text
