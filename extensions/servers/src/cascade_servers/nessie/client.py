"""Nessie's REST API, version 2: requests that are repeated where that is safe, and errors in words."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import requests

from cascade.catalog import user_name
from cascade.config import Settings
from cascade.errors import BranchNotFoundError, ServiceError
from cascade_servers.names import COMMIT_PROPERTY
from cascade_servers.patience import Patience
from cascade_servers.settings import NessieSettings

__all__ = ["NO_ANCESTOR", "Conflict", "NessieClient", "NotThere", "patience_with"]

#: The state before the first commit of every branch (Nessie's own constant).
NO_ANCESTOR = "2e1cfa82b035c26cbbbdae632cea070514eb8b773f616aaeaf668e2f0be8f10d"

#: Property of every commit of ours: by it a commit is recognized whose answer was lost.

_TIMEOUT = (5, 60)  # seconds to connect, to answer
_PATIENCE, _FIRST_PATIENCE = 60.0, 3.0
_TRY_AGAIN = (429, 500, 502, 503, 504)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409

Json = dict[str, Any]
T = TypeVar("T")


class Conflict(Exception):  # noqa: N818  # an answer, which its caller turns into an error in words
    """Nessie refuses a change: what it would replace is not there any more.

    Args:
        message: Nessie's own words.
        keys: The keys `namespace.table` that are in conflict, as far as Nessie names them.
        exists: Whether the reference to be made exists already.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = (), *, exists: bool = False) -> None:
        super().__init__(message)
        self.keys = keys
        self.exists = exists


class NotThere(Exception):  # noqa: N818  # as above
    """There is no such content on the reference."""


class _Lost(Exception):  # noqa: N818
    """No answer: whether the server did what it was asked is unknown."""


class NessieClient:
    """A session with one Nessie server.

    Args:
        settings: The project's settings.

    Attributes:
        session: Sends the requests.

    Raises:
        ServiceError: The server cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._own = settings.plugin("nessie", NessieSettings)
        self._url = self._own.url
        self.session = requests.Session()
        self.session.headers["Nessie-Client-Spec"] = "2"  # conflicts then come with their keys
        # Given with each request: the environment's REQUESTS_CA_BUNDLE would win over the session's.
        self._verify = str(settings.ca_path) if settings.ca_path else True
        self._token_until = 0.0
        self._patience = patience_with(self._url)
        version = self.get("config").get("maxSupportedApiVersion", 0)
        if version < 2:
            raise ServiceError(
                f"This Nessie speaks version {version} of its API; version 2 is needed.",
                where=self._where,
                fix="use Nessie 0.99 or later.",
            )

    def get(self, *path: str, **params: Any) -> Json:
        """Read a document.

        Args:
            path: Parts of the address below the API's root.
            params: The query.

        Raises:
            BranchNotFoundError: There is no such reference.
            NotThere: The reference has no such content.
        """
        return self._repeat(lambda: self._request("GET", path, params, None))

    def pages(self, *path: str, items: str, **params: Any) -> Iterator[Json]:
        """Read a list, page by page; arguments as for `get`, `items` is the list's name in a page."""
        token: str | None = None
        while True:
            page = self.get(*path, **params, **({"page-token": token} if token else {}))
            yield from page[items]
            token = page.get("token")
            if not page.get("hasMore") or not token:
                return

    def reference(self, name: str) -> Json:
        """Return type, name and hash of a branch or tag.

        Raises:
            BranchNotFoundError: There is none of this name.
        """
        found: Json = self.get("trees", name)["reference"]
        return found

    def create(self, name: str, kind: str, source: Json) -> None:
        """Make a reference.

        Args:
            name: Its name.
            kind: `BRANCH` or `TAG`.
            source: The reference that it starts as, with its hash.

        Raises:
            Conflict: The name is taken.
        """
        params = {"name": name, "type": kind}
        self._apply(
            lambda: self._request("POST", ("trees",), params, source), lambda: self._stands(name) == source["hash"]
        )

    def assign(self, reference: Json, target: Json) -> None:
        """Move a branch to the state of another reference.

        Raises:
            Conflict: The branch moved in between.
        """
        path = ("trees", f"{reference['name']}@{reference['hash']}")
        self._apply(
            lambda: self._request("PUT", path, {"type": reference["type"]}, target),
            lambda: self._stands(reference["name"]) == target["hash"],
        )

    def delete(self, reference: Json) -> None:
        """Drop a reference that is in the state that is named.

        Raises:
            Conflict: It moved in between.
            BranchNotFoundError: It is gone already.
        """
        path = ("trees", f"{reference['name']}@{reference['hash']}")
        self._apply(
            lambda: self._request("DELETE", path, {"type": reference["type"]}, None),
            lambda: self._stands(reference["name"]) is None,
        )

    def commit(self, branch: str, expected: str, operations: list[Json], message: str, **properties: str) -> None:
        """Commit several changes at once, all or none.

        Args:
            branch: The branch.
            expected: The hash that the operations were planned on.
            operations: `PUT` and `DELETE` of contents by key.
            message: What the log says.
            properties: What else the commit carries.

        Raises:
            Conflict: One of the keys changed since that hash.
            ServiceError: The server does not answer; what it did is unknown.
        """
        meta, token = _commit_meta(message, properties)
        body = {"commitMeta": meta, "operations": operations}
        self._once(branch, expected, token, ("trees", f"{branch}@{expected}", "history", "commit"), body)

    def merge(self, branch: str, expected: str, body: Json, message: str, **properties: str) -> None:
        """Merge; `body` is Nessie's own request without the commit's metadata. Else as `commit`."""
        meta, token = _commit_meta(message, properties)
        path = ("trees", f"{branch}@{expected}", "history", "merge")
        self._once(branch, expected, token, path, {**body, "commitMeta": meta})

    def _once(self, branch: str, expected: str, token: str, path: tuple[str, ...], body: Json) -> None:
        self._apply(lambda: self._request("POST", path, {}, body), lambda: self._has_landed(branch, expected, token))

    def _apply(self, send: Callable[[], object], has_landed: Callable[[], bool]) -> None:
        """Apply a change exactly once, also when answers get lost."""
        lost = False

        def attempt() -> None:
            nonlocal lost
            try:
                send()
            except _Lost:
                lost = True
                if not has_landed():
                    raise
            except (Conflict, BranchNotFoundError):
                # With what others did; or with ourselves, when the request whose answer was lost arrived late.
                if not lost or not has_landed():
                    raise

        self._repeat(attempt)

    def _stands(self, name: str) -> str | None:
        """Return the hash of a reference; `None` where there is none."""
        try:
            return str(self.reference(name)["hash"])
        except BranchNotFoundError:
            return None

    def _has_landed(self, branch: str, expected: str, token: str) -> bool:
        """Say whether a commit of ours is on a branch: look from its newest commit back to where it began."""
        for entry in self.pages("trees", branch, "history", items="logEntries", **{"max-records": 100}):
            meta = entry["commitMeta"]
            if meta["hash"] == expected:
                return False
            if meta.get("allProperties", {}).get(COMMIT_PROPERTY) == [token]:
                return True
        return False

    def _repeat(self, attempt: Callable[[], T]) -> T:
        """Try again while there is no answer, for as long as a restart of the server takes."""
        pause = 0.1
        while True:
            try:
                return attempt()
            except _Lost as error:
                if not self._patience.lasts(pause):
                    raise ServiceError(
                        f"Nessie does not answer: {error}",
                        where=self._where,
                        fix="see that the server runs and has its database, and that CASCADE_NESSIE__URL leads to it; "
                        "then run again: nothing was half done.",
                    ) from error
            time.sleep(pause)
            pause = min(pause * 2, 3.0)

    def _request(self, method: str, path: tuple[str, ...], params: Json, body: Any) -> Json:
        address = "/".join([self._url, *(quote(part, safe="@*:~") for part in path)])
        try:
            self._log_in()
            options: Json = {"params": params, "json": body, "timeout": _TIMEOUT, "verify": self._verify}
            answer = self.session.request(method, address, **options)
            if answer.status_code == _UNAUTHORIZED and self._own.client_secret:
                self._token_until = 0.0  # it may have expired early: once more with a fresh one
                self._log_in()
                answer = self.session.request(method, address, **options)
        except requests.exceptions.SSLError as error:
            raise ServiceError(
                f"The certificate of Nessie is not trusted: {_short(error)}",
                where=self._where,
                fix="let CASCADE_CA_FILE name the certificate of the authority that signed it.",
            ) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Lost(_short(error)) from None
        except requests.RequestException as error:
            raise ServiceError(
                f"Nessie cannot be asked: {_short(error)}", where=self._where, fix="correct CASCADE_NESSIE__URL."
            ) from None
        return self._read(answer)

    def _read(self, answer: requests.Response) -> Json:
        if answer.status_code in _TRY_AGAIN:
            raise _Lost(f"HTTP {answer.status_code}")
        self._patience.answered()
        if answer.status_code in (_UNAUTHORIZED, _FORBIDDEN):
            has = "a client's token" if self._own.client_secret else "CASCADE_NESSIE__TOKEN"
            shown = has if self._own.client_secret or self._own.token else "no credentials"
            raise ServiceError(
                f"Nessie refuses access (HTTP {answer.status_code}): it was given {shown}.",
                where=self._where,
                fix="set CASCADE_NESSIE__TOKEN to a token that has not expired, or "
                "CASCADE_NESSIE__TOKEN_URL, __CLIENT_ID and __CLIENT_SECRET to a client that may read and commit.",
            )
        if answer.status_code == requests.codes.no_content:
            return {}
        try:
            document: Json = answer.json()
        except requests.JSONDecodeError:
            document = {}
        if answer.ok and document:
            return document
        code, said = document.get("errorCode"), str(document.get("message", ""))
        if code == "REFERENCE_NOT_FOUND":
            raise BranchNotFoundError(
                f"There is no such branch or tag: {said}", fix="`cascade branch list` shows those that there are."
            )
        if code in ("CONTENT_NOT_FOUND", "NAMESPACE_NOT_FOUND"):
            raise NotThere(said)
        if answer.status_code == _CONFLICT:
            conflicts = (document.get("errorDetails") or {}).get("conflicts") or []
            keys = tuple(".".join(c["key"]["elements"]) for c in conflicts if c.get("key"))
            raise Conflict(said, keys, exists=code == "REFERENCE_ALREADY_EXISTS")
        raise ServiceError(
            f"Nessie answers what Cascade does not expect: HTTP {answer.status_code} {said or answer.reason}",
            where=self._where,
            fix="see that CASCADE_NESSIE__URL ends with /api/v2 and leads to Nessie 0.99 or later.",
        )

    def _log_in(self) -> None:
        """Give the session its token; one of OAuth2 client credentials is fetched, and renewed before it expires."""
        settings = self._own
        if settings.token:
            self.session.headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        if not settings.client_secret or time.monotonic() < self._token_until:
            return
        # RFC 6749, section 4.4; the client authenticates by HTTP Basic, section 2.3.1.
        answer = requests.post(
            settings.token_url,
            data={"grant_type": "client_credentials"},
            auth=(settings.client_id, settings.client_secret.get_secret_value()),
            verify=self._verify,
            timeout=_TIMEOUT,
        )
        if answer.status_code in _TRY_AGAIN:
            raise requests.ConnectionError(f"the token server answers HTTP {answer.status_code}")
        try:
            document = answer.json() if answer.ok else {}
        except requests.JSONDecodeError:
            document = {}
        if "access_token" not in document:
            raise ServiceError(
                f"No token for Nessie: the token server answers HTTP {answer.status_code} {answer.reason}.",
                where=f"{settings.token_url}, setting `nessie.token_url`",
                fix="correct CASCADE_NESSIE__TOKEN_URL, __CLIENT_ID and __CLIENT_SECRET.",
            )
        self.session.headers["Authorization"] = f"Bearer {document['access_token']}"
        # Without `expires_in` it is used until it is refused.
        self._token_until = time.monotonic() + max(float(document.get("expires_in", 300)) - 30, 5)

    @property
    def _where(self) -> str:
        return f"{self._url}, setting `nessie.url`"


@functools.cache
def patience_with(_url: str) -> Patience:
    """Return the one patience of this process with a server."""
    return Patience(_PATIENCE, _FIRST_PATIENCE)


def _commit_meta(message: str, properties: dict[str, str]) -> tuple[Json, str]:
    token = uuid.uuid4().hex
    values = {COMMIT_PROPERTY: [token], **{f"cascade.{name}": [value] for name, value in properties.items()}}
    # Whom the token belongs to, Nessie adds by itself, as the committer.
    return {"message": message, "authors": [name] if (name := user_name()) else [], "allProperties": values}, token


def _short(error: Exception) -> str:
    """Return the innermost cause of an error of `requests`, whose own text repeats the address and an object's id."""
    cause: Any = error
    while getattr(cause, "args", None) and isinstance(cause.args[0], Exception):
        cause = cause.args[0]
    reason = getattr(cause, "reason", None) or cause
    return str(reason).rpartition(": ")[2] or type(reason).__name__
