"""A trained classifier of quality or domain: keeps the documents of some classes, or tags each with its class.

The folder comes from `foundling corpus classifier train`, made from the user's own examples. FineWeb-Edu (Penedo et al.
2024, section 4) and DCLM (Li et al. 2024, arXiv:2406.11794, section 4.4) show what such a filter is worth; DCLM's, too,
is linear over hashed n-grams. A class that was not among the examples is told as the nearest of them.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from foundling.core.config import PartConfig
from foundling.core.files import read_manifest
from foundling.corpus.document import Document, Drop
from foundling.corpus.linear import KIND, LinearModel, load_linear

REASONS = {"unlikely": "the probability of the classes to keep is below min_probability"}


class Config(PartConfig):
    """Which classifier, and what is done with what it says. At least one of `keep` and `tag`."""

    path: Path
    """The classifier's folder."""
    keep: list[str] = Field(default_factory=list)
    """Labels whose documents stay; one may be given by its bare name. Empty: all stay."""
    min_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Smallest probability, of all labels of `keep` together, with which a document stays, in (0, 1)."""
    tag: Literal["domain", "meta"] | None = None
    """Where the most probable label is written: over the document's `domain`, or into its `meta` as
    `classifier: {label, probability}`."""

    @field_validator("keep", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known_labels(self) -> "Config":
        if not self.keep and self.tag is None:
            raise ValueError("a classifier must have something to do: keep (labels) or tag (domain, meta)")
        labels = read_manifest(self.path, KIND)["settings"]["labels"]
        if unknown := [label for label in self.keep if label not in labels]:
            raise ValueError(f"keep must name labels of {self.path} ({', '.join(labels)}), not {', '.join(unknown)}")
        return self

    def input_hashes(self) -> dict[str, str]:
        """The identity of the classifier, for the corpus's manifest."""
        return {str(self.path): read_manifest(self.path, KIND)["key"]}

    def build(self) -> "Classifier":
        return Classifier(self)


@dataclass(frozen=True)
class Classifier:
    config: Config

    @cached_property
    def _model(self) -> LinearModel:  # read by the first document, not by everyone who asks what kind of step this is
        return load_linear(self.config.path)

    def apply(self, document: Document) -> Document | Drop:
        model, config = self._model, self.config
        probabilities = model.probabilities(document.text)
        if config.keep:
            kept = sum(float(p) for label, p in zip(model.labels, probabilities, strict=True) if label in config.keep)
            if kept < config.min_probability:
                likeliest = model.labels[int(probabilities.argmax())]
                told = f"{' or '.join(config.keep)} {kept:.2f} < {config.min_probability:g}; most likely {likeliest}"
                return Drop("unlikely", told)
        if config.tag is None:
            return document
        best = int(probabilities.argmax())
        if config.tag == "domain":
            return replace(document, domain=model.labels[best])
        told_meta = {"label": model.labels[best], "probability": round(float(probabilities[best]), 4)}
        return replace(document, meta={**document.meta, "classifier": told_meta})
