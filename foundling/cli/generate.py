"""Lets a model write on from a prompt: its text to standard output, and nothing else.

Example: foundling generate runs/demo --prompt "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def generate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder or a Hugging Face folder.")
    ],
    prompt: Annotated[str, typer.Option(help="The text to continue; - reads it from standard input.")],
    max_tokens: Annotated[int, typer.Option(help="Longest continuation, tokens.")] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the most likely token; above 1: more daring.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the K most likely tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest tokens whose probabilities reach P only.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from tokens at least P times as likely as the most likely only.")
    ] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: less repetition.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same text.")] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, help="Search the most probable text with N beams, instead of drawing.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="With --beams: above 0 in favour of long texts.", show_default="1")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the text as it comes.")] = True,
) -> None:
    """Writes the continuation of the prompt, without the prompt itself, to standard output."""
    from foundling.core.errors import UserError
    from foundling.serve.load import load

    if prompt == "-":
        try:
            prompt = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise UserError("the prompt must be UTF-8 text", got=str(error)) from None
    drawing = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed,
    }  # fmt: skip
    loaded = load(model)
    if beams is None and length_penalty is not None:
        raise UserError("--length-penalty is of a search", do="add --beams N, or leave it out")
    if beams is None:
        pieces: Iterable[str] = loaded.stream(prompt, max_tokens=max_tokens, **drawing)
    else:
        neutral = {"temperature": 1.0, "repetition_penalty": 1.0}
        if given := [name for name, value in drawing.items() if value != neutral.get(name)]:
            raise UserError("--beams searches and does not draw", got=", ".join(given), do="leave that out")
        ((best, *_),) = loaded.best(
            [prompt],
            max_tokens=max_tokens,
            beams=beams,
            length_penalty=1.0 if length_penalty is None else length_penalty,
        )
        pieces = [best[0]]
    # Bytes, so that the text is UTF-8 whatever the terminal's locale says.
    out = sys.stdout.buffer
    for piece in pieces if stream else ["".join(pieces)]:
        out.write(piece.encode())
        out.flush()
    out.write(b"\n")
    out.flush()
