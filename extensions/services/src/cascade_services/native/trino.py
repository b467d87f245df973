"""Trino, with the configuration that a generated project gets."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cascade_services.native.processes import Server, answers, java_options

__all__ = ["trino"]


def trino(
    folder: Path,
    *,
    program: Path,
    java: Path,
    template: Path,
    port: int,
    environment: Mapping[str, str],
    stays: bool = False,
) -> Server:
    """Return the server, not started.

    Args:
        folder: Its configuration, data and log go here.
        program: The unpacked server.
        java: Java's home.
        template: `services/trino` of a project.
        port: On loopback.
        environment: What the catalogs of branches name: `CASCADE_S3_SECRET_KEY` and so on.
        stays: As for `Server`.
    """
    etc, data = folder / "etc", folder / "data"

    def prepare() -> None:
        # The catalogs of branches are made again; those of a state that was taken back must not come back.
        shutil.rmtree(etc, ignore_errors=True)
        shutil.copytree(template, etc)
        data.mkdir(exist_ok=True)

    return Server(
        "Trino",
        [program / "bin" / "launcher", "run", "--etc-dir", etc, "--data-dir", data],
        prepare=prepare,
        ready=answers(f"http://127.0.0.1:{port}/v1/info", containing='"starting":false'),
        log=folder / "trino.log",
        environment={
            "PATH": os.pathsep.join([str(java / "bin"), os.environ.get("PATH", "")]),
            "JAVA_HOME": str(java),
            **java_options(),
            "TRINO_PORT": str(port),
            "TRINO_BIND": "127.0.0.1",
            "TRINO_ETC_DIR": str(etc),
            "TRINO_DATA_DIR": str(data),
            **environment,
        },
        folder=folder,
        stays=stays,
    )
