"""Reach PostgreSQL: one way to open it, one way to say what is wrong with it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cascade.errors import ServiceError
from cascade_servers.patience import Patience

if TYPE_CHECKING:
    import sqlalchemy as sa
    from pydantic import SecretStr

__all__ = [
    "explain_postgres",
    "is_restarting",
    "open_postgres",
    "patience_with",
    "repeat_while_restarting",
    "wait_for_postgres",
    "with_driver",
]

T = TypeVar("T")

#: Seconds until a server that does not answer is given up.
CONNECT_SECONDS = 10
_PATIENCE, _FIRST_PATIENCE = 60.0, 0.0
_PAUSE = 0.5

# What the server or the network says, and what it means. First match wins.
_CAUSES: tuple[tuple[str, str], ...] = (
    ("password authentication failed", "user or password is wrong"),
    ("no password supplied", "the URL has no password"),
    ("permission denied", "the role may not do this"),
    ("does not exist", "the database, role or table does not exist"),
    ("starting up", "the server is still starting"),
    ("shutting down", "the server is shutting down"),
    ("server closed the connection", "the server went away"),
    ("terminating connection", "the server ended the connection"),
    ("connection refused", "nobody listens there"),
    ("lock timeout", "somebody holds what must change"),
    ("timeout", "it does not answer"),
    ("could not translate host name", "there is no such host"),
    ("failed to resolve host", "there is no such host"),
    ("too many connections", "it has no connection left"),
    ("No space left", "its disk is full"),
)
_RESTARTING = ("starting up", "shutting down", "server closed the connection", "terminating connection")


def with_driver(url: SecretStr, driver: str = "psycopg") -> sa.URL:
    """Return a PostgreSQL URL for SQLAlchemy with the driver spelled out: what it means without one has changed.

    Args:
        url: `postgresql://user:password@host:port/database`.
        driver: `psycopg`, version 3, or `psycopg2`, which Dagster wants.
    """
    import sqlalchemy as sa

    return sa.make_url(url.get_secret_value()).set(drivername=f"postgresql+{driver}")


def open_postgres(url: SecretStr) -> sa.Engine:
    """Return a connection pool; a connection that the server has closed is replaced.

    Args:
        url: `postgresql://user:password@host:port/database`.
    """
    import sqlalchemy as sa

    return sa.create_engine(
        with_driver(url),
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "cascade"},
    )


def wait_for_postgres(engine: sa.Engine, url: SecretStr, setting: str) -> sa.Engine:
    """Let a pool connect again for as long as a restart of the server takes, and return it.

    Args:
        engine: The pool; asked for a connection, it raises a `ServiceError` when the server is gone.
        url: The server.
        setting: Name of the setting that holds the URL.
    """
    import sqlalchemy as sa

    patience = patience_with(engine.url.host, engine.url.port)

    def connect(dialect: sa.Dialect, _record: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        while True:
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.Error as error:
                restarting = is_restarting(error)
                refused = "FATAL" in _words(error) and not restarting
                if refused or not patience.lasts(_PAUSE, there=restarting):
                    raise explain_postgres(error, url, setting) from error
            else:
                patience.answered()
                return connection
            time.sleep(_PAUSE)

    sa.event.listen(engine, "do_connect", connect)
    return engine


def repeat_while_restarting(work: Callable[[], T], url: SecretStr, setting: str) -> T:
    """Run work on the server, up to five times as long as the server is stopping or starting.

    Args:
        work: What to do; it may run again from its beginning.
        url: The server.
        setting: Name of the setting that holds the URL.

    Raises:
        ServiceError: The server cannot be used.
    """
    import sqlalchemy as sa
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    again = retry_if_exception(lambda error: isinstance(error, sa.exc.DBAPIError) and is_restarting(error))
    attempts = Retrying(retry=again, stop=stop_after_attempt(5), wait=wait_exponential(0.5), reraise=True)
    try:
        return attempts(work)
    except sa.exc.DBAPIError as error:
        raise explain_postgres(error, url, setting) from error


@functools.cache
def patience_with(_host: str | None, _port: int | None) -> Patience:
    """Return the one patience of this process with a server."""
    return Patience(_PATIENCE, _FIRST_PATIENCE)


def explain_postgres(error: BaseException, url: SecretStr, setting: str) -> ServiceError:
    """Say what is wrong with PostgreSQL, and which setting leads there; never the password.

    Args:
        error: What the driver raised.
        url: Where it was sent.
        setting: Name of the setting that holds the URL.
    """
    place = with_driver(url)
    said = _words(error)
    cause = next((meaning for text, meaning in _CAUSES if text.lower() in said.lower()), said.splitlines()[0])
    return ServiceError(
        f"PostgreSQL cannot be used: {cause}.",
        where=f"{place.host or 'local socket'}:{place.port or 5432}, database {place.database},"
        f" user {place.username}, setting `{setting}`",
        fix=f"see that the server runs and correct CASCADE_{setting.upper()}. It said: {said.splitlines()[0]}",
    )


def is_restarting(error: BaseException) -> bool:
    """Say whether an error comes from a server that is stopping or starting, so that it is worth another try."""
    said = _words(error).lower()
    return any(text in said for text in _RESTARTING) or getattr(error, "connection_invalidated", False)


def _words(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).strip() or type(original).__name__
