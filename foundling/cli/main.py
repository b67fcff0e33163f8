"""`foundling VERB ...`: finds the verb's file, and turns a user's mistake into one line and exit status 2.

Each verb is a file beside this one and is imported when it is called, so `foundling --help` costs nothing.
"""

import importlib
import sys
from collections.abc import Sequence

from foundling import __version__
from foundling.core.errors import EXIT_BAD_INPUT, UserError
from foundling.core.registry import nearest

VERBS = {
    "demo": "the whole road, raw text to a writing model, on text that every machine has",
    "corpus": "raw text to clean documents, every drop explained",
    "tokenizer": "train a tokenizer, and see how well it fits the text",
    "data": "see what a model will see of its text, before it trains",
    "pretrain": "train a language model from a recipe",
    "finetune": "train a model to answer: labels, entities, relations, questions, translations, ...",
    "tune": "search a recipe's keys, and tell whether the best beats what was there",
    "predict": "let a fine-tuned model answer a file of examples",
    "evaluate": "score a model on text that it never saw",
    "generate": "let a model write on from a prompt",
}

_HELP = """\
foundling {version}: raw text to a served language model.

usage: foundling VERB [RECIPE.yaml] [dotted.key=value ...]

{verbs}

foundling VERB --help    tells the options of a verb, with an example
foundling --version

example: foundling demo
"""


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit status: 0 on success, 2 on bad input, 128 + signal when stopped."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        verbs = "\n".join(f"  {name:<11}{what}" for name, what in VERBS.items())
        print(_HELP.format(version=__version__, verbs=verbs), end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        return _run_verb(arguments[0], list(arguments[1:]))
    except UserError as error:
        print(f"foundling: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("foundling: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        print(f"foundling: {error.filename} could not be used: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _run_verb(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        near = nearest(verb, list(VERBS))
        raise UserError(
            f"the verb must be one of {', '.join(VERBS)}",
            got=repr(verb),
            do=f"did you mean {near!r}?" if near else None,
        )
    logging = importlib.import_module("foundling.core.log")
    logging.setup()
    module = importlib.import_module(f"foundling.cli.{verb}")
    app = getattr(module, "app", None)
    if app is None:
        typer = importlib.import_module("typer")
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(help=module.__doc__)(getattr(module, verb))
    try:
        answer = app(arguments, prog_name=f"foundling {verb}", standalone_mode=False)
    except Exception as error:
        # a wrong option or a missing argument, in the words of the library that reads the command line
        if not hasattr(error, "format_message"):
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", f"foundling {verb}")
        raise UserError(error.format_message().rstrip("."), do=f"see {path} --help") from None
    return answer if isinstance(answer, int) else 0
