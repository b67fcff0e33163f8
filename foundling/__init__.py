"""foundling: raw text to a served language model.

    import foundling
    run = foundling.pretrain("recipes/gpt-mini.yaml", **{"train.length": "2M tokens"})
    lm = foundling.load(run.model_dir)
    print(lm.generate("Once upon a time"))

Names are found on first use, so that ``import foundling`` needs neither torch nor time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "UserError": "foundling.core.errors",
    "load": "foundling.serve.load",
    "LanguageModel": "foundling.serve.language_model",
    "finetune": "foundling.train.finetune",
    "pretrain": "foundling.train.pretrain",
    "Run": "foundling.train.run",
}
__all__ = ["LanguageModel", "Run", "UserError", "__version__", "finetune", "load", "pretrain"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'foundling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
