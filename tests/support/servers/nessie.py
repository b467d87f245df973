"""Nessie, with the configuration that a generated project gets."""

import os
import shutil
from pathlib import Path

from .processes import Server, answers

__all__ = ["nessie"]


def nessie(
    folder: Path,
    *,
    jar: Path,
    java: Path,
    template: Path,
    port: int,
    management_port: int,
    database: str,
    password: str,
) -> Server:
    """Return the server, not started.

    Args:
        folder: Its configuration and log go here.
        jar: The server.
        java: Java's home.
        template: `services/nessie` of the template.
        port: On loopback.
        management_port: Of its health, on loopback.
        database: JDBC address of its database.
        password: Of the role `cascade_nessie`.
    """
    shutil.copytree(template, folder / "config")  # where the image has its configuration, too
    return Server(
        "Nessie",
        [java / "bin" / "java", "-Xmx512m", "-jar", jar],
        ready=answers(f"http://127.0.0.1:{management_port}/q/health/ready"),
        log=folder / "nessie.log",
        environment={
            "PATH": os.environ.get("PATH", ""),
            "NESSIE_HOST": "127.0.0.1",
            "NESSIE_PORT": str(port),
            "NESSIE_MANAGEMENT_PORT": str(management_port),
            "NESSIE_DATABASE_URL": database,
            "POSTGRES_NESSIE_PASSWORD": password,
        },
        folder=folder,
    )
