"""One Trino server: statements that are repeated where that is safe, and errors in words."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import trino
from trino import exceptions as said

from cascade.config import Settings
from cascade.errors import ServiceError
from cascade_servers.names import TRINO_SOURCE
from cascade_servers.patience import Patience
from cascade_servers.settings import TrinoSettings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Answer", "Refused", "Server", "server_of"]

#: The oldest version that our tests have run on: what it lacks, older ones lack too.
OLDEST = 476

_TIMEOUT = 60.0  # seconds for one answer; a long query answers often
#: How long a restart may take, and a server that has never answered, in seconds.
RESTART_SECONDS, FIRST_SECONDS = 90.0, 3.0
_TRY_AGAIN = (429, 502, 503, 504)
_UNAUTHORIZED, _FORBIDDEN = 401, 403
# What a server says while it starts or stops, or has nobody yet to work.
_NOT_NOW = (
    "SERVER_STARTING_UP",
    "SERVER_SHUTTING_DOWN",
    "SERVER_RESTARTED",
    "NO_NODES_AVAILABLE",
    "REMOTE_HOST_GONE",
    "REMOTE_TASK_ERROR",
    "PAGE_TRANSPORT_ERROR",
    "PAGE_TRANSPORT_TIMEOUT",
    "QUERY_QUEUE_FULL",
    "ABANDONED_QUERY",
    "ABANDONED_TASK",
    "TOO_MANY_REQUESTS_FAILED",
)

# What the client of Nessie in Trino says of an answer 5xx, and of none.
_NESSIE_IS_DOWN = re.compile(r"\(HTTP/5\d\d\)|Failed to execute \w+ request against '[^']*/api/v\d")
_CAUSE = re.compile(r"^Caused by: (.+)$", re.MULTILINE)

_Found = TypeVar("_Found")


class Refused(Exception):  # noqa: N818  # an answer, which its caller turns into an error in words
    """Trino does not run a statement.

    Args:
        name: Its name of the error, such as `TABLE_NOT_FOUND`.
        message: Its own words.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class _Lost(Exception):  # noqa: N818
    """No answer, or none yet."""


@dataclass(frozen=True)
class Answer:
    """Rows as Trino's JSON holds them, with what describes their columns."""

    columns: Sequence[dict[str, Any]]
    rows: Sequence[Sequence[Any]]

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return the rows as an Arrow table, under other names if they are given."""
        from cascade_servers.trino.arrow import to_arrow

        signatures = [column["typeSignature"] for column in self.columns]
        return to_arrow(names or [column["name"] for column in self.columns], signatures, self.rows)


@functools.lru_cache(maxsize=8)
def _server(url: str, user: str, password: Any, ca_file: str) -> Server:
    return Server(url, user, password.get_secret_value() if password else None, ca_file or None)


def server_of(settings: Settings) -> Server:
    """Return the server that a project's settings lead to; one for the whole process.

    Args:
        settings: The project's settings.
    """
    own = settings.plugin("trino", TrinoSettings)
    return _server(own.url, own.user, own.password, str(settings.ca_path or ""))


class _Session(requests.Session):
    """Trusts one authority; in a plain session the environment's REQUESTS_CA_BUNDLE would win over it."""

    def __init__(self, ca_file: str | None) -> None:
        super().__init__()
        self.verify = ca_file or True

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        trusted = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, trusted, cert)


class Server:
    """A Trino server as one user.

    Args:
        url: Where it is.
        user: Whom statements run as.
        password: The user's password; without it, none is sent.
        ca_file: PEM file of the authority that signed its certificate.
    """

    def __init__(self, url: str, user: str, password: str | None, ca_file: str | None) -> None:
        place = urlsplit(url)
        self._url, self._where = url, f"setting `trino.url`: {url}, user {user}"
        self._ca_file = ca_file
        self._session = _Session(ca_file)
        self._ready = False
        self._patience = Patience(RESTART_SECONDS, FIRST_SECONDS)
        if password and place.scheme != "https":
            raise ServiceError(
                "Trino takes a password over https only.",
                where=self._where,
                fix="let CASCADE_TRINO__URL begin with https://, or unset CASCADE_TRINO__PASSWORD.",
            )
        self._options: dict[str, Any] = {
            "host": place.hostname,
            "port": place.port or (443 if place.scheme == "https" else 80),
            "user": user,
            "http_scheme": place.scheme,
            "auth": trino.auth.BasicAuthentication(user, password) if password else None,
            "source": TRINO_SOURCE,
            "timezone": "UTC",
            "request_timeout": _TIMEOUT,
            "max_attempts": 1,  # repeating is ours
            "legacy_primitive_types": True,  # values as they come, which `arrow` reads
        }

    def read(self, sql: str, *, catalog: str | None = None, parameters: Sequence[object] | None = None) -> Answer:
        """Run a statement that changes nothing, or nothing that a second time would change again.

        Args:
            sql: The statement.
            catalog: The catalog that its names belong to.
            parameters: Values for the `?` in it.

        Raises:
            Refused: Trino does not run it.
            ServiceError: The server cannot be used.
        """
        return self._repeat(lambda: self._ask(sql, catalog, parameters))

    def _ask(self, sql: str, catalog: str | None, parameters: Sequence[object] | None) -> Answer:
        self._require_ready()
        try:
            connection = trino.dbapi.Connection(catalog=catalog, http_session=_Session(self._ca_file), **self._options)
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, list(parameters) if parameters else None)
                rows = cursor.fetchall()
                # The public description has no types inside of types.
                return Answer(cursor._query.columns or [], rows)
        except said.TrinoQueryError as error:
            if error.error_name in _NOT_NOW:
                raise _Lost(error.message) from None
            if _NESSIE_IS_DOWN.search(error.message):
                raise _Lost(f"its Nessie does not: {_without_stack(error.message).splitlines()[0]}") from None
            raise Refused(error.error_name or "", _without_stack(error.message)) from None
        except said.TrinoConnectionError as error:
            raise self._unreachable(error) from None
        except (said.HttpError, said.OperationalError) as error:
            raise self._http(error) from None

    def _require_ready(self) -> None:
        """Ask once whether the server is one, is new enough, and has started."""
        if self._ready:
            return
        try:
            answer = self._session.get(f"{self._url}/v1/info", timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        try:
            document = answer.json() if answer.ok else {}
            version, starting = str(document["nodeVersion"]["version"]), bool(document["starting"])
        except (ValueError, KeyError, TypeError):
            if answer.status_code in _TRY_AGAIN:
                raise _Lost(f"HTTP {answer.status_code}") from None
            raise ServiceError(
                f"What answers is not Trino (HTTP {answer.status_code}).",
                where=self._where,
                fix="let CASCADE_TRINO__URL be the address of Trino's coordinator, without a path.",
            ) from None
        number = re.match(r"\d+", version)
        if number and int(number[0]) < OLDEST:
            raise ServiceError(
                f"Trino {version} is too old; {OLDEST} or later is needed.",
                where=self._where,
                fix="upgrade the server, or let CASCADE_TRINO__URL lead to another.",
            )
        if starting:
            raise _Starting("it is still starting")
        self._ready = True
        self._patience.answered()

    def wait(self, tell: Callable[[str], None]) -> None:
        """Wait until the server is ready, for as long as a restart takes even if it was never there.

        Args:
            tell: Told once what is waited for.

        Raises:
            ServiceError: The server cannot be used.
        """
        self._patience.first = self._patience.seconds
        self._repeat(self._require_ready, tell)

    def _repeat(self, attempt: Callable[[], _Found], tell: Callable[[str], None] | None = None) -> _Found:
        """Try again while there is no answer, for as long as a restart of the server takes."""
        pause = 0.2
        while True:
            try:
                found = attempt()
            except _Lost as error:
                if not self._patience.lasts(pause, there=isinstance(error, _Starting)):
                    raise ServiceError(
                        f"Trino does not answer: {error}.",
                        where=self._where,
                        fix="see that the server runs and that CASCADE_TRINO__URL leads to it, then run again.",
                    ) from None
                if tell:
                    tell(f"Trino, which does not answer: {error}")
                    tell = None
            except (Refused, ServiceError):
                self._patience.answered()
                raise
            else:
                self._patience.answered()
                return found
            time.sleep(pause)
            pause = min(pause * 2, 3.0)

    def _unreachable(self, error: Exception) -> Exception:
        words = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in words or "SSLError" in words:
            return ServiceError(
                f"The certificate of Trino is not trusted: {_short(words)}",
                where=self._where,
                fix="let CASCADE_CA_FILE name the certificate of the authority that signed it.",
            )
        return _Lost(_short(words))

    def _http(self, error: Exception) -> Exception:
        words = str(error)
        status = int(found[1]) if (found := re.search(r"error (\d{3})", words)) else 0
        if status in _TRY_AGAIN:
            return _Lost(f"HTTP {status}")
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            shown = "user and password" if self._options["auth"] else "a user without password"
            return ServiceError(
                f"Trino refuses access (HTTP {status}): it was given {shown}.",
                where=self._where,
                fix="correct CASCADE_TRINO__USER and CASCADE_TRINO__PASSWORD.",
            )
        if status == requests.codes.not_found:  # a query that a restarted server knows nothing of
            return _Lost("it has restarted")
        return ServiceError(
            f"Trino answers what Cascade does not expect: {words}",
            where=self._where,
            fix="see that CASCADE_TRINO__URL leads to Trino's coordinator.",
        )


class _Starting(_Lost):
    """The server is there and is not ready yet."""


def _short(words: str) -> str:
    """Return the end of a chain of causes, which says what is wrong."""
    if found := re.search(
        r"(Connection refused|Name or service not known|timed out|Connection reset|No route to host"
        r"|Temporary failure in name resolution|CERTIFICATE_VERIFY_FAILED[^')\]]*)",
        words,
    ):
        return found[1]
    return words.splitlines()[0][:300]


def _without_stack(message: str) -> str:
    """Return what an answer says. One of Guice's holds the same stack of calls many times, around its causes."""
    causes: list[str] = _CAUSE.findall(message)
    return causes[0] if causes else message
