"""Keep all servers running until Ctrl+C, to look around: `nox -s stack`."""

import shlex
import signal
import sys
from pathlib import Path

from cascade.errors import ServiceError

from .stack import Stack


def main() -> None:
    # A polite kill ends the servers in order, as Ctrl+C does; also where a shell started this in the background,
    # with Ctrl+C ignored.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    print("Starting PostgreSQL, versitygw, Nessie and Trino …", flush=True)
    try:
        with Stack() as stack:
            print(_described(stack, _write_environment(stack)), flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        print("\nAll servers have ended.")
    except ServiceError as error:
        sys.exit(str(error))


def _write_environment(stack: Stack) -> Path:
    """Write the settings, which hold passwords, into a file that only this user can read."""
    file = stack.folder / "environment"
    file.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in stack.environment.items()]
    file.write_text("\n".join([*lines, ""]))
    return file


def _described(stack: Stack, file: Path) -> str:
    settings = stack.environment
    shown = {
        "Trino": settings["CASCADE_TRINO__URL"],
        "Nessie": settings["CASCADE_NESSIE__URL"],
        "S3": f"{settings['CASCADE_S3_ENDPOINT']}, bucket {settings['CASCADE_WAREHOUSE']}",
        "PostgreSQL": settings["CASCADE_MARTS_URL"].rpartition("@")[2].partition("/")[0],
    }
    return "\n".join(
        [
            "",
            *(f"  {name:<11} {address}" for name, address in shown.items()),
            f"  {'logs':<11} {stack.folder}/*/*.log",
            "",
            "Use them in a generated project, in another terminal:",
            f"  . {file}",
            "  uv run cascade run",
            "",
            "Everything is gone when this ends. Ctrl+C ends it.",
        ]
    )


if __name__ == "__main__":
    main()
