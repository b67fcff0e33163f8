"""Two models on the same examples: is the difference more than chance?"""

from dataclasses import asdict
from typing import Any

from foundling.core.errors import UserError
from foundling.evaluation.significance import DRAWS, compare
from foundling.evaluation.suites.base import Report, Subject
from foundling.evaluation.suites.task import between, shown


def need_one_task(a: Subject, b: Subject) -> None:
    """UserError where two models were fine-tuned for different things."""
    tasks = [subject.task for subject in (a, b)]
    kinds = [task.config.kind if task else "no task" for task in tasks]
    if kinds[0] != kinds[1]:
        raise UserError("models that are compared must be fine-tuned for the same task", got=" and ".join(kinds))
    labels = [set(task.facts.get("labels") or task.facts.get("counts") or ()) if task else set() for task in tasks]
    if labels[0] != labels[1]:
        only = ", ".join(sorted(labels[0] ^ labels[1])[:8])
        raise UserError("models that are compared must know the same labels", got=f"known to one alone: {only}")


def versus(a: Report, b: Report) -> Report:
    """b against a, figure by figure, by a paired bootstrap, of suites that are `comparable`. A metric that is counted
    over each model's own tokens is left out, and told. UserError: other examples, or figures computed in another
    way."""
    both = [metric for metric in a.scored if metric in b.scored]
    alike = [metric for metric in both if a.scored[metric].examples == b.scored[metric].examples]
    found = {
        name: difference
        for metric in alike or both
        for name, difference in compare(a.scored[metric], b.scored[metric]).items()
    }
    left_out = [f"{metric}: not compared, counted over other tokens by each" for metric in both if metric not in alike]
    rows = [
        [name, shown(d.a), shown(d.b), f"{d.difference:+.4f}", between(d.low, d.high), f"{d.p:.3f}", d.verdict]
        for name, d in found.items()
        if not name.startswith(("precision/", "recall/")) and d.a == d.a and d.b == d.b
    ]
    figures: dict[str, Any] = {
        name: {key: value if value == value else None for key, value in asdict(d).items()} for name, d in found.items()
    }
    settings = {name: scored.settings for name, scored in a.scored.items()}
    counted = next(iter(a.scored.values())).num_examples
    return Report(
        ["figure", "A", "B", "B - A", "95 %", "p", "B is"],
        rows,
        {"figures": figures, "settings": settings, "examples": counted},
        has_total=False,
        notes=(
            f"{counted:,} examples, paired bootstrap of {DRAWS:,} draws; noise: p is 0.05 or more",
            *settings.values(),
            *left_out,
        ),
    )
