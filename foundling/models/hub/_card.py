"""The README.md of a model folder: YAML front matter that model hubs read, and a page that people read."""

from collections.abc import Mapping
from typing import Any

import yaml

from foundling.core.units import human

GENERATES = ("text-generation", "text2text-generation")
"""What model hubs call the tasks of models that write text."""


def model_card(
    card: dict[str, Any] | str | None,
    *,
    name: str,
    facts: dict[str, Any],
    num_parameters: int,
    pipeline: str | None = "text-generation",
    auto_class: str | None = "AutoModelForCausalLM",
    auto_arguments: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with front matter.

    card: a text is the page; a mapping goes into the front matter (language, license, datasets, ...), except for its
    key `body`, which is the page; None: a page from the facts alone. facts: what the table shows, name -> value.
    pipeline: what model hubs call the task. auto_class: the class of transformers that reads the folder; None:
    none does. auto_arguments: what it must be told besides.
    """
    given = {"body": card} if isinstance(card, str) else dict(card or {})
    body = given.pop("body", None)
    task = {} if pipeline is None else {"pipeline_tag": pipeline}
    front = {"library_name": "transformers" if auto_class else "foundling", **task, "tags": ["foundling"], **given}
    if body is None:
        listed = {"parameters": f"{num_parameters} ({human(num_parameters)})", **facts}
        body = _page(name, listed, auto_class, auto_arguments or {}, pipeline in GENERATES)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"


def _page(
    name: str, facts: dict[str, Any], auto_class: str | None, arguments: Mapping[str, Any], generates: bool
) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    parts = [f"# {name}\n\nA language model made with foundling.\n\n| | |\n|---|---|\n{rows}"]
    if generates:
        parts.append('```\nfoundling generate PATH --prompt "Once upon a time"\n```')
    if auto_class is None:
        parts.append('```python\nimport foundling\n\nmodel = foundling.load("PATH")\n```')
    else:
        told = "".join(f", {key}={value!r}" for key, value in arguments.items())
        parts.append(_TRANSFORMERS.format(auto_class=auto_class, arguments=told))
    return "\n\n".join(parts)


_TRANSFORMERS = """\
```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("PATH"{arguments})
tokenizer = AutoTokenizer.from_pretrained("PATH")
```"""
