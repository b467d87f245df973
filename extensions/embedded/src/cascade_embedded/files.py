"""Local data files, compared with their checksums before their rows are read: by DuckDB, PyIceberg or Arrow."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from pyiceberg.io.pyarrow import PyArrowFile
from pyiceberg.manifest import DataFile, FileFormat

from cascade.catalog.files import WarehouseIO
from cascade.iceberg.damage import require_whole
from cascade.names import SUMMED_FILE

__all__ = ["ComparingIO"]

# A disk may lose bits of a file that nobody has touched: it is compared again after a day.
_DAY = 86_400 * 10**9
# Writing a note changes the file's own time of change, by a clock that may be a little behind.
_SECOND = 10**9
_NOTE = "user.cascade.compared"
# Notes on files where the system keeps none.
_notes: dict[str, str] = {}


class ComparingIO(WarehouseIO):
    """PyIceberg's access to a local warehouse, which opens a data file only if it is what Cascade wrote.

    The file is read for that when somebody has touched it since the last time, and once a day.
    """

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to read.

        Raises:
            DamagedFileError: It is a data file, and not what was written.
        """
        file = super().new_input(location)
        if location.endswith(SUMMED_FILE) and not _is_noted(file._path):
            with contextlib.suppress(FileNotFoundError):  # whoever opens it is told so
                written = os.stat(file._path)
                known: Any = {"file_format": FileFormat.PARQUET, "file_size_in_bytes": written.st_size}
                require_whole(self, [DataFile.from_args(file_path=location, **known)])
                _note(file._path, written.st_mtime_ns)
        return file


def _is_noted(path: str) -> bool:
    """Say whether a file was compared during the last day, and not touched since: neither content, name nor note."""
    try:
        state = os.stat(path)
        noted, written = map(int, (_notes.get(path) or os.getxattr(path, _NOTE)).split())
    except (OSError, AttributeError):  # it is not there, or has no note, or the system knows no notes
        return False
    age, touched = time.time_ns() - noted, state.st_ctime_ns - noted
    return written == state.st_mtime_ns and touched < _SECOND and 0 <= age < _DAY


def _note(path: str, written: int) -> None:
    note = f"{time.time_ns()} {written}"
    try:
        os.setxattr(path, _NOTE, note.encode())
    except (OSError, AttributeError):
        _notes[path] = note
