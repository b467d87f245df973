"""All servers with `services/access.yaml`'s own files: TLS, passwords, tokens and roles, as containers have them."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from cascade.config import Settings, load_settings
from cascade.errors import ServiceError
from cascade_services.env import complete_env, read_env
from cascade_services.native.downloads import programs
from cascade_services.native.nessie import nessie
from cascade_services.native.postgres import PASSWORDS, make_roles, postgres
from cascade_services.native.processes import Server, answers, free_ports
from cascade_services.native.s3 import s3
from cascade_services.native.trino import trino
from support.generated import BIN, REPOSITORY

_PORTS = ("DAGSTER_PORT", "POSTGRES_PORT", "S3_PORT", "NESSIE_PORT", "TRINO_PORT")


@dataclass
class Secured:
    """Running servers.

    Attributes:
        project: A project's folder: `.env`, `services`, `.cascade/access`.
        values: What `.env` says.
        settings: Of the pipeline.
        inside: The ports that only containers reach: `trino` by plain HTTP, `nessie`, `dagster`.
        servers: By name.
    """

    project: Path
    values: dict[str, str]
    settings: Settings
    inside: dict[str, int]
    servers: dict[str, Server]

    @property
    def authority(self) -> Path:
        """The certificate that all others are signed with."""
        return self.project / ".cascade/access/ca.pem"

    def token(self, role: str) -> str:
        """Return a role's token for Nessie."""
        return (self.project / f".cascade/access/{role}.jwt").read_text()


@contextmanager
def secured() -> Iterator[Secured]:
    """Start PostgreSQL, versitygw, Nessie, Trino and Caddy, and end them."""
    found = programs()
    system = _postgres_with_tls()
    root = Path(tempfile.mkdtemp(prefix="cascade-access-"))
    root.chmod(0o711)  # PostgreSQL's user passes through
    servers: dict[str, Server] = {}
    page = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        values = prepare(root)
        ports = {name: int(values[f"{name.upper()}_PORT"]) for name in ("postgres", "s3")}
        inside = dict(zip(("trino", "trino_https", "nessie", "management", "health"), free_ports(5), strict=True))
        inside["dagster"] = page.server_port
        own = {name: root / "servers" / name for name in ("postgres", "s3", "nessie", "trino", "caddy")}
        for folder in own.values():
            folder.mkdir(parents=True)
        access, made = root / "services/access", root / ".cascade/access"

        # As `cp` does in the container.
        shutil.copytree(access / "trino", root / "services/trino", dirs_exist_ok=True)
        servers["trino"] = trino(
            own["trino"],
            program=found.trino,
            java=found.java,
            template=root / "services/trino",
            port=inside["trino"],
            environment={
                **_lake(values, inside),
                "TRINO_HTTPS_PORT": str(inside["trino_https"]),
                "ACCESS_DIR": str(made),
                **{name: value for name, value in values.items() if name.startswith("ACCESS_")},
            },
        )
        servers["trino"].launch()

        servers["s3"] = s3(
            own["s3"],
            program=found.versitygw,
            port=ports["s3"],
            access_key=values["ACCESS_S3_ROOT_KEY"],
            secret_key=values["ACCESS_S3_ROOT_SECRET"],
            users=own["s3"] / "users",
        )
        (own["s3"] / "users").mkdir()
        (own["s3"] / "data/warehouse").mkdir(parents=True)
        servers["s3"].start()
        _run(root, "s3_users.py")

        passwords = {name: values[name] for name in PASSWORDS}
        servers["postgres"] = postgres(own["postgres"], programs=system, port=ports["postgres"], passwords=passwords)
        servers["postgres"].start()
        roles = root / "services/postgres/roles.sql"
        make_roles(system, roles, port=ports["postgres"], passwords=passwords)
        _secure_postgres(own["postgres"], access, made)
        servers["postgres"].restart()

        # One file in place of several that QUARKUS_CONFIG_LOCATIONS names.
        configuration = root / "services/nessie/application.properties"
        with configuration.open("a") as file:
            file.write((access / "nessie.properties").read_text() + (made / "nessie.properties").read_text())
        servers["nessie"] = nessie(
            own["nessie"],
            jar=found.nessie,
            java=found.java,
            template=root / "services/nessie",
            port=inside["nessie"],
            management_port=inside["management"],
            database=f"jdbc:postgresql://127.0.0.1:{ports['postgres']}/nessie"
            f"?sslmode=verify-full&sslrootcert={made / 'authorities.pem'}",
            password=values["POSTGRES_NESSIE_PASSWORD"],
        )
        # Without a token it answers nothing but that it is well.
        servers["nessie"]._ready = answers(f"http://127.0.0.1:{inside['management']}/q/health/ready")
        servers["caddy"] = _caddy(own["caddy"], access / "Caddyfile", made, values, inside)
        servers["caddy"].launch()
        servers["nessie"].start()
        for name in ("caddy", "trino"):
            servers[name].wait()
        yield Secured(root, values, load_settings(root), inside, servers)
    finally:
        for name, server in servers.items():
            server.stop() if name == "postgres" else server.kill()
        page.shutdown()
        page.server_close()
        shutil.rmtree(root, ignore_errors=True)


def _postgres_with_tls() -> Path:
    """Return the system's PostgreSQL: that of the Python package is built without TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise ServiceError("These tests need a PostgreSQL that knows TLS.", fix="apt-get install postgresql")
    return found[-1].parents[1]


def prepare(root: Path, **more: str) -> dict[str, str]:
    """Make a project's files as its owner does, with `more` in `.env`, and return what that says then."""
    shutil.copytree(REPOSITORY / "template/services", root / "services")
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    ports = zip(_PORTS, free_ports(len(_PORTS)), strict=True)
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in [*ports, *more.items()]))
    complete_env(root)
    _run(root, "prepare.py")
    return read_env(root)


def _run(root: Path, script: str) -> None:
    command = [sys.executable, root / "services/access" / script]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _lake(values: dict[str, str], inside: dict[str, int]) -> dict[str, str]:
    """Return what the catalogs of Trino name."""
    given = {name: value for name, value in values.items() if name.startswith(("CASCADE_S3_", "CASCADE_NESSIE__"))}
    return {
        "CASCADE_S3_REGION": "us-east-1",
        "CASCADE_S3_PATH_STYLE": "true",
        "CASCADE_WAREHOUSE": "s3://warehouse",
        **given,
        "CASCADE_NESSIE__URL": f"http://127.0.0.1:{inside['nessie']}/api/v2",
    }


def _secure_postgres(folder: Path, access: Path, made: Path) -> None:
    """Give PostgreSQL the options that its container has on the command line, in its own file."""
    data = folder / "data"
    for name, mode in (("server.crt", 0o644), ("server.key", 0o600)):
        shutil.copy(made / name, data / name)
        (data / name).chmod(mode)
    shutil.copy(access / "pg_hba.conf", data / "pg_hba.conf")
    owner = data.stat()
    for name in ("server.crt", "server.key", "pg_hba.conf"):
        os.chown(data / name, owner.st_uid, owner.st_gid)
    with (data / "postgresql.conf").open("a") as file:
        file.write("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n")


def _caddy(folder: Path, configuration: Path, made: Path, values: dict[str, str], inside: dict[str, int]) -> Server:
    """Return Caddy, not started; it hashes the password at its start, as its container does."""
    page = f"https://127.0.0.1:{values['DAGSTER_PORT']}"
    start = f'DAGSTER_HASH="$({BIN}/caddy hash-password --plaintext "$ACCESS_OPERATOR_PASSWORD")" exec {BIN}/caddy run'

    def ready() -> None:
        requests.get(page, verify=str(made / "ca.pem"), timeout=5)

    return Server(
        "Caddy",
        ["sh", "-c", f"{start} --adapter caddyfile --config {configuration}"],
        ready=ready,
        log=folder / "caddy.log",
        environment={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "ACCESS_DIR": str(made),
            "ACCESS_HOST": values["ACCESS_HOST"],
            "ACCESS_OPERATOR_PASSWORD": values["ACCESS_OPERATOR_PASSWORD"],
            **{f"{name}_HTTPS_PORT": values[f"{name}_PORT"] for name in ("DAGSTER", "TRINO", "NESSIE")},
            "DAGSTER_INSIDE": f"127.0.0.1:{inside['dagster']}",
            "HEALTH_PORT": str(inside["health"]),
            "TRINO_INSIDE": f"127.0.0.1:{inside['trino_https']}",
            "NESSIE_INSIDE": f"127.0.0.1:{inside['nessie']}",
        },
        folder=folder,
        seconds=30,
    )


class _Page(BaseHTTPRequestHandler):
    """Stands for Dagster's page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"runs")

    def log_message(self, format: str, *args: object) -> None:
        pass
