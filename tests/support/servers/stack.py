"""All servers of the production engine together, on loopback, with ports and credentials of their own."""

import fcntl
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .downloads import Programs, programs
from .nessie import nessie
from .postgres import PASSWORDS, SUPERUSER, make_roles, postgres, url
from .processes import Server, free_ports
from .s3 import REGION, make_bucket, s3
from .trino import trino

__all__ = ["Stack"]

_TEMPLATE = Path(__file__).resolve().parents[3] / "template" / "services"
_BUCKET = "warehouse"
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
        ports = dict(zip(("postgres", "s3", "nessie", "health", "trino"), free_ports(5), strict=True))
        passwords = {name: secrets.token_urlsafe(24) for name in PASSWORDS}
        access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(30)
        self.superuser_url = url(ports["postgres"], SUPERUSER, passwords["POSTGRES_PASSWORD"])

        def role(name: str, database: str) -> str:
            key = f"POSTGRES_{name.upper()}_PASSWORD"
            return url(ports["postgres"], f"cascade_{name}", passwords[key], database)

        self.reader_url = role("reader", "marts")
        lake = {
            "CASCADE_WAREHOUSE": f"s3://{_BUCKET}",
            "CASCADE_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
            "CASCADE_S3_REGION": REGION,
            "CASCADE_S3_PATH_STYLE": "true",
            "CASCADE_S3_ACCESS_KEY": access_key,
            "CASCADE_S3_SECRET_KEY": secret_key,
            "CASCADE_NESSIE__URL": f"http://127.0.0.1:{ports['nessie']}/api/v2",
        }
        self.environment = {
            "CASCADE_ENGINE": "trino",
            **lake,
            "CASCADE_TRINO__URL": f"http://127.0.0.1:{ports['trino']}",
            "CASCADE_CATALOG_URL": role("catalog", "cascade"),
            "CASCADE_DAGSTER_URL": role("dagster", "dagster"),
            "CASCADE_MARTS_URL": role("publisher", "marts"),
        }
        self.servers: dict[str, Server] = {}
        self._found, self._ports, self._passwords, self._lake = found, ports, passwords, lake

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
        self._define()
        self.servers["trino"].launch()  # the slowest; it needs the others only when it is asked something
        self.servers["s3"].launch()
        self.servers["postgres"].start()
        make_roles(self._found.postgres, port=self._ports["postgres"], passwords=self._passwords)
        self.servers["nessie"].launch()
        self.servers["s3"].wait()
        keys = {name: self.environment[f"CASCADE_S3_{name.upper()}"] for name in ("access_key", "secret_key")}
        make_bucket(_BUCKET, endpoint=self.environment["CASCADE_S3_ENDPOINT"], **keys)
        self.servers["nessie"].wait()
        self.servers["trino"].wait()

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

    def _define(self) -> None:
        found, ports, passwords, lake = self._found, self._ports, self._passwords, self._lake
        folders = {name: self.folder / name for name in ("postgres", "s3", "nessie", "trino")}
        for folder in folders.values():
            folder.mkdir()
        self.servers["s3"] = s3(
            folders["s3"],
            program=found.versitygw,
            port=ports["s3"],
            access_key=lake["CASCADE_S3_ACCESS_KEY"],
            secret_key=lake["CASCADE_S3_SECRET_KEY"],
        )
        self.servers["postgres"] = postgres(
            folders["postgres"], programs=found.postgres, port=ports["postgres"], passwords=passwords
        )
        self.servers["nessie"] = nessie(
            folders["nessie"],
            jar=found.nessie,
            java=found.java,
            template=_TEMPLATE / "nessie",
            port=ports["nessie"],
            management_port=ports["health"],
            database=f"jdbc:postgresql://127.0.0.1:{ports['postgres']}/nessie",
            password=passwords["POSTGRES_NESSIE_PASSWORD"],
        )
        self.servers["trino"] = trino(
            folders["trino"],
            program=found.trino,
            java=found.java,
            template=_TEMPLATE / "trino",
            port=ports["trino"],
            environment=lake,
        )


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
