"""Texts, or pairs of texts, to labels: one of several, any number, or a number (Devlin et al. 2019, section 4.1)."""

# Shapes: R = rows, C = classes.

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.heads.base import HeadConfig
from foundling.tasks.base import Facts, HeadTask, Measured, RowFault, TaskConfig, fitted_temperature, softmax
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.files import Examples
from foundling.tasks.frame import cut_to_fit
from foundling.tasks.labels import learn_labels
from foundling.tasks.overlap import tell_leak, tell_overlap
from foundling.tasks.rows import TaskRow
from foundling.tokenizers.base import Tokenizer

Target = Literal["label", "labels", "number"]
_ONE, _TWO = ("text",), ("premise", "hypothesis")
_LOSSES = {
    "label": ("cross_entropy", "label_smoothing", "focal"),
    "labels": ("binary_cross_entropy",),
    "number": ("squared_error",),
}
"""What of ours weighs answers to each target, the usual one first."""


@dataclass(frozen=True)
class Example:
    text: str
    second: str | None = None
    """The other text of a pair."""
    label: str | tuple[str, ...] | float | None = None
    """What is true: a label, labels, or a number; None: unknown."""

    @property
    def key(self) -> str:
        """What is asked, as one text: equal where two examples ask the same."""
        return self.text if self.second is None else f"{self.text}\n{self.second}"


class Config(TaskConfig):
    kind: str = "classification"
    """Name of the part."""
    target: Target = "label"
    """What is asked of a text. label: one of several; labels: any number of them; number: a number (regression)."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong answers are weighed: cross_entropy (with smoothing or class weights), focal, ...; None: the usual one
    of the target."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """Weight of each label in the loss: none; balanced: all labels count alike; or by name."""
    abstain_below: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """label: an answer whose probability is below it is withheld (`label: null`), in [0, 1)."""

    metric: ClassVar[str] = "accuracy"
    families: ClassVar[tuple[str, ...]] = ("bert", "gpt", "xlnet")
    later: ClassVar[tuple[str, ...]] = (*TaskConfig.later, "abstain_below")

    @model_validator(mode="after")
    def _settings_fit_the_target(self) -> Self:
        others = [kind for target, kinds in _LOSSES.items() if target != self.target for kind in kinds]
        if self.loss is not None and self.loss.kind in others:
            raise ValueError(
                f"target {self.target} takes the loss {' or '.join(_LOSSES[self.target])}; got {self.loss.kind}"
            )
        if self.target == "number" and self.class_weights != "none":
            raise ValueError("class_weights are of labels; a number (target: number) has none")
        if self.target != "label" and self.abstain_below:
            raise ValueError("abstain_below is for one label of several (target: label)")
        return self

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        roles = self._roles(data)
        texts = [field_of(data, role, self.fields) for role in roles]
        for role, text in zip(roles, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise RowFault(f"its {role} must be text with a character to read; got {text!r}")
        label = self._truth(field_of(data, "label", self.fields)) if known else None
        return Example(texts[0], texts[1] if len(texts) == 2 else None, label)

    def _roles(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """A pair where a row has both texts of one (a question and a sentence), unless `fields` names the text."""
        if "text" in self.fields:
            return _ONE
        of_pair = [has_field(data, role, self.fields) for role in _TWO]
        return _TWO if all(of_pair) or (any(of_pair) and not has_field(data, "text", self.fields)) else _ONE

    def _truth(self, value: Any) -> str | tuple[str, ...] | float:
        if self.target == "number":
            try:
                number = math.nan if isinstance(value, bool) else float(value)  # tables hold numbers as words
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                raise RowFault(f"its label must be a number (target: number); got {value!r}")
            return number
        if self.target == "labels":
            if isinstance(value, str) and value.strip().startswith("["):  # a table's cell
                with suppress(ValueError):
                    value = json.loads(value)
            if not isinstance(value, list):
                raise RowFault(f"its label must be a list of labels (target: labels); got {value!r}")
            return tuple(sorted({_name(one) for one in value}))
        return _name(value)

    def learn(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        tell_overlap({split: [(e.key, e.label) for e in found] for split, found in examples.items()})
        pairs = {split: sum(e.second is not None for e in found) for split, found in examples.items()}
        is_pair = pairs["train"] > 0
        for split, found in examples.items():
            if pairs[split] != (len(found) if is_pair else 0):
                raise UserError(
                    f"all examples must be {_texts(is_pair)}, as in train" if split != "train" else
                    "all examples must be one text, or all a pair",
                    got=f"{pairs[split]:,} pairs among the {len(found):,} of {split}",
                    do="task.fields={text: NAME} reads one text",
                )  # fmt: skip
        facts = self._learn_labels(examples)
        return {**facts, "pair": is_pair}

    def _learn_labels(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        if self.target == "number":
            numbers = np.array([e.label for e in examples["train"]], dtype=np.float64)
            spread = float(numbers.std())
            if spread == 0:
                raise UserError("the numbers to learn must differ", got=f"{numbers[0]:g} in every training example")
            return {"mean": float(numbers.mean()), "spread": spread}
        sets = {split: [_labels(e.label) for e in found] for split, found in examples.items()}
        tell_leak([(e.key, labels) for e, labels in zip(examples["train"], sets["train"], strict=True)])
        labels = learn_labels(
            sets, places={split: found.places for split, found in examples.items() if isinstance(found, Examples)}
        )
        counts = {label: labels.counts["train"][label] for label in labels}
        if isinstance(self.class_weights, dict) and (wrong := sorted(set(self.class_weights) - set(labels))):
            raise UserError(f"class_weights must name labels ({', '.join(labels)})", got=", ".join(wrong))
        return {"labels": labels, "counts": counts}

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Classification":
        return Classification(self, tokenizer, body, facts)


def _texts(is_pair: bool) -> str:
    return "a pair of texts" if is_pair else "one text"


def _labels(truth: str | tuple[str, ...] | float | None) -> list[str]:
    return [truth] if isinstance(truth, str) else list(truth) if isinstance(truth, tuple) else []


def _name(value: Any) -> str:
    """A label as it is called: numbers and truth values by their usual spelling."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float) or str(value).strip() == "":
        raise RowFault(f"its label must be a word or a number; got {value!r}")
    return str(value)


class Classification(HeadTask):
    config: Config

    def __init__(self, config: Config, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self.labels: list[str] = self.facts.get("labels", [])
        self._number = {label: i for i, label in enumerate(self.labels)}
        usual = _LOSSES[config.target][0]
        loss = config.loss or load_part("optim.losses", usual).Config(kind=usual)
        self._loss = loss.build(class_weights=self._class_weights())

    @property
    def metric(self) -> str:
        return "mse" if self.config.target == "number" else self.config.metric

    def _class_weights(self) -> Tensor | None:
        """fp32 [C], with mean 1 over the training examples."""
        asked = self.config.class_weights
        if asked == "none" or self.config.target == "number":
            return None
        counts = np.array([self.facts["counts"][label] for label in self.labels], dtype=np.float64)
        weights = 1 / counts if asked == "balanced" else np.array([asked.get(label, 1.0) for label in self.labels])  # type: ignore[union-attr]
        return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()

    def head(self) -> HeadConfig:
        config: HeadConfig = load_part("heads", "sequence").Config.model_validate(
            {"kind": "sequence", "num_classes": max(1, len(self.labels)), **self.head_style(whole_row=True)}
        )
        return config

    def rows(self, examples: Sequence[Example]) -> list[TaskRow]:
        is_pair = self.facts.get("pair")
        if is_pair is not None and (wrong := [e for e in examples if (e.second is not None) != is_pair]):
            raise UserError(
                f"the model was trained on {_texts(is_pair)} an example, and must be asked so",
                got=f"{_texts(not is_pair)}: {wrong[0].text[:60]!r}",
            )
        first = self.tokenizer.encode_batch([e.text for e in examples])
        second = self.tokenizer.encode_batch([e.second or "" for e in examples])
        found, num_cut = [], 0
        for number, example in enumerate(examples):
            parts = [first[number], *([] if example.second is None else [second[number]])]
            room = self.max_length - self.frame.num_special(len(parts))
            num_cut += sum(map(len, parts)) > room
            framed = self.frame(cut_to_fit(parts, room))
            targets, truth = self._answer(example)
            found.append(
                TaskRow(
                    sample=number, source=0, start=number, tokens=framed.tokens, segments=framed.segments,
                    example=number, places=np.array([framed.whole]), targets=targets, truth=truth,
                )
            )  # fmt: skip
        self.tell_cut(
            num_cut,
            len(examples),
            f"texts have more than max_length = {self.max_length} tokens: their ends are not read",
        )
        return found

    def _answer(self, example: Example) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The row's target (its label's number) or its truth (0 or 1 of each label, or a scaled number). A label that
        the model never learnt has none: such examples can be answered, and are never right."""
        label = example.label
        if label is None:
            return None, None
        if isinstance(label, str):
            return (np.array([self._number[label]]), None) if label in self._number else (None, None)
        if isinstance(label, float):
            return None, np.array([(label - self.facts["mean"]) / self.facts["spread"]], dtype=np.float32)
        held = np.zeros(len(self.labels), dtype=np.float32)
        held[[self._number[one] for one in label if one in self._number]] = 1.0
        return None, held

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        truth = batch.targets_M if batch.labels_R is None else batch.labels_R
        losses_R: Tensor = self._loss.of_logits(logits, truth)
        return losses_R

    def decode(
        self, examples: Sequence[Example], rows: Sequence[TaskRow], outputs: Sequence[np.ndarray]
    ) -> list[dict[str, Any]]:
        logits_RC = np.stack(outputs) if outputs else np.zeros((0, 1))
        temperature = self.facts.get("temperature", 1.0)
        if self.config.target == "number":
            return [{"number": float(x[0]) * self.facts["spread"] + self.facts["mean"]} for x in logits_RC]
        if self.config.target == "labels":
            probabilities = 1 / (1 + np.exp(-logits_RC.astype(np.float64) / temperature))
            return [
                {"labels": [label for label, x in zip(self.labels, p, strict=True) if x >= 0.5], **self._named(p)}
                for p in probabilities
            ]
        return [self._one(p) for p in softmax(logits_RC, temperature)]

    def _one(self, probabilities_C: np.ndarray) -> dict[str, Any]:
        best = int(probabilities_C.argmax())
        sure = probabilities_C[best] >= self.config.abstain_below
        return {"label": self.labels[best] if sure else None, **self._named(probabilities_C)}

    def _named(self, probabilities_C: np.ndarray) -> dict[str, dict[str, float]]:
        named = zip(self.labels, probabilities_C.tolist(), strict=True)
        return {"probabilities": {label: float(f"{p:.6g}") for label, p in named}}  # six digits, not six places

    def finish(self, model: Any) -> None:
        """Numbers are learnt with mean 0 and spread 1; in the folder the last matrix gives them in their own unit."""
        if self.config.target != "number":
            return
        mean, spread, last = self.facts["mean"], self.facts["spread"], model.head.out
        if last.bias is None:
            logger.warning(
                "a head of this family has no bias: transformers reads (number - %g) / %g from the model's folder",
                mean, spread,
            )  # fmt: skip
            return
        with torch.no_grad():
            last.weight.mul_(spread)
            last.bias.mul_(spread).add_(mean)
        self.facts["in_own_unit"] = True

    def reopen(self, model: Any) -> None:
        """In their own unit bf16 would round numbers to a few hundred steps of their size."""
        if not self.facts.pop("in_own_unit", False):
            return
        mean, spread, last = self.facts["mean"], self.facts["spread"], model.head.out
        with torch.no_grad():
            last.bias.sub_(mean).div_(spread)
            last.weight.div_(spread)

    def calibrate(self, model: Any, examples: Sequence[Example]) -> Facts:
        """The temperature at which probabilities of held-back examples are meant as they are said."""
        if self.config.target == "number" or not examples:
            return {}
        rows = self.rows(examples)
        logits_RC = np.stack(self.outputs(model, rows)).astype(np.float64)
        if self.config.target == "labels":
            held_RC = np.stack([row.truth for row in rows if row.truth is not None])
            of_truth_RC = np.where(held_RC > 0, logits_RC, -logits_RC)  # the logit of what is true of each label
            return {"temperature": round(fitted_temperature(lambda t: np.logaddexp(0, -of_truth_RC / t).mean()), 4)}
        truth_R = np.array([self._number[e.label] for e in examples])  # type: ignore[index]

        def nll(temperature: float) -> float:
            return float(-np.log(softmax(logits_RC, temperature)[np.arange(len(truth_R)), truth_R] + 1e-300).mean())

        return {"temperature": round(fitted_temperature(nll), 4)}

    def _labels_of(self, golds: Iterable[Any]) -> list[str]:
        """The model's labels, and those that it never learnt: an example of one is missed, and counts."""
        return [*self.labels, *sorted(set(golds) - set(self.labels))]

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds = [e.label for e in examples]
        if self.config.target == "number":
            numbers = [a["number"] for a in answers]
            return [Measured("regression", golds, numbers, {}), Measured("correlation", golds, numbers, {})]
        if self.config.target == "labels":
            sets, said = [list(g) for g in golds], [a["labels"] for a in answers]  # type: ignore[arg-type]
            labels = self._labels_of(label for labels in sets for label in labels)
            return [Measured("f1", sets, said, {"labels": labels}), Measured("accuracy", sets, said, {})]
        probabilities = [a["probabilities"] for a in answers]
        best = [max(p, key=p.__getitem__) for p in probabilities]  # what is withheld is measured too
        return [
            Measured("accuracy", golds, best, {}),
            Measured("f1", golds, best, {"labels": self._labels_of(golds)}),
            Measured("mcc", golds, best, {}),
            Measured("calibration", golds, probabilities, {}),
        ]
