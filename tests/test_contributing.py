"""The worked example of CONTRIBUTING.md is run: as a file of the folder, and as a part of another package."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundling.core.config import override, validate
from foundling.core.errors import UserError
from foundling.core.registry import load_part, part_names
from foundling.corpus import build, steps
from foundling.corpus.document import Document, Drop
from tests.contracts import test_corpus_steps as contract

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
LAWS = [law for name, law in vars(contract).items() if name.startswith("test_")]


def as_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as `corpus/steps/shouting.py`, in a folder that is looked in beside ours."""
    (folder / "shouting.py").write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.setattr(steps, "__path__", [*steps.__path__, str(folder)])


def as_another_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as `my_package.shouting`, with the entry point that CONTRIBUTING.md shows."""
    (group, line), *_ = re.findall(r'\[project\.entry-points\."(.*)"\]\n(.*)\n', TEXT)
    described = folder / "my_package-1.dist-info"
    for path in (folder / "my_package", described):
        path.mkdir()
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "shouting.py").write_text(EXAMPLE, encoding="utf-8")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (described / "entry_points.txt").write_text(f"[{group}]\n{line}\n".replace('"', ""))
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(params=[as_a_file, as_another_package], ids=lambda way: way.__name__)
def added(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    request.param(tmp_path, monkeypatch)
    part_names.cache_clear()
    yield
    part_names.cache_clear()
    for name in ("foundling.corpus.steps.shouting", "my_package", "my_package.shouting"):
        sys.modules.pop(name, None)
    vars(steps).pop("shouting", None)


def test_the_repository_is_as_it_was() -> None:
    assert "shouting" not in part_names("corpus.steps")


@pytest.mark.usefixtures("added")
def test_a_config_finds_it_by_name() -> None:
    command = re.search(r"foundling corpus build .* '(steps=.*)'`", TEXT)
    assert command
    config = validate(build.Config, override({}, [command[1]]), "corpus")
    assert [step.kind for step in config.steps] == ["unicode", "length", "exact", "shouting"]
    assert config.steps[-1].max_capital_share == 0.6
    with pytest.raises(UserError, match=r"did you mean 'max_capital_share'\?"):
        validate(build.Config, {"steps": [{"kind": "shouting", "max_capital_shere": 0.6}]}, "corpus")
    with pytest.raises(UserError, match=r"did you mean 'shouting'\?"):
        validate(build.Config, {"steps": ["shoting"]}, "corpus")


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_contract_holds_for_it(law) -> None:  # type: ignore[no-untyped-def]
    law("shouting")


@pytest.mark.usefixtures("added")
def test_it_does_what_it_says() -> None:
    step = load_part("corpus.steps", "shouting").Config().build()

    def answer(text: str) -> Document | Drop:
        return step.apply(Document(id="1", text=text, source="made", domain="made"))

    assert answer("FINAL NOTICE: THE OFFICE IS CLOSED ON FRIDAY") == Drop("too_many_capitals")
    for kept in ("NASA", "海上生明月，天涯共此時。" * 10, "Final notice: the OFFICE is closed on friday"):
        assert isinstance(answer(kept), Document)


def test_the_contract_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same laws, over the example with a fault planted: it takes clean text, by a reason that it does not list."""
    broken = EXAMPLE.replace('Drop("too_many_capitals")', 'Drop("loud")').replace("num_capitals >", "num_capitals <")
    monkeypatch.setattr(sys.modules[__name__], "EXAMPLE", broken)
    as_a_file(tmp_path, monkeypatch)
    part_names.cache_clear()
    try:
        for law in (contract.test_clean_text_stays_as_it_is, contract.test_every_drop_has_a_documented_reason):
            with pytest.raises(AssertionError):
                law("shouting")
    finally:
        part_names.cache_clear()
        sys.modules.pop("foundling.corpus.steps.shouting", None)
        vars(steps).pop("shouting", None)
