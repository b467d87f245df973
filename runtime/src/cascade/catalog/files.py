"""PyIceberg's file access to a warehouse. It takes Arrow, so it is imported when a file is opened, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from cascade.catalog import storage

__all__ = ["WarehouseIO"]


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        if not overwrite and self.exists():
            raise FileExistsError(f"Cannot create file, already exists: {self.location}")
        return cast(OutputStream, storage.open_durable(self._path))


class WarehouseIO(PyArrowFileIO):
    """PyIceberg's file access: local writes are synced, S3 may be signed by a private authority."""

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write; a local one is synced when its stream is closed."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        kind = _DurableFile if scheme == "file" else PyArrowFile
        return kind(fs=self.fs_by_scheme(scheme, netloc), location=location, path=path)

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        # PyIceberg knows no private certificate authority, and gives up before a restarting server is back.
        properties: Mapping[str, str] = self.properties
        attempts = 1 if f"s3://{netloc}" in storage.SILENT_BUCKETS else storage.S3_ATTEMPTS
        return S3FileSystem(
            endpoint_override=properties.get("s3.endpoint"),
            access_key=properties.get("s3.access-key-id"),
            secret_key=properties.get("s3.secret-access-key"),
            region=properties.get("s3.region"),
            force_virtual_addressing=properties.get("s3.force-virtual-addressing") == "true",
            tls_ca_file_path=properties.get(storage.CA_FILE),
            retry_strategy=AwsStandardS3RetryStrategy(attempts),
        )
