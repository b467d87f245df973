"""Kill a process before its n-th change of a file, let one fail, or watch all of them, in whatever library it happens.

The kernel asks before it carries out a system call that changes a file (seccomp's user notifications, Linux 5.5 and
later), and the test answers: go on, fail, or never. So Arrow, DuckDB and SQLite are reached like Python, and no code of
the process is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import multiprocessing.connection
import os
import platform
import signal
import socket
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from support.lakes import start

__all__ = ["GO_ON", "KILL", "Answer", "Ended", "Operation", "watched"]

GO_ON, KILL = 0, -1


class _Call(NamedTuple):
    """A system call that changes files, and where it says which: in a path, below an open folder, or an open file."""

    name: str
    numbers: dict[str, int]
    file: int | None = None
    folder: int | None = None
    path: int | None = None
    flags: int | None = None


_CALLS = (
    _Call("open", {"x86_64": 2}, path=0, flags=1),
    _Call("open", {"x86_64": 257, "aarch64": 56}, folder=0, path=1, flags=2),
    _Call("write", {"x86_64": 1, "aarch64": 64}, file=0),
    _Call("write", {"x86_64": 18, "aarch64": 68}, file=0),  # at a place of the file
    _Call("write", {"x86_64": 20, "aarch64": 66}, file=0),  # several buffers
    _Call("write", {"x86_64": 296, "aarch64": 70}, file=0),  # both
    _Call("write", {"x86_64": 77, "aarch64": 46}, file=0),  # truncates
    _Call("write", {"x86_64": 285, "aarch64": 47}, file=0),  # reserves space
    _Call("sync", {"x86_64": 74, "aarch64": 82}, file=0),
    _Call("sync", {"x86_64": 75, "aarch64": 83}, file=0),
    _Call("make folder", {"x86_64": 83}, path=0),
    _Call("make folder", {"x86_64": 258, "aarch64": 34}, folder=0, path=1),
    _Call("remove", {"x86_64": 84}, path=0),
    _Call("remove", {"x86_64": 87}, path=0),
    _Call("remove", {"x86_64": 263, "aarch64": 35}, folder=0, path=1),
    _Call("rename", {"x86_64": 82}, path=0),
    _Call("rename", {"x86_64": 264, "aarch64": 38}, folder=0, path=1),
    _Call("rename", {"x86_64": 316, "aarch64": 276}, folder=0, path=1),
)
_MACHINE = platform.machine()
_BY_NUMBER = {call.numbers[_MACHINE]: call for call in _CALLS if _MACHINE in call.numbers}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

_AT_CWD = -100 & 0xFFFFFFFF
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NEXT, _ANSWER = 0xC0502100, 0xC0182101  # requests of ioctl: of the next notification, and of the answer to one
_NOTIFICATION, _REPLY = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")


@dataclass(frozen=True)
class Operation:
    """What a process is about to do to a file.

    Attributes:
        name: `open` to change or make it, `write`, `sync`, `make folder`, `remove` or `rename`.
        path: The file or folder; the old name of one that is renamed.
        target: The new name of one that is renamed.
    """

    name: str
    path: Path
    target: Path | None = None


#: Given an operation and its number, from 1: `GO_ON`, `KILL`, or the number of the error with which it fails.
Answer = Callable[[Operation, int], int]


@dataclass
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it did to files, the last answer included."""

    code: int = 0
    operations: list[Operation] = field(default_factory=list)


def watched(work: Callable[..., None], *arguments: Any, under: Path, answer: Answer = lambda _o, _n: GO_ON) -> Ended:
    """Run a function in a process of its own, and answer for each of its changes of files.

    Args:
        work: The function, which another process can import.
        arguments: What it is called with.
        under: Files elsewhere are left alone and not counted.
        answer: Asked before each operation.
    """
    ended = Ended()
    name = f"\0{uuid.uuid4()}"  # of a socket without a file
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        process = start(_notifying, name, work, *arguments)
        server.settimeout(60)
        asked, _ = server.accept()
        with asked:
            listener = socket.recv_fds(asked, 1, 1)[1][0]
    try:
        while process.sentinel not in multiprocessing.connection.wait([listener, process.sentinel]):
            if not _answer_next(listener, str(under), answer, ended):
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                break
        process.join(60)
    finally:
        os.close(listener)  # what a helper of the process still tries now fails
    assert process.exitcode is not None
    ended.code = process.exitcode
    return ended


def _answer_next(listener: int, under: str, answer: Answer, ended: Ended) -> bool:
    """Answer one operation; say whether the process goes on."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _NEXT, buffer)
    except OSError as error:  # a signal came between, or a thread has ended
        if error.errno not in (errno.ENOENT, errno.EINTR):
            raise
        return True
    number, thread, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    operation = _operation(thread, _BY_NUMBER[call], arguments)
    verdict = GO_ON
    if operation is not None and str(operation.path).startswith(under):
        ended.operations.append(operation)
        verdict = answer(operation, len(ended.operations))
    if verdict == KILL:
        return False
    reply = _REPLY.pack(number, 0, -verdict, 0 if verdict else 1)
    try:
        fcntl.ioctl(listener, _ANSWER, reply)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return True


def _operation(thread: int, call: _Call, arguments: list[int]) -> Operation | None:
    if call.flags is not None and not arguments[call.flags] & _CHANGES:
        return None
    try:
        if call.file is not None:
            return Operation(call.name, Path(os.readlink(f"/proc/{thread}/fd/{arguments[call.file]}")))
        path = _path(thread, call, arguments, 0)
        return Operation(call.name, path, _path(thread, call, arguments, 1) if call.name == "rename" else None)
    except OSError:  # the thread has ended, or names what is not there
        return None


def _path(thread: int, call: _Call, arguments: list[int], which: int) -> Path:
    """Return the first or the second path of a call."""
    assert call.path is not None
    step = 1 if call.folder is None else 2
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(arguments[call.path + which * step])
        text = os.fsdecode(memory.read(4096).partition(b"\0")[0])
    folder = _AT_CWD if call.folder is None else arguments[call.folder + which * step] & 0xFFFFFFFF
    place = f"/proc/{thread}/cwd" if folder == _AT_CWD else f"/proc/{thread}/fd/{folder}"
    return Path(os.path.normpath(os.path.join(os.readlink(place), text)))


# --- in the process ---------------------------------------------------------------------------------------


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _notifying(address: str, work: Callable[..., None], *arguments: Any) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        listener = _listen()
        socket.send_fds(server, [b"x"], [listener])
        os.close(listener)
    work(*arguments)


def _listen() -> int:
    """Let the kernel ask before each of the system calls, in all threads and helpers to come."""
    load, equal, give = 0x20, 0x15, 0x06
    jumps = [_Instruction(equal, len(_BY_NUMBER) - i, 0, call) for i, call in enumerate(_BY_NUMBER)]
    program = [
        _Instruction(load, 0, 0, 0),
        *jumps,
        _Instruction(give, 0, 0, 0x7FFF0000),
        _Instruction(give, 0, 0, 0x7FC00000),
    ]
    compiled = _Program(len(program), (_Instruction * len(program))(*program))
    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, filter_mode, new_listener = 38, 1, 8
    libc.prctl(set_no_new_privileges, 1, 0, 0, 0)
    listener: int = libc.syscall(_SECCOMP[_MACHINE], filter_mode, new_listener, ctypes.byref(compiled))
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return listener
