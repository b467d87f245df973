"""All servers of the lake together: which there are, in which order they start, and what each needs before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cascade.errors import ServiceError
from cascade_services.native.downloads import Programs
from cascade_services.native.nessie import nessie
from cascade_services.native.postgres import PASSWORDS, make_roles, postgres
from cascade_services.native.processes import Server, free_ports, is_free
from cascade_services.native.s3 import REGION, make_bucket, s3
from cascade_services.native.trino import trino

__all__ = [
    "NAMES",
    "PORTS",
    "address",
    "check_ports",
    "define_servers",
    "lake_settings",
    "start_servers",
    "with_needs",
]

#: Every server, those that others need first.
NAMES = ("postgres", "s3", "nessie", "trino")
#: The key of `.env` that holds each one's port.
PORTS = {"postgres": "POSTGRES_PORT", "s3": "S3_PORT", "nessie": "NESSIE_PORT", "trino": "TRINO_PORT"}
_NEEDS = {"nessie": ("postgres",), "trino": ("nessie", "s3")}
_BUCKET = "warehouse"
# Who only looks at servers, or stops them, needs no programs.
_NO_PROGRAMS = Programs(*(Path("missing"),) * 5)


def with_needs(names: Iterable[str]) -> tuple[str, ...]:
    """Return servers with those that they need, in the order of `NAMES`; without a name, all."""
    wanted = set(names) or set(NAMES)
    for name in reversed(NAMES):
        if name in wanted:
            wanted.update(_NEEDS.get(name, ()))
    return tuple(name for name in NAMES if name in wanted)


def lake_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a project with which its commands, and Trino, find S3 and Nessie on this machine."""
    return {
        "CASCADE_WAREHOUSE": values.get("CASCADE_WAREHOUSE") or f"s3://{_BUCKET}",
        "CASCADE_S3_ENDPOINT": f"http://127.0.0.1:{values['S3_PORT']}",
        "CASCADE_S3_REGION": REGION,
        "CASCADE_S3_PATH_STYLE": "true",
        "CASCADE_S3_ACCESS_KEY": values["CASCADE_S3_ACCESS_KEY"],
        "CASCADE_S3_SECRET_KEY": values["CASCADE_S3_SECRET_KEY"],
        "CASCADE_NESSIE__URL": f"http://127.0.0.1:{values['NESSIE_PORT']}/api/v2",
    }


def define_servers(
    folder: Path,
    values: Mapping[str, str],
    *,
    templates: Path,
    found: Programs = _NO_PROGRAMS,
    stays: bool = False,
) -> dict[str, Server]:
    """Return every server by name, none of them started.

    Args:
        folder: Each server gets a folder in it, which is made.
        values: Ports and passwords by their keys in `services/env.example`.
        templates: The folder `services` of a project.
        found: The programs; who only looks at servers, or stops them, needs none.
        stays: As for `Server`.
    """
    folders = {name: folder / name for name in NAMES}
    for own in folders.values():
        own.mkdir(parents=True, exist_ok=True)
    ports = {name: int(values[key]) for name, key in PORTS.items()}
    return {
        "postgres": postgres(
            folders["postgres"],
            programs=found.postgres,
            port=ports["postgres"],
            passwords=_passwords(values),
            stays=stays,
        ),
        "s3": s3(
            folders["s3"],
            program=found.versitygw,
            port=ports["s3"],
            access_key=values["CASCADE_S3_ACCESS_KEY"],
            secret_key=values["CASCADE_S3_SECRET_KEY"],
            stays=stays,
        ),
        "nessie": nessie(
            folders["nessie"],
            jar=found.nessie,
            java=found.java,
            template=templates / "nessie",
            port=ports["nessie"],
            management_port=free_ports(1)[0],
            database=f"jdbc:postgresql://127.0.0.1:{ports['postgres']}/nessie",
            password=values["POSTGRES_NESSIE_PASSWORD"],
            stays=stays,
        ),
        "trino": trino(
            folders["trino"],
            program=found.trino,
            java=found.java,
            template=templates / "trino",
            port=ports["trino"],
            environment=lake_settings(values),
            stays=stays,
        ),
    }


def start_servers(
    servers: Mapping[str, Server],
    values: Mapping[str, str],
    *,
    templates: Path,
    found: Programs,
    names: Iterable[str] = NAMES,
    tell: Callable[[str], object] = lambda text: None,
) -> None:
    """Start servers and wait until they answer; those that run stay as they are.

    Args:
        servers: What `define_servers` returned.
        values: As there.
        templates: As there.
        found: As there.
        names: Which to start, with what they need.
        tell: Hears what happens, a line each.

    Raises:
        ServiceError: One did not start, with its last lines. The others go on.
    """
    names = with_needs(names)
    # The slowest first; it needs the others only when it is asked something.
    for name in ("trino", "s3", "postgres"):
        if name in names:
            servers[name].launch()

    def wait(name: str) -> None:
        servers[name].wait()
        tell(f"{servers[name].name} answers at {address(name, values)}")

    if "postgres" in names:
        servers["postgres"].wait()
        make_roles(
            found.postgres,
            templates / "postgres" / "roles.sql",
            port=int(values["POSTGRES_PORT"]),
            passwords=_passwords(values),
        )
        wait("postgres")
    if "nessie" in names:
        servers["nessie"].launch()
    if "s3" in names:
        servers["s3"].wait()
        make_bucket(
            _BUCKET,
            endpoint=f"http://{address('s3', values)}",
            access_key=values["CASCADE_S3_ACCESS_KEY"],
            secret_key=values["CASCADE_S3_SECRET_KEY"],
        )
        wait("s3")
    for name in ("nessie", "trino"):
        if name in names:
            wait(name)


def _passwords(values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in PASSWORDS}


def address(name: str, values: Mapping[str, str]) -> str:
    """Return host and port of a server."""
    return f"127.0.0.1:{values[PORTS[name]]}"


def check_ports(values: Mapping[str, str], names: Iterable[str]) -> None:
    """Refuse before anything starts when ports of servers are taken, or two are to have the same.

    Args:
        values: Ports by their keys in `services/env.example`.
        names: The servers that do not run yet.

    Raises:
        ServiceError: All of those that are taken, each with the next free one.
    """
    taken: list[str] = []
    used: set[int] = set()
    for name in names:
        port = int(values[PORTS[name]])
        if port in used or not is_free(port):
            free = next(other for other in range(port + 1, 65536) if other not in used and is_free(other))
            taken.append(f"{PORTS[name]}={free}  # {port} is taken")
            port = free
        used.add(port)
    if taken:
        raise ServiceError(
            "Other programs hold ports of the servers; nothing is started.",
            fix="stop them, or write into .env:\n    " + "\n    ".join(taken),
        )
