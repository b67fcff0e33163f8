"""What a user can mend is a `UserError`; what only we can mend is an `assert`."""

EXIT_BAD_INPUT = 2
"""Exit status of a command that was given something it cannot use."""


class UserError(Exception):
    """A fault that comes from outside: a file, a key, a value, a machine.

    The text is one line (or one line a fault) in three parts: what must hold, what came, what to do.

    >>> str(UserError("mask_rate must lie in (0, 1)", got=1.5, do="set objective.mask_rate to 0.15"))
    'mask_rate must lie in (0, 1); got 1.5; set objective.mask_rate to 0.15'
    """

    def __init__(self, must: str, *, got: object = None, do: str | None = None) -> None:
        parts = [must]
        if got is not None:
            parts.append(f"got {got}")
        if do is not None:
            parts.append(do)
        super().__init__("; ".join(parts))
