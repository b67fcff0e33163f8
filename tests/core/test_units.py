"""Numbers with prefixes and lengths with units are read as written, or refused with the accepted forms."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from foundling.core.config import Strict, resolved
from foundling.core.units import Count, Duration, Share, Unit, human, length_of, parse_count, parse_number

NUMBERS = {
    "500": 500,
    " 500 ": 500,
    "16K": 16_000,
    "16k": 16_000,
    "4Ki": 4096,
    "1.5Mi": 1_572_864,
    "20M": 20_000_000,
    "20 M": 20_000_000,
    "1G": 1e9,
    "1B": 1e9,
    "2T": 2e12,
    "1_000": 1000,
    "1,000": 1000,
    "2.5e3": 2500,
    "1e-3": 0.001,
    "3Gi": 3 * 2**30,
}


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers(text: str) -> None:
    assert parse_number(text) == NUMBERS[text]


@pytest.mark.parametrize("text", ["", "K", "-5", "five", "1.2.3", "16KB", "1 2", "0x10", "nan", "inf", "16Kii"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number such as 500, 16K"):
        parse_number(text)


@pytest.mark.parametrize("value", [True, 1.5, "1.5", "1e-3", None, [], "1e400", float("nan"), float("inf")])
def test_what_is_no_count(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        parse_count(value)


def test_shares_in_a_config() -> None:
    share = TypeAdapter(Annotated[Share, Field(gt=0, le=1)])
    assert share.validate_python("90 %") == share.validate_python(0.9) == share.validate_python("0.9") == 0.9
    assert share.validate_python("2.5%") == 0.025
    for wrong in ("101 %", "0 %", "-5 %", "many", 1.5):
        with pytest.raises(ValidationError):
            share.validate_python(wrong)


def test_counts_in_a_config() -> None:
    assert TypeAdapter(Count).validate_python("16K") == 16_000
    assert TypeAdapter(Count).validate_python(7.0) == 7


DURATIONS: dict[Any, tuple[float, Unit]] = {
    "20M tokens": (20e6, "tokens"),
    "20M token": (20e6, "tokens"),
    "500 steps": (500, "steps"),
    "1 step": (1, "steps"),
    "2 epochs": (2, "epochs"),
    "0.5 epochs": (0.5, "epochs"),
    "32 examples": (32, "examples"),
    "32 rows": (32, "examples"),
    "5 min": (300, "seconds"),
    "1.5 hours": (5400, "seconds"),
    "2h": (7200, "seconds"),
    "30s": (30, "seconds"),
    "10 sec": (10, "seconds"),
    "2 days": (172_800, "seconds"),
    "16Ki tokens": (16384, "tokens"),
    "1,000 steps": (1000, "steps"),
    "1e3 steps": (1000, "steps"),
    "0.1": (0.1, "share"),
    0.1: (0.1, "share"),
    0: (0, "share"),
}


@pytest.mark.parametrize("text", DURATIONS, ids=str)
def test_durations(text: Any) -> None:
    parsed = Duration.parse(text)
    assert (parsed.value, parsed.unit) == (pytest.approx(DURATIONS[text][0]), DURATIONS[text][1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tokens",
        "20 parsecs",
        "20M",
        "1.5",
        500,
        True,
        None,
        "5 m",
        "1 2 steps",
        "-3 steps",
        "500 stepss",
        "20Mtokens",
        "1e400 steps",
    ],
)
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match=r"expected .*'20M tokens'"):
        Duration.parse(text)


def test_a_unit_that_does_not_fit_answers_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"expected '500 steps' or a share such as 0.1 or 10 %; got '20M tokens'"):
        Duration.parse("20M tokens", ("steps", "share"))
    with pytest.raises(ValueError, match=r"expected a length with its unit, '500 steps'; got 0.1"):
        Duration.parse(0.1, ("steps",))


@given(
    value=st.one_of(st.integers(0, 10**9), st.floats(0.001, 1e6)),
    unit=st.sampled_from(["tokens", "steps", "epochs", "examples", "seconds"]),
)
def test_written_and_read_again(value: float, unit: Unit) -> None:
    once = Duration.parse(str(Duration(float(value), unit)))
    assert once.unit == unit
    assert once.value == pytest.approx(value, rel=1e-5)
    assert Duration.parse(str(once)) == once


def test_lengths_in_steps_round_up() -> None:
    def steps(text: Any) -> int:
        return Duration.parse(text).steps(tokens_per_step=1000, steps_per_epoch=7.5, total_steps=200)

    assert steps("500 steps") == 500
    assert steps("20000 tokens") == 20
    assert steps("20001 tokens") == 21
    assert steps("2 epochs") == 15
    assert steps("1 epoch") == 8
    assert steps(0.1) == 20
    assert steps("0 steps") == 0


class Holder(Strict):
    """A config with lengths."""

    every: Annotated[Duration, length_of("steps", "seconds")] = Duration(10, "steps")
    """How often."""


def test_a_resolved_config_reads_back() -> None:
    for given_ in ("5 min", "500 steps"):
        config = Holder(every=given_)  # type: ignore[arg-type]
        assert Holder.model_validate(resolved(config)) == config
    assert resolved(Holder()) == {"every": "10 steps"}
    with pytest.raises(ValidationError, match="'500 steps' or '5 min'"):
        Holder(every="1 epoch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (999, "999"),
        (1234, "1.23K"),
        (1_234_567, "1.23M"),
        (2e9, "2B"),
        (-1500, "-1.5K"),
    ],
)
def test_for_people(number: float, text: str) -> None:
    assert human(number) == text
