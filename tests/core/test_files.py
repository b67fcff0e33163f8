"""A folder that exists is whole, whatever went wrong while it was written; what changed since is found and named."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundling.core import files
from foundling.core.errors import UserError
from foundling.core.files import (
    artefact_key,
    hash_of,
    is_current,
    read_json,
    read_manifest,
    sha256_of,
    verify_files,
    whole_folder,
    write_json,
    write_manifest,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("new")
        assert not target.exists(), "nothing is there before it is complete"
    assert (target / "a").read_text() == "new"
    assert names(tmp_path / "deep") == ["out"]


def test_a_new_folder_takes_the_old_ones_place(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with whole_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["two"]


@pytest.mark.parametrize("fault", [ValueError("ours"), KeyboardInterrupt(), UserError("theirs")], ids=repr)
def test_an_error_inside_leaves_the_old_folder_whole(tmp_path: Path, fault: BaseException) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")

    def write() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("half")
            raise fault

    with pytest.raises(type(fault)):
        write()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_a_full_disk_is_told_and_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    told = r"out could not be written: No space left on device; nothing half is left"
    with pytest.raises(UserError, match=told), whole_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_a_rename_that_fails_leaves_a_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of the two renames fails: the old folder must come back under its name."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    rename = os.rename

    def fails_for_the_new(source: Any, target: Any) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", fails_for_the_new)
    with pytest.raises(UserError, match="No space left"), whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "old"


KILLED = """
import sys, time
from pathlib import Path
from foundling.core.files import whole_folder
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert len(names(tmp_path)) == 1, "the kill left its temporary folder"
    with whole_folder(target) as folder:
        (folder / "a").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(target) == ["a"]


def test_a_folder_that_another_process_writes_now_is_left_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as mine:
        other = tmp_path / f".out.{os.getppid()}.tmp"
        other.mkdir()
        with whole_folder(tmp_path / "else"):
            pass
        assert mine.exists()
    with whole_folder(tmp_path / "out"):
        pass
    assert other.exists(), "its process is alive"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    put_aside = tmp_path / ".out.999999999.old"
    put_aside.mkdir()
    (put_aside / "a").write_text("old")
    with pytest.raises(ValueError, match="again"), whole_folder(tmp_path / "out"):
        raise ValueError("again")
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_a_target_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = r"file/out could not be written: (Not a directory|File exists)"
    with pytest.raises(UserError, match=told), whole_folder(tmp_path / "file" / "out"):
        pass


def test_a_fault_while_reading_something_else_names_what_was_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No such file or directory \(.*input.txt\)"), whole_folder(tmp_path / "out"):
        (tmp_path / "input.txt").read_text()
    assert names(tmp_path) == []


def test_what_this_process_number_left_before_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".out.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").write_text("half")
    with whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    assert read_json(path) == {"é": 1}

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"a.json could not be written: No space left"):
        write_text(path, "new")
    assert names(tmp_path) == ["a.json"]
    assert read_json(path) == {"é": 1}


def test_a_value_that_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        write_json(tmp_path / "a.json", circle)
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "half a \ud800 pair")
    assert names(tmp_path) == []


def test_unreadable_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.json is missing; the folder is not whole"):
        read_json(tmp_path / "a.json")
    for damage in (b'{"a": ', b"\xff\xfe", b""):
        (tmp_path / "a.json").write_bytes(damage)
        with pytest.raises(UserError, match=r"a.json must be readable JSON"):
            read_json(tmp_path / "a.json")


def make(folder: Path) -> dict[str, Any]:
    with whole_folder(folder) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "x.bin").write_bytes(bytes(range(256)))
        (temporary / "empty").write_bytes(b"")
        return write_manifest(temporary, "toy", settings={"b": 1, "a": [2]}, inputs={"i": "k"}, counts={"num_x": 1})


def test_a_manifest_says_what_the_folder_is(tmp_path: Path) -> None:
    made = make(tmp_path / "out")
    assert read_manifest(tmp_path / "out", "toy") == made
    assert set(made["files"]) == {"sub/x.bin", "empty"}
    assert made["files"]["sub/x.bin"] == {"bytes": 256, "sha256": sha256_of(tmp_path / "out" / "sub" / "x.bin")}
    assert made["key"] == artefact_key("toy", {"a": [2], "b": 1}, {"i": "k"})


def test_the_key_follows_kind_settings_and_inputs_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "out")
    key = artefact_key("toy", {"a": [2], "b": 1}, {"i": "k"})
    assert is_current(tmp_path / "out", "toy", key)
    for other in (
        artefact_key("toy", {"a": [3], "b": 1}, {"i": "k"}),
        artefact_key("toy", {"a": [2], "b": 1}, {"i": "l"}),
        artefact_key("tox", {"a": [2], "b": 1}, {"i": "k"}),
    ):
        assert not is_current(tmp_path / "out", "toy", other)
    assert not is_current(tmp_path / "out", "other", key)
    assert not is_current(tmp_path / "nowhere", "toy", key)
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    assert hash_of([1, 2]) != hash_of([2, 1])


def test_a_folder_of_another_kind_says_what_it_is(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(UserError, match=r"out must be a corpus folder; got a toy folder"):
        read_manifest(tmp_path / "out", "corpus")
    with pytest.raises(UserError, match=r"nowhere, which is not a folder"):
        read_manifest(tmp_path / "nowhere", "corpus")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"a corpus folder must hold a manifest.json; got .*bare"):
        read_manifest(tmp_path / "bare", "corpus")


@pytest.mark.parametrize("position", [0, 100, 255])
def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path, position: int) -> None:
    made = make(tmp_path / "out")
    verify_files(tmp_path / "out", made)
    path = tmp_path / "out" / "sub" / "x.bin"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"sub/x.bin is damaged"):
        verify_files(tmp_path / "out", made)


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    made = make(tmp_path / "out")
    path = tmp_path / "out" / "sub" / "x.bin"
    path.write_bytes(b"short")
    with pytest.raises(UserError, match=r"sub/x.bin must have 256 bytes; got 5"):
        verify_files(tmp_path / "out", made)
    path.unlink()
    with pytest.raises(UserError, match=r"sub/x.bin is missing"):
        verify_files(tmp_path / "out", made)


def test_a_manifest_without_hashes_still_knows_sizes(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("abc")
        made = write_manifest(folder, "toy", settings={}, inputs={}, counts={}, hash_files=False)
    verify_files(tmp_path / "out", made)
    (tmp_path / "out" / "a").write_text("ab")
    with pytest.raises(UserError, match="must have 3 bytes"):
        verify_files(tmp_path / "out", made)


def test_files_are_for_whoever_may_read_the_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        for name in ("weights", "text"):
            (folder / name).write_text("x")
        (folder / "weights").chmod(0o600)  # as the safetensors library leaves them
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "out").stat().st_mode & 0o666}
