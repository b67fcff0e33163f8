"""The README.md of a model folder: YAML front matter that model hubs read, and a page that people read."""

from typing import Any

import yaml

from foundling.core.units import human

_FRONT: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["foundling"]}


def model_card(card: dict[str, Any] | str | None, *, name: str, facts: dict[str, Any], num_parameters: int) -> str:
    """Markdown with front matter.

    card: a text is the page; a mapping goes into the front matter (language, license, datasets, ...), except for its
    key `body`, which is the page; None: a page from the facts alone. facts: what the table shows, name -> value.
    """
    given = {"body": card} if isinstance(card, str) else dict(card or {})
    body = given.pop("body", None)
    front = {**_FRONT, **given}
    if body is None:
        body = _page(name, {"parameters": f"{num_parameters} ({human(num_parameters)})", **facts})
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"


def _page(name: str, facts: dict[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""# {name}

A language model made with foundling.

| | |
|---|---|
{rows}

```
foundling generate PATH --prompt "Once upon a time"
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```
"""
