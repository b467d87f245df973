"""PostgreSQL from the programs of a Python package: scram passwords, loopback only, never as root."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cascade.errors import ServiceError
from cascade_services.native.processes import Server

__all__ = ["PASSWORDS", "SUPERUSER", "make_roles", "postgres", "url"]

SUPERUSER = "postgres"
#: The variables of the superuser's password and of the roles'.
PASSWORDS = (
    "POSTGRES_PASSWORD",
    *(f"POSTGRES_{role}_PASSWORD" for role in ("CATALOG", "DAGSTER", "NESSIE", "PUBLISHER", "READER")),
)


def postgres(folder: Path, *, programs: Path, port: int, passwords: Mapping[str, str], stays: bool = False) -> Server:
    """Return the server, not started; its first start makes the database cluster.

    Args:
        folder: Where data and log go; every user must be able to enter it.
        programs: The folder of `bin`, `lib` and `share`.
        port: On loopback.
        passwords: `POSTGRES_PASSWORD` of the superuser, and those of the roles.
        stays: As for `Server`. Data that stays is safe from a power failure, too.
    """
    user = _other_user()
    # The other user may not be able to enter the folder of our own packages: root's home. The system's it can.
    copied = user and not programs.is_relative_to("/usr")
    own_programs = folder / "programs" / programs.parent.name / programs.name if copied else programs
    own = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    if not stays:
        own["fsync"] = "off"  # what a killed server wrote is safe with the kernel; only a power failure would take it
    options = [part for name, value in own.items() for part in ("-c", f"{name}={value}")]

    def prepare() -> None:
        if own_programs != programs and not own_programs.exists():
            libraries, copy = f"{programs.parent.name}.libs", own_programs.with_suffix(".new")
            shutil.copytree(programs.parent.parent / libraries, folder / "programs" / libraries, dirs_exist_ok=True)
            shutil.copytree(programs, copy, dirs_exist_ok=True)
            copy.rename(own_programs)  # whole, or not there
        if not (folder / "data").exists():
            _make_cluster(folder, own_programs, user, passwords["POSTGRES_PASSWORD"])

    def ready() -> None:
        import psycopg  # who only looks at servers does without

        try:
            psycopg.connect(url(port, SUPERUSER, passwords["POSTGRES_PASSWORD"]), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ServiceError(
                    f"PostgreSQL at port {port} refuses the password POSTGRES_PASSWORD.",
                    where=str(folder),
                    fix="put the password back into .env that its data was made with.",
                ) from error
            raise ConnectionError(str(error).strip()) from error

    return Server(
        "PostgreSQL",
        [own_programs / "bin" / "postgres", "-D", folder / "data", *options],
        prepare=prepare,
        ready=ready,
        log=folder / "postgres.log",
        environment=_environment(),
        folder=folder,
        user=user,
        seconds=60,
        stop_signal=signal.SIGINT,  # without waiting for clients
        stays=stays,
    )


def _make_cluster(folder: Path, programs: Path, user: str, password: str) -> None:
    """Make the folder `data`, whole or not at all."""
    made, password_file = folder / "data.new", folder / "password"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    password_file.write_text(password)
    password_file.chmod(0o600)
    if user:
        for path in (folder, made, password_file):
            shutil.chown(path, user)
    initdb = [str(programs / "bin" / "initdb"), "--auth=scram-sha-256", f"--username={SUPERUSER}", "--encoding=UTF8"]
    done = subprocess.run(
        [*initdb, "--no-locale", "--no-sync", f"--pwfile={password_file}", f"--pgdata={made}"],
        user=user or None,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        check=False,
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    password_file.unlink()
    if done.returncode:
        raise ServiceError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}".rstrip(), where=str(folder))
    made.rename(folder / "data")


def make_roles(programs: Path, script: Path, *, port: int, passwords: Mapping[str, str]) -> None:
    """Make databases and roles, as the image does when it starts first; what is there stays.

    Args:
        programs: As for `postgres`.
        script: `services/postgres/roles.sql` of a project.
        port: Of the running server.
        passwords: As for `postgres`; the script takes them from its environment.

    Raises:
        ServiceError: The script failed; with what it said.
    """
    psql = [str(programs / "bin" / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={script}"]
    where = [f"--port={port}", "--host=127.0.0.1", f"--username={SUPERUSER}", "--dbname=postgres"]
    environment = {**_environment(), **passwords, "PGPASSWORD": passwords["POSTGRES_PASSWORD"]}
    done = subprocess.run([*psql, *where], check=False, env=environment, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise ServiceError(f"{script.name} failed:\n{done.stderr}".rstrip(), where=str(script))


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
    raise ServiceError("PostgreSQL does not run as root, and there is no other user for it.", fix="useradd postgres")
