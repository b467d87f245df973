"""Write files so that they survive a power cut: synced to disk before anything points at them."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, cast

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

__all__ = ["DurableFileIO", "open_durable"]


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
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return cast(BinaryIO, io.BufferedWriter(_SyncedFile(path, "w"), buffer_size=1 << 20))


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        if not overwrite and self.exists():
            raise FileExistsError(f"Cannot create file, already exists: {self.location}")
        return cast(OutputStream, open_durable(self._path))


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's file access for a local warehouse, with synced writes."""

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write; its stream syncs when it is closed."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        return _DurableFile(fs=self.fs_by_scheme(scheme, netloc), location=location, path=path)
