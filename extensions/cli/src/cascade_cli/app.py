"""The command `cascade`: finds the commands that packages bring, and turns a command line into one call."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from typing import Any, cast

from cascade.plugins import PluginRecord, find, installed
from cascade_cli.command import Command as PluginCommand
from cascade_cli.output import INTERRUPTED, complain, fail, unusable_place
from cascade_cli.style import Command, Group, click
from cascade_cli.summary import first_sentence

__all__ = ["main"]

_COMMANDS = "cascade.commands"
_MISSING = """
  fix: `cascade --help` lists the commands of installed packages. The package of another one is missing: add its
    line `cascade-… @ …` to `dependencies` in the project's pyproject.toml, as in the template, and run `uv sync`."""


class _PluginGroup(Group):
    """The commands that installed packages bring, ours as well; each is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys(record.name for record in installed(_COMMANDS)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # A stand-in with the right name and line is enough to list commands.
        for record in sorted(installed(_COMMANDS), key=lambda record: bool(record.cause)):
            if record.name == cmd_name:
                return Command(name=cmd_name, help=(line := _line(record)), short_help=line)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.format_message() + _MISSING, ctx) from None
        if name is not None and command is not None:
            command = cast(click.Command, find(_COMMANDS, name, PluginCommand))
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


def _line(record: PluginRecord) -> str:
    """Return what `--help` says of a command, from its source: help imports nothing that runs."""
    try:
        cause = record.cause
        line = cause or first_sentence(record.value) or f"A command of {record.package}."
    except (ModuleNotFoundError, SyntaxError, ValueError) as error:
        cause = line = f"{type(error).__name__}: {error}"
    return f"(cannot be used: {record.package}: {line})" if cause else line


@click.group(cls=_PluginGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="cascade-runtime", prog_name="cascade")
def _cli() -> None:
    """Start and run a lakehouse: Dagster, dlt, dbt and Iceberg, with branches and promotion.

    Works from any folder of a project. Exit code 0: done; 1: the work failed; 2: wrong usage or settings;
    3: `plan` found something that breaks; 130: Ctrl+C.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command `cascade`.

    Args:
        arguments: Arguments without the program's name; those of the process by default.
    """
    if arguments is None:  # the process is ours
        # Dagster and its like make a million objects that all stay. Python would look through them again and again,
        # and once more at the end: half of the CPU time of a short command.
        gc.set_threshold(10_000, 10, 10)
        atexit.register(gc.freeze)
    from cascade.errors import CascadeError

    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        return _cli.main(args=arguments, prog_name="cascade")
    except CascadeError as error:
        return fail(error, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has enough.
        sys.stderr.close()
        return sys.exit(1)
    except Exception as error:
        if (place := unusable_place(error)) is None:
            raise
        return fail(
            CascadeError(
                "The project's files cannot be opened or written.",
                where=place,
                fix="let this user write into the project's folder; `cascade doctor` names all folders and the disk.",
            ),
            as_json=as_json,
        )
