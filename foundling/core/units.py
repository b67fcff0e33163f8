"""Lengths and counts with their unit: `20M tokens`, `500 steps`, `2 epochs`, `5 min`, `16K`.

K, M, G (and B, the billion of the field) are decimal; Ki, Mi, Gi are powers of 1024.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic.functional_validators import BeforeValidator
from pydantic_core import CoreSchema, core_schema

_PREFIX = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "b": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
}
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_NUMBER = re.compile(r"^\s*(\d[\d_,]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKmMgGbBtT]i?)?\s*$")

Unit = Literal["tokens", "steps", "epochs", "examples", "seconds", "share"]
_UNITS: dict[str, tuple[Unit, float]] = {
    "token": ("tokens", 1),
    "step": ("steps", 1),
    "epoch": ("epochs", 1),
    "example": ("examples", 1),
    "row": ("examples", 1),
    "s": ("seconds", 1),
    "sec": ("seconds", 1),
    "second": ("seconds", 1),
    "min": ("seconds", 60),
    "minute": ("seconds", 60),
    "h": ("seconds", 3600),
    "hour": ("seconds", 3600),
    "day": ("seconds", 86400),
}


def parse_number(text: str) -> float:
    """`16K` -> 16000.0, `1.5Mi` -> 1572864.0. Raises ValueError with the accepted forms."""
    match = _NUMBER.match(text)
    if not match:
        raise ValueError(f"expected a number such as 500, 16K, 20M or 4Ki; got {text!r}")
    number = float(match[1].replace("_", "").replace(",", "")) * _PREFIX[(match[2] or "").lower()]
    if not math.isfinite(number):
        raise ValueError(f"expected a number that fits a float; got {text!r}")
    return number


def parse_count(value: Any) -> int:
    """A whole number from an int or from text with a prefix; a bool or a fraction is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a whole number such as 500 or 16K; got {value!r}")
    number = parse_number(value) if isinstance(value, str) else float(value)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"expected a whole number; got {value!r}")
    return int(number)


Count = Annotated[int, BeforeValidator(parse_count)]
"""A whole number in a config; `16K` is read as 16000."""
Size = Annotated[int, Field(ge=1), BeforeValidator(parse_count)]
"""The same, at least 1."""


def parse_share(value: Any) -> Any:
    """`90 %` -> 0.9; what is not text in percent stays as it is."""
    percent = _PERCENT.match(value) if isinstance(value, str) else None
    return float(percent[1]) / 100 if percent else value


Share = Annotated[float, BeforeValidator(parse_share)]
"""A part of a whole in a config: 0.15, or `15 %`. What it may be is for the field to say."""


def human(number: float) -> str:
    """1234567 -> '1.23M': three figures, for people."""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}" if number != int(number) else str(int(number))


@dataclass(frozen=True)
class Duration:
    """A length in one unit. Two lengths of different units cannot be confused or added.

    >>> Duration.parse("20M tokens")
    Duration(value=20000000.0, unit='tokens')
    >>> Duration.parse("5 min").seconds
    300.0
    """

    value: float
    unit: Unit

    @classmethod
    def parse(
        cls, text: Any, units: tuple[Unit, ...] = ("tokens", "steps", "epochs", "examples", "seconds", "share")
    ) -> "Duration":
        if isinstance(text, Duration):
            return text
        accepted = " or ".join(_EXAMPLES[u] for u in units)
        if isinstance(text, int | float) and not isinstance(text, bool):
            if "share" in units and 0 <= text <= 1:
                return cls(float(text), "share")
            raise ValueError(f"expected a length with its unit, {accepted}; got {text!r}")
        if not isinstance(text, str):
            raise ValueError(f"expected {accepted}; got {text!r}")
        share = parse_share(text)
        if "share" in units and share is not text and share <= 1:
            return cls(share, "share")
        match = re.match(r"^\s*(.*?\d[\d_,.]*(?:[eE][+-]?\d+)?\s*(?:[kKMGBT]i?\b)?)\s*([a-z]+)?\s*$", text)
        word = (match[2] or "") if match else ""
        name = word if word in _UNITS else word.removesuffix("s")
        if not match or (word and name not in _UNITS):
            raise ValueError(f"expected {accepted}; got {text!r}")
        try:
            number = parse_number(match[1])
        except ValueError:
            raise ValueError(f"expected {accepted}; got {text!r}") from None
        unit, factor = _UNITS[name] if word else ("share", 1.0)
        if unit not in units or (unit == "share" and number > 1):
            raise ValueError(f"expected {accepted}; got {text!r}")
        return cls(number * factor, unit)

    @property
    def seconds(self) -> float:
        assert self.unit == "seconds", self
        return self.value

    def steps(self, *, tokens_per_step: float, steps_per_epoch: float, total_steps: int | None = None) -> int:
        """The length in optimizer steps, rounded up, at least 0. `seconds` has no length in steps (assert)."""
        if self.unit == "steps":
            steps = self.value
        elif self.unit == "tokens":
            steps = self.value / tokens_per_step
        elif self.unit == "epochs":
            steps = self.value * steps_per_epoch
        else:
            assert self.unit == "share", self
            assert total_steps is not None, self
            return round(self.value * total_steps)
        return int(-(-steps // 1))

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{self.value:g}"
        if self.unit == "seconds":
            return f"{self.value:g} s"
        return f"{self.value:.0f} {self.unit}" if self.value == int(self.value) else f"{self.value:g} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


_EXAMPLES: dict[Unit, str] = {
    "tokens": "'20M tokens'",
    "steps": "'500 steps'",
    "epochs": "'2 epochs'",
    "examples": "'32 examples'",
    "seconds": "'5 min'",
    "share": "a share such as 0.1 or 10 %",
}


def length_of(*units: Unit, positive: bool = False) -> BeforeValidator:
    """For a field that takes some units only: `Annotated[Duration, length_of("steps", "tokens")]`. positive: not 0."""

    def parse(value: Any) -> Duration:
        found = Duration.parse(value, units)
        if positive and not found.value > 0:
            raise ValueError(f"expected more than nothing; got {value!r}")
        return found

    return BeforeValidator(parse)
