"""What a format is: one `model_type` of Hugging Face model folders, read and written in both directions.

A format file holds `class Format(base.Format)` and is named after its `model_type`. It says which config keys mean what
and which weights of theirs make up which of ours; `load_model` and `save_model` do the rest for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

import yaml
from torch import Tensor

from foundling.core.errors import UserError
from foundling.data.batch import Batch

INITIALIZER_RANGE = 0.02
"""What a config says that says nothing of its initial values."""


@cache
def _shared_keys(kind: str) -> frozenset[str]:
    """The keys of one section of config_keys.yaml."""
    lines = yaml.safe_load(files("foundling.models.hub").joinpath("config_keys.yaml").read_text(encoding="utf-8"))
    return frozenset(key for line in lines[kind] for key in line)


@dataclass(frozen=True)
class Weight:
    """One parameter of ours and the weights of theirs that it is made of.

    join: their weights to ours. split: ours to theirs; it also runs on the meta device, where it tells the shapes that
    theirs must have. Without them it is one weight, laid out as ours.
    """

    ours: str
    theirs: tuple[str, ...]
    join: Callable[[Sequence[Tensor]], Tensor] = lambda theirs: theirs[0]
    split: Callable[[Tensor], Sequence[Tensor]] = lambda ours: (ours,)


class ConfigReader:
    """A config.json that is read key by key, so that at the end no key is left that nobody understood.

    Faults are gathered; `finish` tells them all in one `UserError`.
    """

    def __init__(self, data: dict[str, Any], what: str) -> None:
        self._data = data
        self._what = what
        self._seen: set[str] = set()
        self._faults: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, `default` where it is missing or null."""
        self._seen.add(key)
        value = self._data.get(key)
        return default if value is None else value

    def init_std(self) -> float | None:
        """The spread of initial matrices; the common default tells nothing, so it is None: our own."""
        found = self.number("initializer_range", INITIALIZER_RANGE)
        return None if found == INITIALIZER_RANGE else found

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number; without a default the key must be there."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.fault(f"{key} must be a positive whole number; got {value!r}")
            return 1
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self.fault(f"{key} must be a positive number; got {value!r}")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fault(f"{key} must be true or false; got {value!r}")
        return bool(value)

    def only(self, key: str, *computed: Any, default: Any = None) -> None:
        """The key may only have one of the values that we compute; `default` is what a missing key means."""
        value = self.get(key, computed[0] if default is None else default)
        if value not in computed:
            self.fault(f"{key} must be {' or '.join(map(repr, computed))}, which is what is computed; got {value!r}")

    def ignore(self, *keys: str) -> None:
        """Keys that do not change what the model computes."""
        self._seen.update(keys)

    def fault(self, text: str) -> None:
        self._faults.append(text)

    def with_values(self, **values: Any) -> "ConfigReader":
        """The same config.json with other values for some keys."""
        return ConfigReader({**self._data, **values}, self._what)

    def finish(self) -> None:
        """Raises `UserError` where a key was faulty or is not known."""
        for key in sorted(_shared_keys("must_be_off")):
            if self.get(key):
                self.fault(f"{key} is not computed; got {self._data[key]!r}")
        for key in self._data:
            if key not in self._seen and key not in _shared_keys("harmless") and not key.startswith("_"):
                self.fault(
                    f"{key} is not known here, so it might change the model; got {self._data[key]!r}; "
                    "remove the key if it does not"
                )
        if len(self._faults) == 1:
            raise UserError(f"{self._what}: {self._faults[0]}")
        if self._faults:
            raise UserError(
                f"{self._what}: {len(self._faults)} faults\n" + "\n".join(f"  {fault}" for fault in self._faults)
            )


class Format(ABC):
    """One `model_type`. Instances hold no state."""

    model_type: str
    """The file's name, and `model_type` in config.json."""
    architecture: str
    """The one class name that `architectures` may hold: the language model."""
    base_prefix: str
    """What the names of all weights but the head begin with; files of the bare base model leave it out."""
    embedding: str
    """Their name of the token embedding."""
    head: str = "lm_head.weight"
    """Their name of the head; not in the file where it is tied to the embedding."""
    unused_weights: tuple[str, ...] = ()
    """Patterns (regular expressions, whole names) of buffers in old files that hold no trained value."""
    other_architectures: ClassVar[tuple[str, ...]] = ()
    """Further class names that `architectures` may hold: the same model with fewer heads."""
    renames: tuple[tuple[str, str], ...] = ()
    """(pattern, replacement) of what weights were called in older files."""
    copies: ClassVar[dict[str, str]] = {}
    """Weights that a file may hold besides, and what each must equal: they are tied to it."""
    token_roles: ClassVar[tuple[str, ...]] = ("bos", "eos")  # no pad: transformers would not train its embedding
    """The special tokens whose ids stand in config.json."""
    reads_row_end: bool = False
    """Whether the class of transformers reads the last token of a row that is no padding."""
    pipeline: ClassVar[str | None] = "text-generation"
    """What model hubs call the task; None: no task of theirs. A model that generates has a generation_config.json."""
    auto_class: str | None = "AutoModelForCausalLM"
    """The class of transformers that reads a whole model, for the card; None: it has none."""

    @abstractmethod
    def read_config(self, keys: ConfigReader, what: str) -> Any:
        """Our config; UserError naming every key whose meaning we do not compute. what: the file, for errors."""

    @abstractmethod
    def writes(self, config: Any) -> bool:
        """Whether this is the format that a model of this config is written in; at most one format says so."""

    @abstractmethod
    def write_config(self, config: Any) -> dict[str, Any]:
        """The keys of config.json that describe the architecture."""

    @abstractmethod
    def weights(self, config: Any) -> list[Weight]:
        """How every parameter of a model of this config lies in theirs; a tied head is left out."""

    def fitted(self, config: Any, names: set[str]) -> tuple[Any, set[str]]:
        """The config of what a file really holds (heads that its config.json does not tell of), and the weights in it
        that are of no use; names: of the file's weights."""
        return config, set()

    def architecture_of(self, config: Any) -> str:
        """What `architectures` holds for a model of this config."""
        return self.architecture

    def auto_class_of(self, config: Any) -> str | None:
        """The class of transformers that reads all of a model of this config, and draws nothing besides."""
        return self.auto_class

    def auto_arguments_of(self, config: Any) -> Mapping[str, Any]:
        """What that class must be told besides, so that it draws nothing."""
        return {}

    def file_name(self, config: Any, name: str) -> str:
        """What a weight is called in a file that is written for this config."""
        return name

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        """What a written model must answer as the live one does, to rows of random tokens."""
        out = model(batch)
        return [out.logits(), *([] if out.next_logits_RC is None else [out.next_logits_RC])]
