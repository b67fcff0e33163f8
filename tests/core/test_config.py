"""Configs refuse what they do not know, tell every fault at once with its path, and name what was probably meant."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from foundling.core.config import Part, PartConfig, Strict, differences, override, read_yaml, resolved, validate
from foundling.core.errors import UserError
from foundling.core.units import Duration, length_of

HF_NAMES: dict[str, str] = yaml.safe_load(files("foundling.core").joinpath("hf_names.yaml").read_text(encoding="utf-8"))


class Inner(Strict):
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A rate."""
    warmup: Annotated[Duration, length_of("steps")] = Duration(10, "steps")
    """A length."""
    start: Annotated[str | None, Field(alias="from")] = None
    """A name that is a word of Python."""


class Outer(Strict):
    seed: int = 0
    """A seed."""
    inner: Inner = Inner()
    """A level below."""
    many: tuple[Inner, ...] = ()
    """A list of them."""
    schedule: Annotated[PartConfig, Part("optim.schedules", default="wsd")] = None  # type: ignore[assignment]
    """A part."""


def told(data: Any, cls: type[Strict] = Outer) -> list[str]:
    """The lines of the one error."""
    with pytest.raises(UserError) as caught:
        validate(cls, data, "recipe")
    return str(caught.value).splitlines()


def test_every_fault_is_told_at_once_with_its_path() -> None:
    lines = told({"sead": 1, "inner": {"rate": 7, "warmup": "5 parsecs"}, "many": [{}, {"rat": 0.1}]})
    assert lines[0] == "recipe: 4 faults"
    assert sorted(line.strip().split(":")[0] for line in lines[1:]) == [
        "inner.rate",
        "inner.warmup",
        "many.1.rat",
        "sead",
    ]
    text = "\n".join(lines)
    assert "sead: unknown key; did you mean 'seed'?" in text
    assert "inner.rate: Input should be less than 1; got 7" in text
    assert "inner.warmup: expected '500 steps'; got '5 parsecs'" in text
    assert "many.1.rat: unknown key; did you mean 'rate'?" in text


def test_one_fault_is_one_line() -> None:
    assert told({"seed": "x"}) == [
        "recipe: seed: Input should be a valid integer, unable to parse string as an integer; got 'x'"
    ]


def test_a_key_like_no_other_answers_with_those_there_are() -> None:
    assert told({"inner": {"zzz": 1}}) == ["recipe: inner.zzz: unknown key; known keys: rate, warmup, from"]


def test_a_key_of_another_level_answers_with_where_it_belongs() -> None:
    (line,) = told({"rate": 0.1})
    assert line.startswith("recipe: rate: unknown key; elsewhere there is inner.rate; known keys: seed, inner")
    (line,) = told({"inner": {"final": 0.1}})
    assert line == (
        "recipe: inner.final: unknown key; elsewhere there is schedule.final; known keys: rate, warmup, from"
    ), "from the outermost level"
    (line,) = told({"schedule": {"kind": "cosine", "decay": 0.1}})
    assert line.startswith("recipe: schedule.decay: unknown key; known keys: ")
    assert "elsewhere" not in line, "what the default part has is no help"
    assert told({"many": [{"zzz": 0.1}]}) == ["recipe: many.0.zzz: unknown key; known keys: rate, warmup, from"]
    assert told({"inner": {"sede": 1}}) == ["recipe: inner.sede: unknown key; known keys: rate, warmup, from"]


@pytest.mark.parametrize("value", [None, 3, "text", [1]], ids=str)
def test_a_level_that_is_no_mapping(value: Any) -> None:
    (line,) = told({"inner": value})
    assert line.startswith("recipe: inner: expected a mapping with the keys rate, warmup, from; got ")
    (line,) = told(value)
    assert line.startswith("recipe: expected a mapping with the keys seed, inner")


@pytest.mark.parametrize("name", sorted(HF_NAMES))
def test_names_of_other_tools_are_answered_with_ours(name: str) -> None:
    (line,) = told({"inner": {name: 1}})
    assert line == f"recipe: inner.{name}: unknown key; here it is called {HF_NAMES[name]}"


def test_long_values_are_shortened() -> None:
    (line,) = told({"seed": "x" * 10_000})
    assert len(line) < 200


def test_a_part_is_found_by_its_name() -> None:
    for value in ("cosine", {"kind": "cosine"}, {"kind": "cosine", "final": 0.1}):
        config = validate(Outer, {"schedule": value}, "recipe")
        assert config.schedule.kind == "cosine"
        assert config.schedule.final == 0.1
    assert validate(Outer, {"schedule": {"final": 0.2}}, "recipe").schedule.kind == "wsd", "the default kind"
    assert validate(Outer, {"schedule": config.schedule}, "recipe").schedule is config.schedule


def test_faults_of_a_part_keep_their_path() -> None:
    lines = told({"schedule": {"kind": "cosine", "finel": 0.1, "warmup": "x"}, "seed": "y"})
    text = "\n".join(lines)
    assert lines[0] == "recipe: 3 faults"
    assert "schedule.finel: unknown key; did you mean 'final'?" in text
    assert "schedule.warmup: expected " in text


def test_an_unknown_part_answers_with_the_nearest() -> None:
    (line,) = told({"schedule": "cosin"})
    assert "schedule: schedules must be one of constant, cosine" in line
    assert "did you mean 'cosine'?" in line
    assert told({"schedule": 3})[0].startswith("recipe: schedule: expected a part's name or a mapping with `kind`")
    assert told({"schedule": {"kind": None}}) == ["recipe: schedule: `kind` must name the part"]


def test_a_resolved_config_reads_back_as_the_same() -> None:
    config = validate(Outer, {"inner": {"from": "a", "rate": 0.25}, "many": [{}], "schedule": "linear"}, "recipe")
    plain = resolved(config)
    assert plain["inner"] == {"rate": 0.25, "warmup": "10 steps", "from": "a"}
    assert plain["schedule"] == {"kind": "linear", "warmup": "0.02", "final": 0.0}
    assert validate(Outer, yaml.safe_load(yaml.safe_dump(plain)), "recipe") == config


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().rate = 0.1


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "c": [1, {"d": 3}]}, "e": "word"}),
        ("a.c.1.d=x y", {"a": {"b": 1, "c": [1, {"d": "x y"}]}, "e": "word"}),
        ("a.c.0=[7, 8]", {"a": {"b": 1, "c": [[7, 8], {"d": 3}]}, "e": "word"}),
        ("a.new.deep=true", {"a": {"b": 1, "c": [1, {"d": 3}], "new": {"deep": True}}, "e": "word"}),
        ("e.lr=0.1", {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": {"kind": "word", "lr": 0.1}}),
        ("e=k=v", {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": "k=v"}),
        ("e=", {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": None}),
    ],
)
def test_overrides(assignment: str, expected: dict[str, Any]) -> None:
    data = {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": "word"}
    assert override(data, [assignment]) == expected
    assert data == {"a": {"b": 1, "c": [1, {"d": 3}]}, "e": "word"}, "the original stays"


def test_later_overrides_see_earlier_ones() -> None:
    assert override({}, ["a={b: 1}", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize("assignment", ["a", "=1", "a.c.9=1", "a.c.x.y=1", "a.c.d=1", "a=[1"])
def test_overrides_that_lead_nowhere(assignment: str) -> None:
    with pytest.raises(UserError, match=r"override|must be YAML"):
        override({"a": {"b": 1, "c": [1]}}, [assignment])


@pytest.mark.parametrize("content", [b"a: [1", b"- 1\n", b"word", b"", b"\xff\xfe\x00", b"a: 1\n\tb: 2\n"])
def test_recipes_that_are_no_mapping_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "r.yaml")
    assert "r.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be a file that exists; got .*none.yaml"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="could not be read"):
        read_yaml(tmp_path)


def test_differences_name_each_place() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "same": 0, "gone": 1}
    new = {"a": {"b": 2, "c": [1, 3]}, "same": 0, "came": None, "there": 5}
    assert differences(old, new) == ["a.b: 1 -> 2", "a.c: [1, 2] -> [1, 3]", "gone: 1 -> None", "there: None -> 5"]
    assert differences(old, old) == []
