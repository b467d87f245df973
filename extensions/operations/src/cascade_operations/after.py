"""What installed packages do when a command that runs or promotes has ended, such as to tell people of it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cascade.catalog import open_catalog
from cascade.config import Settings
from cascade.errors import CascadeError
from cascade.plugins import load_all
from cascade_operations.events import Followed, Listener, NotLoaded

__all__ = ["AfterCommand", "Ended", "alone", "followed"]


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        command: The command, such as `cascade run`.
        branch: The branch that it promotes, or that its runs wrote to; empty when each has one of its own.
        since: When it began, in UTC.
        promoted: Whether it was to promote the branch by itself, without a run.
        error: Why it did not work; `None` also when it did and one of its runs failed, which Dagster's storage tells.
    """

    command: str
    branch: str
    since: dt.datetime
    promoted: bool = False
    error: Exception | None = None


class AfterCommand(Protocol):
    """Group `cascade.after_command`, by any name: follows the commands that run or promote."""

    def __call__(self, settings: Settings) -> Callable[[Ended], str] | None:
        """Get ready before a command begins; what it raises refuses the command.

        Args:
            settings: The project's settings.

        Returns:
            What is called once the command has ended, and gives what it did, in words, or "". `None`: nothing is.
        """


@contextlib.contextmanager
def followed(
    settings: Settings, tell: Listener, command: str, *, branch: str = "", promoted: bool = False
) -> Iterator[None]:
    """Let installed packages follow what the block does; what they do never fails it.

    Args:
        settings: The project's settings.
        tell: Told of what they did.
        command: As `Ended` says it, as are `branch` and `promoted`.
        branch: The branch.
        promoted: Whether the block promotes.

    Raises:
        ConfigurationError: A package refuses the settings; the block does not begin.
    """
    followers: list[tuple[str, Callable[[Ended], str]]] = []
    for record in load_all("cascade.after_command", AfterCommand):
        if record.cause:
            tell(NotLoaded(str(record)))
        elif (follower := record.object(settings)) is not None:
            followers.append((record.name, follower))
    since = dt.datetime.now(dt.UTC)

    def follow(error: Exception | None) -> None:
        for name, follower in followers:
            try:
                said = follower(Ended(command, branch, since, promoted, error))
            # A package may raise anything.
            except Exception as failure:  # noqa: BLE001
                said = f"{type(failure).__name__}: {failure}"
            if said:
                tell(Followed(name, said))

    try:
        yield
    except Exception as error:
        follow(error)
        raise
    follow(None)


@contextlib.contextmanager
def alone(settings: Settings, lock: str) -> Iterator[None]:
    """Keep other processes from telling the same. While the catalog is away, better twice than not at all.

    Args:
        settings: The project's settings.
        lock: The name of what is told, as of a table.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(CascadeError):
            held.enter_context(open_catalog(settings).table_lock(lock))
        yield
