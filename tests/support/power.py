"""What a disk holds after the power was cut: of each file what was synced, under the names that were synced."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from support.file_operations import Operation

__all__ = ["Disk"]


@dataclass
class _File:
    """The bytes of a file that are on the disk; a name can be there before they are."""

    content: bytes = b""


@dataclass
class Disk:
    """Follows the changes of files below a folder, and can bring back what is left of them.

    As ext4, XFS and Btrfs do, the sync of a file brings its name to the disk with its bytes. A file that was renamed or
    removed has its old name until its folder is synced.

    Attributes:
        folder: The folder; all that is in it at first is on the disk.
    """

    folder: Path
    _names: dict[Path, _File] = field(default_factory=dict)
    _files: dict[int, _File] = field(default_factory=dict)  # by inode

    def __post_init__(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file():
                self._sync(path)

    def follow(self, operation: Operation) -> None:
        """Note what an operation, which is about to be carried out, brings to the disk."""
        if operation.name == "sync" and operation.path.is_dir():
            self._sync_names(operation.path)
        elif operation.name == "sync" and operation.path.is_file():
            self._sync(operation.path)
        gone = operation.path if operation.name == "remove" else operation.target
        if gone is not None and gone.is_file():
            self._files.pop(gone.stat().st_ino, None)  # the next file may have this inode

    def cut(self) -> None:
        """Leave in the folder what is on the disk."""
        shutil.rmtree(self.folder)
        for path, file in self._names.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)

    def _sync(self, path: Path) -> None:
        self._names[path] = self._files.setdefault(path.stat().st_ino, _File())
        self._names[path].content = path.read_bytes()

    def _sync_names(self, folder: Path) -> None:
        there = {path: path.stat().st_ino for path in folder.iterdir() if path.is_file()}
        gone = [path for path in self._names if path.parent == folder and path not in there]
        for path in gone:
            del self._names[path]
        self._names |= {path: self._files.setdefault(inode, _File()) for path, inode in there.items()}
