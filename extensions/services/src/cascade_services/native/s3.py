"""S3: versitygw over a folder."""

import os
from pathlib import Path

from cascade_services.native.processes import Server, answers

__all__ = ["make_bucket", "s3"]

REGION = "us-east-1"


def s3(
    folder: Path,
    *,
    program: Path,
    port: int,
    access_key: str,
    secret_key: str,
    users: Path | None = None,
    stays: bool = False,
) -> Server:
    """Return the server, not started.

    Args:
        folder: Buckets go into `data`, the log beside it.
        program: The binary.
        port: On loopback.
        access_key: Of its first user, who may do everything.
        secret_key: Of its first user.
        users: A folder where it keeps further users; it has none without.
        stays: As for `Server`.
    """
    data = folder / "data"
    return Server(
        "versitygw (S3)",
        [program, "posix", data],
        prepare=lambda: data.mkdir(exist_ok=True),
        ready=answers(f"http://127.0.0.1:{port}/health"),
        log=folder / "versitygw.log",
        environment={
            "PATH": os.environ.get("PATH", ""),
            "VGW_PORT": f"127.0.0.1:{port}",
            "VGW_REGION": REGION,
            "VGW_HEALTH": "/health",
            "VGW_QUIET": "true",
            "ROOT_ACCESS_KEY": access_key,
            "ROOT_SECRET_KEY": secret_key,
            **({"VGW_IAM_DIR": str(users)} if users else {}),
        },
        folder=folder,
        seconds=30,
        stays=stays,
    )


def make_bucket(name: str, *, endpoint: str, access_key: str, secret_key: str) -> None:
    """Make a bucket."""
    from pyarrow.fs import S3FileSystem  # who only looks at servers does without

    S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        endpoint_override=endpoint,
        region=REGION,
        allow_bucket_creation=True,
    ).create_dir(name)
