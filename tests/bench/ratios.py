"""Fail when something costs half as much again beside its bare path as `ratios.json` says. `--record` writes the file.

Each work and its bare path are done in turns, in one process, and the cheapest of several turns counts: what else the
machine does hits both alike. CPU-seconds are compared, never times.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cases import CASES, loading, merging, projects, upkeep
from measuring import OURS, Case, measured

RECORDED = Path(__file__).with_suffix(".json")
#: How much worse a ratio may be than the recorded one.
ALLOWED = 1.5
# Names and sizes: large enough that the work counts and not its beginning, small enough for half a minute.
_SLICE = {
    loading.DICTS: 40_000,
    loading.ARROW: 300_000,
    loading.JSON: 60_000,
    loading.AGAIN: 100_000,
    merging.ONE_DAY: 200_000,
    merging.EVERYWHERE: 300_000,
    upkeep.APPEND: 30,
    upkeep.COMPACT: 100,
    projects.PARTITIONS: 3,
}
_TURNS = 3


def main() -> None:
    """Measure the slice, and compare it with what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write what is found to ratios.json")
    record = parser.parse_args().record
    found = {}
    for name, size in _SLICE.items():
        found[name] = round(_ratio(name, size), 2)
        print(f"{found[name]:6.2f}  {name}, {size:,}", flush=True)
    if record:
        RECORDED.write_text(json.dumps(found, indent=2) + "\n")
    elif worse := too_dear(found, json.loads(RECORDED.read_text())):
        sys.exit("\n".join(worse))


def too_dear(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Return a line for each work whose ratio is worse by half than the recorded one."""
    return [
        f"{name}: {ratio:.2f} times its bare path, and {recorded[name]:.2f} is recorded. Profile it (`nox -s bench -- "
        f"--quick --cases '{name}'`), or say in a commit why it must cost more, with `ratios.py --record`."
        for name, ratio in found.items()
        if ratio > recorded[name] * ALLOWED
    ]


def _ratio(name: str, size: int) -> float:
    """Return the CPU time of ours as a multiple of what it is compared with."""
    ours = next(case for case in CASES if (case.name, case.who) == (name, OURS))
    bare = next(case for case in CASES if (case.name, case.who) == (name, ours.bare))
    turns = [(_cpu(bare, size), _cpu(ours, size)) for _ in range(_TURNS)]
    return min(mine for _, mine in turns) / min(theirs for theirs, _ in turns)


def _cpu(case: Case, size: int) -> float:
    with tempfile.TemporaryDirectory(prefix="ratio-") as folder:
        return sum(figure.cpu for figure in measured(case, Path(folder), size))


if __name__ == "__main__":
    main()
