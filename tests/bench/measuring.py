"""What a case of the bench is, and how its work is measured: CPU time, wall time, and the peak of memory."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["CASES", "OURS", "Case", "Figure", "Work", "case", "measured"]

OURS = "Cascade"


@dataclass(frozen=True)
class Work:
    """Something that is measured.

    Attributes:
        do: Does it.
        making: Makes the rows that `do` makes too, and throws them away: what it costs is taken out.
        at: Where it stands on the axis of its case; by default the size that the case was called with.
        times: How often it is done; the cheapest counts.
        number: How many of a kind `do` does; the figure is for one.
    """

    do: Callable[[], object]
    making: Callable[[], object] | None = None
    at: int | None = None
    times: int = 1
    number: int = 1


@dataclass(frozen=True)
class Case:
    """One piece of work, done in one way.

    Attributes:
        name: The work; all ways of doing it share the name.
        who: The way: ours, or a peer's.
        axis: What `sizes` count.
        sizes: The sizes that are measured, each in a process of its own.
        quick: Those of a short run.
        begin: Prepares in an empty folder for a size, and gives the works one after the other.
        bare: The way that the others are compared with.
    """

    name: str
    who: str
    axis: str
    sizes: Sequence[int]
    quick: Sequence[int]
    begin: Callable[[Path, int], Iterator[Work]]
    bare: str = ""


@dataclass(frozen=True)
class Figure:
    """What one work took.

    Attributes:
        name: The case's.
        who: The case's.
        axis: The case's.
        at: Where on the axis.
        cpu: CPU-seconds, user and system, of the process and its children, without making the rows.
        making: CPU-seconds of making the rows.
        wall: Seconds, with making the rows; they depend on what else the machine does.
        memory: Peak of resident memory in MB, Python and what it imported included.
        bare: The way that this one is compared with.
    """

    name: str
    who: str
    axis: str
    at: int
    cpu: float
    making: float
    wall: float
    memory: float
    bare: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)


#: All cases, in the order of the table.
CASES: list[Case] = []


def case(
    name: str, who: str, axis: str, sizes: Sequence[int], quick: Sequence[int], *, bare: str = ""
) -> Callable[[Callable[[Path, int], Iterator[Work]]], Callable[[Path, int], Iterator[Work]]]:
    """Add a function to the cases; for the arguments see `Case`."""

    def add(begin: Callable[[Path, int], Iterator[Work]]) -> Callable[[Path, int], Iterator[Work]]:
        CASES.append(Case(name, who, axis, sizes, quick, begin, bare))
        return begin

    return add


def measured(case: Case, folder: Path, size: int) -> Iterator[Figure]:
    """Do a case in this process, and give the figures of its works."""
    for work in case.begin(folder, size):
        making = min(_cpu_of(work.making)[0] for _ in range(work.times)) if work.making else 0.0
        cpu, wall, memory = min(_cpu_of(work.do) for _ in range(work.times))
        cpu, making, wall = (seconds / work.number for seconds in (max(cpu - making, 0.0), making, wall))
        at = size if work.at is None else work.at
        yield Figure(case.name, case.who, case.axis, at, cpu, making, wall, memory, case.bare)


def _cpu_of(do: Callable[[], object]) -> tuple[float, float, float]:
    """Return CPU-seconds, seconds, and the peak of memory in MB while something is done."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is resident now
    before, wall = (time.process_time(), _cpu_of_children()), time.perf_counter()
    do()
    here, below = time.process_time() - before[0], _cpu_of_children() - before[1]
    wall = time.perf_counter() - wall
    if below > here:  # a command: this process has only waited
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    else:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return here + below, wall, peak / 1024


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
