"""Where table files live: a local folder whose writes survive a power cut, or S3."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, cast

from cascade.config import Settings
from cascade.errors import ServiceError
from cascade.names import NOTES_FOLDER

__all__ = ["open_durable", "sign_warehouse", "storage_errors", "warehouse_properties"]

CA_FILE = "cascade.ca-file"
_ATTEMPTS = 5


def warehouse_properties(settings: Settings) -> dict[str, str]:
    """Return what a PyIceberg catalog needs to know to reach the warehouse.

    Args:
        settings: The project's settings.
    """
    properties = {"py-io-impl": "cascade.catalog.files.WarehouseIO", "warehouse": settings.warehouse_location}
    if not settings.warehouse_location.startswith("s3://"):
        return properties
    properties["s3.region"] = settings.s3_region
    properties["s3.force-virtual-addressing"] = str(not settings.s3_path_style).lower()
    if settings.s3_endpoint:
        properties["s3.endpoint"] = settings.s3_endpoint
    if settings.ca_file:
        properties[CA_FILE] = str(settings.ca_path)
    if settings.s3_access_key and settings.s3_secret_key:
        properties["s3.access-key-id"] = settings.s3_access_key.get_secret_value()
        properties["s3.secret-access-key"] = settings.s3_secret_key.get_secret_value()
    return properties


# What S3 says, what it means, and the settings that decide it. First match wins.
_KEYS = "s3_access_key, s3_secret_key"
_NO_ANSWER = "it does not answer"
_CAUSES = (
    (("NO_SUCH_BUCKET", "NoSuchBucket", "bucket does not exist"), "there is no such bucket", "warehouse"),
    (("Path does not exist",), "there is no such bucket or file", "warehouse"),
    (("INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "UserNotFound"), "it refuses the credentials", _KEYS),
    (("ACCESS_DENIED", "AccessDenied", "response code: 403", "HTTP status 403"), "it refuses access", _KEYS),
    (("No space left", "StorageFull", "QuotaExceeded", "HTTP status 507"), "its disk is full", "s3_endpoint"),
    (("certificate", "SSL"), "its certificate is not trusted", "ca_file"),
    (("NETWORK_CONNECTION", "curlCode", "Unable to connect", "resolve host"), _NO_ANSWER, "s3_endpoint"),
)
#: Buckets that did not answer last time: nothing waits for them again until they do.
SILENT_BUCKETS: set[str] = set()
S3_ATTEMPTS = 6


@contextmanager
def storage_errors(location: str, *, missing: bool = True) -> Iterator[None]:
    """Say in words what S3 refuses; errors of a local disk speak for themselves.

    Args:
        location: What is read or written, for the message.
        missing: Whether a missing file is an error of the service, too.

    Raises:
        ServiceError: S3 refuses, or does not answer.
    """
    bucket = "/".join(location.split("/")[:3])
    try:
        yield
        SILENT_BUCKETS.discard(bucket)
    except OSError as error:
        said = str(error)
        known = next((c for c in _CAUSES if any(word.lower() in said.lower() for word in c[0])), None)
        ours = location.startswith("s3://") and (missing or not isinstance(error, FileNotFoundError))
        if not ours or not (known or "AWS Error" in said):
            raise
        cause, setting = known[1:] if known else ("it fails", "s3_endpoint")
        if cause == _NO_ANSWER:
            SILENT_BUCKETS.add(bucket)
            location = bucket
        said = said.splitlines()[0].rpartition(" operation: ")[2].partition("; Details:")[0]
        names = " and ".join(f"`{name}`" for name in setting.split(", "))
        raise ServiceError(
            f"S3 cannot be used: {cause}.",
            where=f"{location}, setting {names}",
            fix=f"see that the service runs and correct {names}; then run again. It said: {said}",
        ) from error


def sign_warehouse(properties: Mapping[str, str], made_at: dt.datetime) -> str:
    """Note in the warehouse that a catalog keeps its files there: to another one they would all be garbage.

    Args:
        properties: See `warehouse_properties`.
        made_at: When the catalog was made, which tells it from every other one.

    Returns:
        The note's path below the warehouse.

    Raises:
        ServiceError: S3 cannot be used.
    """
    from pyiceberg.io import load_file_io

    path = f"{NOTES_FOLDER}/catalog-{made_at.astimezone(dt.UTC):%Y%m%d%H%M%S%f}.json"
    note = {"catalog_made_at": made_at.isoformat(), "from": socket.gethostname()}
    place = properties["warehouse"]
    with (
        storage_errors(place),
        load_file_io(dict(properties)).new_output(f"{place}/{path}").create(overwrite=True) as file,
    ):
        file.write(json.dumps(note).encode())
    return path


class _SyncedFile(io.FileIO):
    def close(self) -> None:
        if not self.closed:
            os.fsync(self.fileno())
        super().close()


def open_durable(path: str) -> BinaryIO:
    """Open a new file for writing; closing it returns when its bytes are on the disk.

    Args:
        path: Absolute path; missing folders are made.
    """
    folder = os.path.dirname(path)
    for _ in range(_ATTEMPTS):
        os.makedirs(folder, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # garbage collection removed the folder, empty as it was
            return cast(BinaryIO, io.BufferedWriter(_SyncedFile(path, "w"), buffer_size=1 << 20))
    raise FileNotFoundError(f"Folder {folder} is removed as soon as it is made")
