"""PostgreSQL from the programs of a Python package: scram passwords, loopback only, never as root."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg

from .processes import Server

__all__ = ["PASSWORDS", "SUPERUSER", "make_roles", "postgres", "url"]

SUPERUSER = "postgres"
#: The variables of the superuser's password and of the roles'.
PASSWORDS = (
    "POSTGRES_PASSWORD",
    *(f"POSTGRES_{role}_PASSWORD" for role in ("CATALOG", "DAGSTER", "NESSIE", "PUBLISHER", "READER")),
)
_ROLES = Path(__file__).resolve().parents[3] / "template" / "services" / "postgres" / "roles.sql"


def postgres(folder: Path, *, programs: Path, port: int, passwords: Mapping[str, str]) -> Server:
    """Make a database cluster and return its server, not started.

    Args:
        folder: Where data, log and socket go; every user must be able to enter it.
        programs: The folder of `bin`, `lib` and `share`.
        port: On loopback.
        passwords: `POSTGRES_PASSWORD` of the superuser, and those of the roles.
    """
    user = _other_user()
    if user:
        # The other user may not be able to enter the folder of our own packages: root's home.
        package = programs.parent
        libraries = f"{package.name}.libs"
        shutil.copytree(package.parent / libraries, folder / "programs" / libraries)
        programs = shutil.copytree(programs, folder / "programs" / package.name / programs.name)
    data = folder / "data"
    data.mkdir()
    password_file = folder / "password"
    password_file.write_text(passwords["POSTGRES_PASSWORD"])
    password_file.chmod(0o600)
    if user:
        for path in (folder, data, password_file):
            shutil.chown(path, user)
    initdb = [str(programs / "bin" / "initdb"), "--auth=scram-sha-256", f"--username={SUPERUSER}", "--encoding=UTF8"]
    done = subprocess.run(
        [*initdb, "--no-locale", "--no-sync", f"--pwfile={password_file}", f"--pgdata={data}"],
        user=user or None,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    password_file.unlink()
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")
    own = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    own["fsync"] = "off"  # what a killed server wrote is safe with the kernel; only a power failure would take it
    options = [part for name, value in own.items() for part in ("-c", f"{name}={value}")]

    def ready() -> None:
        try:
            psycopg.connect(url(port, SUPERUSER, passwords["POSTGRES_PASSWORD"]), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error).strip()) from error

    return Server(
        "PostgreSQL",
        [programs / "bin" / "postgres", "-D", data, *options],
        ready=ready,
        log=folder / "postgres.log",
        environment=_environment(),
        folder=folder,
        user=user,
        seconds=60,
        stop_signal=signal.SIGINT,  # without waiting for clients
    )


def make_roles(programs: Path, *, port: int, passwords: Mapping[str, str]) -> None:
    """Make databases and roles with the script of the template, as the image does when it starts first.

    Args:
        programs: As for `postgres`.
        port: Of the running server.
        passwords: As for `postgres`; the script takes them from its environment.

    Raises:
        RuntimeError: The script failed; with what it said.
    """
    psql = [str(programs / "bin" / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={_ROLES}"]
    where = [f"--port={port}", "--host=127.0.0.1", f"--username={SUPERUSER}", "--dbname=postgres"]
    environment = {**_environment(), **passwords, "PGPASSWORD": passwords["POSTGRES_PASSWORD"]}
    done = subprocess.run([*psql, *where], env=environment, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{_ROLES.name} failed:\n{done.stderr}")


def url(port: int, role: str, password: str, database: str = "postgres") -> str:
    """Return the address of a database for a role."""
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _other_user() -> str:
    """Who runs the server when we are root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return ""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`: useradd postgres")
