"""`.env`, completed with what the servers of `compose.yaml` need: ports, generated passwords, addresses."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from cascade.errors import ConfigurationError

__all__ = ["EnvFile", "complete_env", "read_env", "texts_of"]

# Where the template keeps the keys, and what is there in place of a random value.
_EXAMPLE = Path("services") / "env.example"
_GENERATED = "<generated>"
# Hexadecimal: safe in URLs, properties, SQL and shells.
_BYTES = 24


@dataclass(frozen=True)
class EnvFile:
    """What became of `.env`.

    Attributes:
        path: The file.
        written: Keys that were missing.
        kept: Keys that were there.
    """

    path: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


def complete_env(project_dir: Path, more: Sequence[str] = ()) -> EnvFile:
    """Append to `.env` each key of `services/env.example` that it lacks, with a random value for `<generated>`.

    Nothing that is there changes, so calling it again, or after an update brought new keys, is safe. The file is
    written whole or not at all, and readable by its owner alone.

    Args:
        project_dir: The project's root folder.
        more: Lines that follow those of the file, as packages want them.

    Raises:
        ConfigurationError: The project has no `services/env.example`.
    """
    example = project_dir / _EXAMPLE
    if not example.is_file():
        raise ConfigurationError(
            f"{_EXAMPLE} is missing, which lists what the servers need.",
            where=str(project_dir),
            fix="get it with `copier update --vcs-ref :current: --data containers=true`.",
        )
    # A link stays one.
    path = (project_dir / ".env").resolve()
    before = path.read_text("utf-8") if path.is_file() else ""
    written: list[str] = []
    kept: list[str] = []
    # Names of settings are the same in small letters.
    there = {name.upper() for name in dotenv_values(path, interpolate=False)}
    lines: list[str] = []
    comments: list[str] = []
    for line in [*example.read_text("utf-8").splitlines(), *more]:
        name, equals, value = line.partition("=")
        if line.startswith("#"):
            comments.append(line)
        elif not equals:
            comments = [""] if lines or before else []
        elif name.strip().upper() in there:
            kept.append(name.strip())
            comments = []
        else:
            lines += [*comments, f"{name}={value.replace(_GENERATED, secrets.token_hex(_BYTES))}"]
            written.append(name.strip())
            comments = []
    if lines:
        gap = "\n" if before and not before.endswith("\n") else ""
        _write_privately(path, before + gap + "\n".join(lines) + "\n")
    return EnvFile(project_dir / ".env", tuple(written), tuple(kept))


def texts_of(found: EnvFile) -> Iterator[str]:
    """Yield what people are told of a file that was completed; nothing when it had all keys."""
    if found.written:
        yield f"Wrote {len(found.written)} keys to {found.path}: {', '.join(found.written)}"
    if "CASCADE_ENGINE" in found.written:
        yield "From now on the commands of this project use these servers (CASCADE_ENGINE=trino in .env)."


def read_env(project_dir: Path) -> dict[str, str]:
    """Return the variables of `.env`, those of the environment first, as compose reads them.

    Args:
        project_dir: The project's root folder.
    """
    written = {name: value for name, value in dotenv_values(project_dir / ".env").items() if value is not None}
    return written | {name: os.environ[name] for name in written if name in os.environ}


def _write_privately(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".env-")  # for its owner alone
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
