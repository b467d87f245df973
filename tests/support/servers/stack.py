"""All servers of the production engine together, on loopback, with ports and credentials of their own."""

import fcntl
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cascade_services.native.downloads import Programs, programs
from cascade_services.native.postgres import PASSWORDS, SUPERUSER, url
from cascade_services.native.processes import Server, free_ports
from cascade_services.native.stack import (
    NAMES,
    PORTS,
    define_servers,
    lake_settings,
    start_servers,
)

__all__ = ["Stack"]

_TEMPLATE = Path(__file__).resolve().parents[3] / "template" / "services"
_PREFIX = "cascade-stack-"


class Stack:
    """PostgreSQL, versitygw, Nessie and Trino: started in order, ended whatever happens.

    Args:
        found: The programs; fetched when not given.

    Attributes:
        folder: Everything that the servers write.
        servers: By name: `postgres`, `s3`, `nessie`, `trino`.
        environment: The settings of a project on these servers, `CASCADE_*`.
        superuser_url: PostgreSQL's superuser.
        reader_url: PostgreSQL's role that reads marts.
    """

    def __init__(self, found: Programs | None = None) -> None:
        found = found or programs()
        _remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.folder.chmod(0o711)  # PostgreSQL's user passes through
        self._owner = _own(self.folder)
        values = {PORTS[name]: str(port) for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
        values |= {name: secrets.token_urlsafe(24) for name in PASSWORDS}
        values |= {"CASCADE_S3_ACCESS_KEY": secrets.token_hex(10), "CASCADE_S3_SECRET_KEY": secrets.token_urlsafe(30)}
        self.superuser_url = url(int(values["POSTGRES_PORT"]), SUPERUSER, values["POSTGRES_PASSWORD"])

        def role(name: str, database: str) -> str:
            password = values[f"POSTGRES_{name.upper()}_PASSWORD"]
            return url(int(values["POSTGRES_PORT"]), f"cascade_{name}", password, database)

        self.reader_url = role("reader", "marts")
        self.environment = {
            "CASCADE_ENGINE": "trino",
            **lake_settings(values),
            "CASCADE_TRINO__URL": f"http://127.0.0.1:{values['TRINO_PORT']}",
            "CASCADE_CATALOG_URL": role("catalog", "cascade"),
            "CASCADE_DAGSTER_URL": role("dagster", "dagster"),
            "CASCADE_MARTS_URL": role("publisher", "marts"),
        }
        self.servers: dict[str, Server] = {}
        self._found, self._values = found, values

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start all servers and wait until they answer."""
        self.servers = define_servers(self.folder, self._values, templates=_TEMPLATE, found=self._found)
        start_servers(self.servers, self._values, templates=_TEMPLATE, found=self._found)

    def restart(self, name: str) -> None:
        """Kill a server and start it again, on the same port and with the same data."""
        self.servers[name].restart()

    def kill(self, name: str) -> None:
        """Kill a server as a power failure would."""
        self.servers[name].kill()

    def close(self) -> None:
        """End all servers and remove what they wrote."""
        for name in ("trino", "nessie", "s3"):
            if name in self.servers:
                self.servers[name].kill()  # nothing of theirs is needed any more
        if "postgres" in self.servers:
            self.servers["postgres"].stop()  # killed, it would leave a segment of shared memory
        shutil.rmtree(self.folder, ignore_errors=True)
        self._owner.close()


def _own(folder: Path) -> IO[str]:
    """Lock a folder for as long as this process lives."""
    file = (folder / "owner.new").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    (folder / "owner.new").rename(folder / "owner")
    return file


def _remove_leftovers() -> None:
    """Remove the folders of stacks whose process was killed."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/owner"):
        with owner.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(owner.parent, ignore_errors=True)
