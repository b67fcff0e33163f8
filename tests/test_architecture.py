"""docs/architecture.md names floors and files as they are."""

import re
from pathlib import Path

from tests.test_floors import FLOORS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def floors_line(text: str) -> list[set[str]]:
    (line,) = re.findall(r"^\s*`core` < .*$", text, flags=re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", part)) for part in line.split("<")]


def test_the_floors_are_those_that_the_test_keeps() -> None:
    assert floors_line(TEXT) == FLOORS
    assert floors_line((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) == FLOORS


def test_every_file_that_is_named_exists() -> None:
    floor = ROOT / "foundling"
    wrong = []
    for block in TEXT.split("\n\n"):
        heading = re.match(r"\*\*`(\w+)`\*\*", block)
        home = floor / heading[1] if heading else floor
        for name in re.findall(r"`([\w/]+(?:\.(?:py|css)|\.yaml|/))`", block):
            if name not in ("recipe.yaml", "model/") and not any((p / name).exists() for p in (home, floor, ROOT)):
                wrong.append(name)
    assert not wrong
    assert "`dial.py`" in TEXT


def test_every_floor_that_holds_something_is_described_and_no_other() -> None:
    planned = re.search(r"^Planned floors.*$", TEXT, flags=re.MULTILINE)
    assert planned
    empty = set(re.findall(r"`(\w+)`", planned[0]))
    for name in set().union(*FLOORS):
        holds = any((ROOT / "foundling" / name).rglob("[!_]*.py"))
        assert holds == (f"\n**`{name}`**" in TEXT), name
        assert holds != (name in empty), name
