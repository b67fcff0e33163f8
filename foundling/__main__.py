"""`python -m foundling`: the same as the `foundling` command, for torchrun."""

from foundling.cli.main import run

run()
