"""Give Parquet files a checksum of all their bytes, and tell by it whether they are still what was written."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from typing import Any, cast

from pyiceberg.io import FileIO, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, FileFormat

from cascade.errors import DamagedFileError
from cascade.names import CHECKSUM_ENTRY, SUMMED_FILE

__all__ = ["UNSUMMED", "SummedFile", "damage_of", "require_whole"]

_ZEROS = b"0" * 8
#: Entry of a Parquet file whose place the checksum takes.
UNSUMMED = {CHECKSUM_ENTRY.encode(): _ZEROS}
# The entry as Thrift writes it: a text of 8 bytes follows the name.
_MARK = CHECKSUM_ENTRY.encode() + b"\x18\x08"
_READ_BYTES = 1 << 20


class SummedFile(io.RawIOBase):
    """A Parquet file to be written, and then its stream; the checksum of what passes goes into its footer."""

    def __init__(self, output: OutputFile) -> None:
        self._output = output
        self._sum = _start(output.location)
        self._footer: bytearray | None = None

    def create(self, overwrite: bool = False) -> OutputStream:
        """Open it; what PyIceberg asks of a file."""
        self._stream = self._output.create(overwrite)
        return cast(OutputStream, self)

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def begin_footer(self) -> None:
        """Hold back what is written from now on."""
        self._footer = bytearray()

    def write(self, data: Any) -> int:
        """Write bytes."""
        if self._footer is not None:
            self._footer += data
        else:
            self._sum = zlib.crc32(data, self._sum)
            self._stream.write(data)
        return len(data)

    def close(self) -> None:
        """Write the footer."""
        if self.closed:
            return
        super().close()
        if self._footer:
            place = self._footer.rfind(_MARK) + len(_MARK)
            self._footer[place : place + 8] = b"%08x" % zlib.crc32(self._footer, self._sum)
            self._stream.write(bytes(self._footer))
        self._stream.close()


def damage_of(io: FileIO, file: DataFile) -> str | None:
    """Compare a data file with its checksum.

    Args:
        io: How files are reached.
        file: What Iceberg knows of it.

    Returns:
        What is wrong with it, "" when nothing is; `None` for a file of another engine, which has no checksum.
    """
    if file.file_format != FileFormat.PARQUET:
        return None
    try:
        source = PyArrowFileIO.new_input(cast(PyArrowFileIO, io), file.file_path)  # its own may compare first
        if (size := len(source)) != file.file_size_in_bytes:
            return f"it has {size:,} bytes, {file.file_size_in_bytes:,} were written"
        with source.open() as stream:
            stream.seek(max(0, size - 8))
            left = max(0, size - 8 - int.from_bytes(stream.read(4), "little"))
            stream.seek(left)
            footer = bytearray(stream.read(size - left))
            place = footer.rfind(_MARK) + len(_MARK)
            if not left or not footer.endswith(b"PAR1"):
                return "its end is not that of a Parquet file"
            if place < len(_MARK):
                return "its checksum is gone" if file.file_path.endswith(SUMMED_FILE) else None
            stream.seek(0)
            found = _start(file.file_path)
            while left and (read := stream.read(min(left, _READ_BYTES))):
                found = zlib.crc32(read, found)
                left -= len(read)
    except FileNotFoundError:
        return "it is not there"
    noted, footer[place : place + 8] = bytes(footer[place : place + 8]), _ZEROS
    return "" if noted == b"%08x" % zlib.crc32(footer, found) else "it has changed since it was written"


def require_whole(io: FileIO, files: Iterable[DataFile], *, staged: bool = False) -> None:
    """Refuse damaged files: in a new file, their rows would look sound.

    Args:
        io: How files are reached.
        files: The files.
        staged: Whether they were just written; else they are of a table.

    Raises:
        DamagedFileError: Files are not what was written.
    """
    again = "run again: the rows come from their source again; if it repeats, look at the disk."
    restore = "bring them back from a backup, or load all of the table again; `cascade maintain verify` finds them all."
    if damaged := [f"{file.file_path}: {problem}" for file in files if (problem := damage_of(io, file))]:
        raise DamagedFileError("Data files are damaged.", where="; ".join(damaged), fix=again if staged else restore)


def _start(location: str) -> int:
    """Begin a checksum with a file's name: another whole file in its place is damage, too."""
    return zlib.crc32(location.rpartition("/")[2].encode())
