"""PyIceberg's file access to a warehouse. It takes Arrow, so it is imported when a file is opened, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import ArrowProjectionVisitor, PyArrowFile, PyArrowFileIO

from cascade.catalog import storage

__all__ = ["WarehouseIO"]


def _keeping_nulls(fit: Callable[..., Any]) -> Callable[..., Any]:
    def fitted(visitor: Any, kind: Any, values: Any, *inner: Any) -> Any:
        found = fit(visitor, kind, values, *inner)
        nulls = found is not None and values.null_count
        return pc.if_else(values.is_valid(), found, pa.scalar(None, found.type)) if nulls else found

    return fitted


# PyIceberg 0.12 makes an empty list or map of one of structs that is null, wherever it reads a file.
for _name in ("list", "map"):
    setattr(ArrowProjectionVisitor, _name, _keeping_nulls(getattr(ArrowProjectionVisitor, _name)))


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
