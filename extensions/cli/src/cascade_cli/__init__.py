"""The command line of Cascade: the command `cascade`, and what the commands of packages print with."""

from cascade_cli.app import main

__all__ = ["main"]
