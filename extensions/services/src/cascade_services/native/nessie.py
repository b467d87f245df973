"""Nessie, with the configuration that a generated project gets."""

import os
import shutil
from pathlib import Path

from cascade_services.native.processes import Server, answers, java_options

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
    stays: bool = False,
) -> Server:
    """Return the server, not started.

    Args:
        folder: Its configuration and log go here.
        jar: The server.
        java: Java's home.
        template: `services/nessie` of a project.
        port: On loopback.
        management_port: Of its health, on loopback.
        database: JDBC address of its database.
        password: Of the role `cascade_nessie`.
        stays: As for `Server`.
    """
    return Server(
        "Nessie",
        [java / "bin" / "java", "-Xmx512m", "-jar", jar],
        # In its working folder, where the image has its configuration, too.
        prepare=lambda: shutil.copytree(template, folder / "config", dirs_exist_ok=True),
        # Asks its database, as `/q/health/ready` does, whose port another process does not know.
        ready=answers(f"http://127.0.0.1:{port}/api/v2/config"),
        log=folder / "nessie.log",
        environment={
            "PATH": os.environ.get("PATH", ""),
            **java_options(),
            "NESSIE_HOST": "127.0.0.1",
            "NESSIE_PORT": str(port),
            "NESSIE_MANAGEMENT_PORT": str(management_port),
            "NESSIE_DATABASE_URL": database,
            "POSTGRES_NESSIE_PASSWORD": password,
        },
        folder=folder,
        stays=stays,
    )
