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


def deadline(seconds: float, error: BaseException) -> contextlib.AbstractContextManager[None]:
    """Raise an error in the block when it takes longer, also while it waits for a server.

    On the main thread a signal interrupts system calls; elsewhere the error is raised in the thread as soon as it runs
    Python again. A deadline around this one that comes earlier is the one that counts.

    Args:
        seconds: How long the block may take.
        error: What is raised in it.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, error)
    return _by_thread(seconds, error)


@contextlib.contextmanager
def _by_signal(seconds: float, error: BaseException) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise error

    outer, begun = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if 0 < outer <= seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begun), 0.001))


@contextlib.contextmanager
def _by_thread(seconds: float, error: BaseException) -> Iterator[None]:
    thread, kind = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(type(error))
    timer = threading.Timer(seconds, ctypes.pythonapi.PyThreadState_SetAsyncExc, (thread, kind))
    timer.daemon = True
    timer.start()
    try:
        yield
    except type(error):
        raise error from None
    finally:
        timer.cancel()
