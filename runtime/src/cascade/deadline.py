"""Stop a block of code that takes too long."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

__all__ = ["deadline"]

# What the block does while it ends, such as to wait for its threads, is stopped after so many seconds, too.
_CLEAN_UP = 30


@contextlib.contextmanager
def deadline(seconds: float, error: BaseException) -> Iterator[None]:
    """Raise an error in the block when it takes longer, also while it waits for a server.

    On the main thread a signal interrupts system calls; elsewhere the block is stopped as soon as it runs Python again.
    C code that goes on after a signal, and threads that the block started, cannot be stopped: the block ends when the C
    code returns. What stops it is no `Exception`: a loop in the block that repeats whatever fails ends, too. A deadline
    around this one that comes earlier is the one that counts.

    Args:
        seconds: How long the block may take.
        error: What is raised in its place.
    """
    stop: type[BaseException] = type("Stop", (BaseException,), {})  # its own: another one may stop the block, too
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    try:
        with (_by_signal if main else _by_thread)(seconds, stop):
            yield
    except stop as stopped:
        raise error.with_traceback(stopped.__traceback__) from None  # it names the line that took so long


@contextlib.contextmanager
def _by_signal(seconds: float, stop: type[BaseException]) -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise stop

    outer, begun = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if 0 < outer <= seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, min(seconds, _CLEAN_UP))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begun), 0.001))


@contextlib.contextmanager
def _by_thread(seconds: float, stop: type[BaseException]) -> Iterator[None]:
    thread = ctypes.c_ulong(threading.get_ident())
    timer = threading.Timer(seconds, ctypes.pythonapi.PyThreadState_SetAsyncExc, (thread, ctypes.py_object(stop)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
