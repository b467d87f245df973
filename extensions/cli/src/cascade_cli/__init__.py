"""The command line of Cascade: the command `cascade`, and what the commands of packages print with."""

import sys  # and nothing else: Ctrl+C before `main` prints a traceback

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> object:
    """Run the command `cascade`.

    Args:
        arguments: Arguments without the program's name; those of the process by default.
    """
    try:
        from cascade_cli.app import main as run  # takes a moment, in which people press Ctrl+C, too

        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted before anything was done.\n")
        sys.exit(130)
