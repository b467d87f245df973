"""Turn a command line into one call; prints, never computes. Commands are imported when they are used."""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import Any

from cascade.cli.output import INTERRUPTED, complain, fail, unusable_place
from cascade.cli.style import Command, Group, click

__all__ = ["main"]

#: Command to module and function, and the line that `--help` shows: help must not import what runs.
_COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("cascade.cli.pipeline:run", "Run the pipeline: ingest, validate, transform, check, promote, publish."),
    "materialize": ("cascade.cli.pipeline:materialize", "Materialize assets on a branch, without promoting it."),
    "query": ("cascade.cli.query:query", "Run a SELECT on the lakehouse."),
    "branch": ("cascade.cli.branch:branch", "List, make, compare, promote and restore branches."),
    "maintain": ("cascade_maintain.commands:maintain", "Drop old branches of runs, and files that nothing needs."),
    "validate": ("cascade_project.commands:validate", "Load everything that users write, and name all problems."),
    "dev": ("cascade.cli.project:dev", "Open the Dagster UI of the project."),
    "services": ("cascade_servers.commands:services", "Prepare the servers of compose.yaml."),
    "config": ("cascade.cli.project:config", "Show the settings and where they come from."),
}


def _is_installed(command: str) -> bool:
    # Not by entry points: reading those of all packages takes longer than all else that `--help` does.
    return importlib.util.find_spec(_COMMANDS[command][0].partition(".")[0]) is not None


class _LazyGroup(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if _is_installed(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # A stand-in with the right name and line is enough to list commands.
        if cmd_name not in _COMMANDS or not _is_installed(cmd_name):
            return None
        line = _COMMANDS[cmd_name][1]
        return Command(name=cmd_name, help=line, short_help=line)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            module, _, function = _COMMANDS[name][0].partition(":")
            command = getattr(importlib.import_module(module), function)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        noted: list[int] = []

        def note(number: int, _frame: object) -> None:
            noted.append(number)
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, note)
        try:
            return super().invoke(ctx)
        except BaseException as error:
            # Libraries may turn the interruption into an error of their own.
            if not noted or isinstance(error, SystemExit):
                raise
            complain(
                "\nInterrupted", ": `main` moves as a whole or not at all; `cascade branch log` shows its last move."
            )
            sys.exit(INTERRUPTED)
        finally:
            signal.signal(signal.SIGINT, before)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="cascade-runtime", prog_name="cascade")
def _cli() -> None:
    """Start and run a lakehouse: Dagster, dlt, dbt and Iceberg, with branches and promotion.

    Works from any folder of a project. Exit code 0: done; 1: the work failed; 2: wrong usage or settings; 130: Ctrl+C.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command `cascade`.

    Args:
        arguments: Arguments without the program's name; those of the process by default.
    """
    from cascade.errors import CascadeError

    try:
        return _cli.main(args=arguments, prog_name="cascade")
    except CascadeError as error:
        return fail(error)
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has enough.
        sys.stderr.close()
        return sys.exit(1)
    except Exception as error:
        if (place := unusable_place(error)) is None:
            raise
        return fail(
            CascadeError(
                "The project's files cannot be opened or written.",
                where=place,
                fix="let this user write into the project's folder, and see whether its disk is full or read-only.",
            )
        )
