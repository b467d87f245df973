"""S3 for DuckDB: PyIceberg's own access to it, as a file system that many threads read at once."""

from __future__ import annotations

import os
import threading
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper

__all__ = ["S3FileSystem"]


class S3FileSystem(ArrowFSWrapper):  # type: ignore[misc]  # fsspec ships no types
    """Arrow's S3 as an fsspec file system, which DuckDB takes without an extension that it would download.

    Args:
        fs: The `pyarrow.fs.S3FileSystem`.
    """

    protocol = "s3"
    cachable = False

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; one for reading may be shared by threads."""
        if mode != "rb":
            return super().open(path, mode, **options)
        return _SharedFile(self.fs.open_input_file(self._strip_protocol(path)))


class _SharedFile:
    """A file whose position belongs to the thread: DuckDB's threads share it, and each seeks before it reads."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self._mine = threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._file.size()}[whence]
        self._mine.position = start + offset
        return self.tell()

    def tell(self) -> int:
        position: int = self._mine.__dict__.get("position", 0)
        return position

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        data: bytes = self._file.read_at(self._file.size() - start if size < 0 else size, start)
        self._mine.position = start + len(data)
        return data

    def close(self) -> None:
        self._file.close()
