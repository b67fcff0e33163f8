"""Sources to an ordered list of files."""

from pathlib import Path

from foundling.corpus.inputs import _walk, find_inputs
from foundling.corpus.readers.base import Problem


def test_sorted_and_each_file_once(tmp_path: Path) -> None:
    top = tmp_path / "top"
    names = [f"{number:02d}.txt" for number in range(30)]
    for name in reversed(names):
        top.mkdir(exist_ok=True)
        (top / name).write_text(name)
    (top / "again.txt").symlink_to(top / "00.txt")
    found = find_inputs([top / "07.txt", str(top / "*.txt"), top], None, tmp_path / "out")
    assert [file.name for file in found] == ["07.txt", *(name for name in names if name != "07.txt")]
    assert [file.name for file in find_inputs([top], None, tmp_path / "out")] == [f"top/{name}" for name in names]


def test_a_link_to_a_folder_above_is_not_entered(tmp_path: Path) -> None:
    """Two loops a folder: entered until the system's limit of 40 links, these would be 2^40 paths."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "a.txt").write_text("one")
    for name in ("one", "two"):
        (top / name).symlink_to(top)
    problems: list[tuple[str, Problem]] = []
    assert list(_walk(top, frozenset(), "/nowhere", problems)) == [top / "a.txt"]
    assert [(name, problem.kind) for name, problem in problems] == [(str(top / n), "loop") for n in ("one", "two")]


def test_the_folder_to_write_is_left_out(tmp_path: Path) -> None:
    for path in (tmp_path / "a.txt", tmp_path / "out" / "b.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    assert [file.path for file in find_inputs([tmp_path], None, tmp_path / "out")] == [tmp_path / "a.txt"]
