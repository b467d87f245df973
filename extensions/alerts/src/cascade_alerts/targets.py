"""Targets: addresses of apprise with their secrets, checked before anything is sent; and how a message is sent."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cascade.config import Settings
from cascade.errors import ConfigurationError
from cascade_alerts.settings import Target, of

if TYPE_CHECKING:
    from apprise import Apprise

__all__ = ["Receiver", "open_receivers"]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PARTS = re.compile(r"[/:@?&=#]+")
_SHORT = 4
_KINDS = {"failure": "failure", "recovery": "success", "test": "info"}


@dataclass(frozen=True)
class Receiver:
    """A target that messages can be sent to.

    Attributes:
        name: Its name in the settings.
        events: What it is told of.
        shown: Its address without secrets.
    """

    name: str
    events: tuple[str, ...]
    shown: str
    _service: Apprise = field(repr=False)
    _secrets: frozenset[str] = field(repr=False)

    def send(self, title: str, body: str, kind: Literal["failure", "recovery", "test"]) -> str:
        """Send a message; return why it could not be sent, without secrets, and "" when it was."""
        with _caught() as said:
            try:
                sent = self._service.notify(body=body, title=title, notify_type=_KINDS[kind], body_format="text")
            # A service of apprise may raise anything; nobody's run must suffer.
            except Exception as error:  # noqa: BLE001
                sent = None
                said.append(type(error).__name__)
        why = " ".join(said) or "it gives no reason"
        for secret in sorted(self._secrets, key=len, reverse=True):
            why = why.replace(secret, "***")
        return "" if sent else why


def open_receivers(settings: Settings) -> list[Receiver]:
    """Return the targets of a project's settings, ready to be sent to; nothing is sent.

    Raises:
        ConfigurationError: apprise is not installed, a secret is missing or is in a file, or an address is wrong; all
            that is wrong is named together.
    """
    targets = of(settings).targets
    if not targets:
        return []
    try:
        import apprise  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Messages cannot be sent: the package apprise is not installed.",
            where="setting `alerts.targets`",
            fix="install it with `uv sync --extra alerts`.",
        ) from None
    source = settings.sources.get("alerts.targets", "environment")
    found = {name: _open(name, target, source) for name, target in targets.items()}
    if problems := [what for what in found.values() if isinstance(what, str)]:
        raise ConfigurationError(
            f"Wrong targets of alerts: {'; '.join(problems)}.",
            where=f"setting `alerts.targets`, {source}",
            fix="correct them; `cascade alerts test` sends a message to each. Where nobody must be told, set "
            "CASCADE_ALERTS__TARGETS={} in `.env`.",
        )
    return [receiver for receiver in found.values() if isinstance(receiver, Receiver)]


def _open(name: str, target: Target, source: str) -> Receiver | str:
    """Return a target, or what is wrong with it."""
    from apprise import Apprise, AppriseAsset, NotificationManager

    written = target.url.get_secret_value()
    variables = _VARIABLE.findall(written)
    if missing := [variable for variable in variables if not os.environ.get(variable)]:
        return f"`{name}`: {', '.join(missing)} is not set, in the environment or in `.env`"
    url = _VARIABLE.sub(lambda variable: os.environ[variable[1]], written)
    scheme = url.partition("://")[0].lower()
    with _caught():  # its log may hold the address
        schemes: list[str] = NotificationManager().schemas()  # type: ignore[no-untyped-call]
        service = Apprise.instantiate(url, asset=AppriseAsset(app_id="Cascade", app_desc="Cascade", app_url=""))
    if service is None and scheme not in schemes:
        # What does not look like a scheme may be the secret itself.
        is_one = "://" in url and re.fullmatch(r"[a-z0-9.+-]{1,20}", scheme)
        word = f"`{scheme}://`" if is_one else "what it begins with"
        nearest = difflib.get_close_matches(scheme, sorted(schemes), 1, 0.6)
        meant = f"; `{nearest[0]}://` may be meant" if nearest else "; a webhook is `json://` or `jsons://` (with TLS)"
        return f"`{name}`: {word} is not a kind of address that apprise knows{meant}"
    if service is None:
        return f"`{name}`: the address is not complete for `{scheme}://`; https://appriseit.com says what it needs"
    in_file = source not in ("environment", ".env")
    masked, plain = service.url(privacy=True), service.url()  # type: ignore[no-untyped-call]
    if in_file and not variables and masked != plain:
        return f"`{name}`: the address holds a secret; put that in `.env`, and write ${{NAME}} for it in {source}"
    secret = [os.environ[variable] for variable in variables] if in_file or variables else [url]
    parts = {part for text in secret for part in [text, *_PARTS.split(text)] if len(part) >= _SHORT} - {scheme}
    shown = written if in_file or variables else f"{scheme}://***"
    sender = Apprise()
    sender.add(service)
    return Receiver(name, target.events, shown, sender, frozenset(parts))


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    """Keep what apprise logs from all logs, for it may hold secrets; give its warnings to the caller."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("apprise"), Keep(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its own services, when they are imported
            yield said
    finally:
        logger.propagate = before
        logger.removeHandler(handler)
