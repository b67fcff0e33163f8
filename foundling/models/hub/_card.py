"""The README.md of a model folder: YAML front matter that model hubs read, and a page that people read."""

from typing import Any

import yaml

from foundling.core.units import human


def model_card(
    card: dict[str, Any] | str | None,
    *,
    name: str,
    facts: dict[str, Any],
    num_parameters: int,
    pipeline: str | None = "text-generation",
    auto_class: str = "AutoModelForCausalLM",
) -> str:
    """Markdown with front matter.

    card: a text is the page; a mapping goes into the front matter (language, license, datasets, ...), except for its
    key `body`, which is the page; None: a page from the facts alone. facts: what the table shows, name -> value.
    pipeline: what model hubs call the task. auto_class: the class of transformers that reads the folder.
    """
    given = {"body": card} if isinstance(card, str) else dict(card or {})
    body = given.pop("body", None)
    task = {} if pipeline is None else {"pipeline_tag": pipeline}
    front = {"library_name": "transformers", **task, "tags": ["foundling"], **given}
    if body is None:
        listed = {"parameters": f"{num_parameters} ({human(num_parameters)})", **facts}
        body = _page(name, listed, auto_class, pipeline == "text-generation")
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"


def _page(name: str, facts: dict[str, Any], auto_class: str, generates: bool) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    command = '```\nfoundling generate PATH --prompt "Once upon a time"\n```\n\n' if generates else ""
    return f"""# {name}

A language model made with foundling.

| | |
|---|---|
{rows}

{command}```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```
"""
