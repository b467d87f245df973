"""Whether and where events go: what `openlineage-python` reads of the environment, and its client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.config import Settings
from cascade.errors import ConfigurationError

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

__all__ = ["is_asked_for", "open_client"]

_FILE = "openlineage.yml"


def is_asked_for(settings: Settings) -> bool:
    """Say whether a receiver is configured, in one of the ways of `openlineage-python`."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    named = any(name.startswith(("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__")) for name in os.environ)
    # A container's user may have no home.
    folders = (settings.project_dir, Path(os.path.expanduser("~/.openlineage")))
    return named or any((folder / _FILE).is_file() for folder in folders)


@contextlib.contextmanager
def open_client(settings: Settings) -> Iterator[OpenLineageClient]:
    """Open what sends events while the block runs.

    Raises:
        ConfigurationError: The configuration cannot be used.
    """
    from openlineage.client import OpenLineageClient

    before = {*os.environ}
    config = os.environ.get("OPENLINEAGE_CONFIG")
    try:
        if config and not (settings.project_dir / config).is_file():
            raise ValueError(f"there is no file {config}, which OPENLINEAGE_CONFIG names")
        with contextlib.chdir(settings.project_dir):  # it looks for openlineage.yml there
            client = OpenLineageClient()
        if client.transport.kind == "async_http":
            raise ValueError("the transport async_http does not tell whether an event has arrived; http does")
    # It raises what its transports raise. Texts may hold a key, unless they are ours.
    except Exception as error:  # noqa: BLE001
        said = str(error) if isinstance(error, ValueError) and "://" not in str(error) else type(error).__name__
        raise ConfigurationError(
            f"No receiver of OpenLineage's events can be used: {said}.",
            where="variables OPENLINEAGE_…, or openlineage.yml",
            fix="correct them, such as OPENLINEAGE_URL=http://127.0.0.1:5000; OPENLINEAGE_DISABLED=true sends nothing.",
        ) from None
    finally:
        for name in {*os.environ} - before:  # it writes variables of its own, which the next client would read
            del os.environ[name]
    try:
        yield client
    finally:
        client.close()
