"""What takes too long is stopped; the deadline around another one still holds afterwards."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.deadline import deadline


class OuterError(Exception):
    """Raised by the outer deadline."""


class InnerError(Exception):
    """Raised by the inner one."""


@pytest.mark.parametrize(("outer", "inner", "raised"), [(0.05, 60, OuterError), (60, 0.05, InnerError)])
def test_the_earlier_of_two_deadlines_counts(outer: float, inner: float, raised: type[Exception]) -> None:
    """As when a load with a time limit is the first that needs a plugin."""
    with pytest.raises(raised), deadline(outer, OuterError()), deadline(inner, InnerError()):
        signal.pause()


def test_the_outer_deadline_is_in_place_after_an_inner_one_that_was_met() -> None:
    with deadline(60, OuterError()):
        with deadline(30, InnerError()):
            pass
        left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert 30 < left <= 60
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_pool_that_waits_for_a_thread_does_not_outlive_the_deadline() -> None:
    """The end of its `with` block waits for all threads, however long one of them takes."""
    never = threading.Event()
    try:
        with pytest.raises(OuterError), deadline(0.05, OuterError()), ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: never.wait(), range(2)))
        assert not never.is_set()
    finally:
        never.set()
