"""Write files: all of them, or none; a file that is there is never overwritten."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CascadeError, UsageError

__all__ = ["Change", "Created", "create", "formatted", "write"]


@dataclass(frozen=True)
class Change:
    """A file that is written.

    Attributes:
        path: Where, from the project's root.
        content: Its new content.
        before: Its content now; None for a file that is not there.
    """

    path: str
    content: bytes
    before: bytes | None = None

    @property
    def text(self) -> str:
        """The content for people; empty for what is no text."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return ""


@dataclass(frozen=True)
class Created:
    """What a command wrote, or would write.

    Attributes:
        what: `workflow`, `model` or `check`.
        name: Its name.
        asset: Key of the asset that it makes or checks.
        written: Whether the files were written; not with `dry_run`.
        new: Files that are new, from the project's root.
        changed: Files that were there and have more lines now.
        texts: The content of each of them, by path; empty for what is no text.
        guesses: What was guessed from a sample, one sentence each.
        next: Commands that come next.
    """

    what: str
    name: str
    asset: str
    written: bool
    new: tuple[str, ...]
    changed: tuple[str, ...]
    texts: dict[str, str]
    guesses: tuple[str, ...]
    next: tuple[str, ...]


def create(
    root: Path,
    changes: Sequence[Change],
    *,
    what: str,
    name: str,
    asset: str,
    next_commands: tuple[str, ...],
    guesses: Sequence[str] = (),
    dry_run: bool,
) -> Created:
    """Write files, unless it is a dry run, and return what was written.

    Args:
        root: The project.
        changes: The files.
        what: As in `Created`; so are the others.
        name: Of what is made.
        asset: Key of the asset.
        next_commands: Commands that come next.
        guesses: What was guessed.
        dry_run: Whether nothing is written.

    Raises:
        UsageError: A file appeared, or changed, since it was looked at.
        CascadeError: The folder cannot be written.
    """
    if not dry_run:
        write(root, changes)
    return Created(
        what=what,
        name=name,
        asset=asset,
        written=not dry_run,
        new=tuple(change.path for change in changes if change.before is None),
        changed=tuple(change.path for change in changes if change.before is not None),
        texts={change.path: change.text for change in changes if change.path != ".env"},  # secrets
        guesses=tuple(guesses),
        next=next_commands,
    )


def formatted(root: Path, path: str, code: str) -> str:
    """Return Python as the project's own ruff formats it; as it is, where no ruff is installed."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.is_file():
        return code
    command = [str(ruff), "format", "--stdin-filename", str(root / path), "-"]
    done = subprocess.run(command, input=code, cwd=root, capture_output=True, text=True, encoding="utf-8", check=False)
    return done.stdout if done.returncode == 0 and done.stdout else code


def write(root: Path, changes: Sequence[Change]) -> None:
    """Write all files, or none of them; arguments and errors are those of `create`.

    Everything is written beside its place first; then each file gets its name. What was done is undone when that fails.
    """
    suffix = f".{secrets.token_hex(4)}.new"
    staged = {change.path: root / f"{change.path}{suffix}" for change in changes}
    done: list[Change] = []
    folders: list[Path] = []
    try:
        for change in changes:
            folders += _make_folder((root / change.path).parent)
            staged[change.path].touch(0o600 if change.path == ".env" else 0o666)
            staged[change.path].write_bytes(change.content)
        for change in changes:
            _put(root / change.path, staged[change.path], change)
            done.append(change)
    except BaseException as error:
        for change in reversed(done):
            _undo(root / change.path, change)
        if isinstance(error, OSError):
            raise CascadeError(
                f"The files cannot be written: {error.strerror or error}. Nothing was written.",
                where=str(error.filename or root),
                fix="let this user write there, and see whether the disk is full.",
            ) from error
        raise
    finally:
        for file in staged.values():
            with contextlib.suppress(OSError):
                file.unlink()
        if len(done) < len(changes):
            for folder in reversed(folders):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _make_folder(folder: Path) -> Iterator[Path]:
    """Make a folder and those above it; yield the ones that were not there."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir()
        yield new


def _put(target: Path, staged: Path, change: Change) -> None:
    if change.before is None:
        try:
            os.link(staged, target)  # fails when somebody else has made the file
        except FileExistsError:
            raise _moved_error(target) from None
        except OSError:  # a file system without links
            with target.open("xb") as file:
                file.write(change.content)
    elif target.read_bytes() != change.before:
        raise _moved_error(target)
    else:
        os.chmod(staged, target.stat().st_mode)
        os.replace(staged, target)


def _undo(target: Path, change: Change) -> None:
    if change.before is None:
        target.unlink(missing_ok=True)
    else:
        target.write_bytes(change.before)


def _moved_error(target: Path) -> UsageError:
    return UsageError(
        "A file changed while the command was running. Nothing was written.",
        where=str(target),
        fix="run the command again.",
    )
