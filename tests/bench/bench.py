"""Measure Cascade beside its peers: one table of cases, each in a process of its own; `nox -s bench` prints it.

CPU-seconds, user and system, are of the process and its children, without imports and without making the rows; peak
memory is of the whole process. Wall time depends on what else the machine does and is kept in the JSON for
orientation only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cases import CASES
from measuring import OURS, Case, Figure, measured

_LIBRARIES = ("pyarrow", "pyiceberg", "dlt", "duckdb", "dagster", "dbt-core", "pandera", "polars")


def main() -> None:
    """Run the cases that were asked for, print a table, and keep or show the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD", help="those whose name or way holds a word")
    parser.add_argument("--quick", action="store_true", help="small sizes, in about three minutes")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep the figures; those of other cases that it has stay"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of charts from a file of figures")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        return _inside(int(asked.inside[0]), int(asked.inside[1]))
    if asked.page:
        from page import write_page

        return write_page(json.loads(asked.page.read_text("utf-8")))
    chosen = [each for each in CASES if any(word.lower() in f"{each.name} {each.who}".lower() for word in asked.cases)]
    if asked.list:
        return print("\n".join(f"{each.name}: {each.who}" for each in chosen))
    if not chosen:
        parser.error("no case has such a word in its name; --list prints the names")
    found: list[Figure] = []
    names = list(dict.fromkeys(each.name for each in chosen))
    # First what the others are compared with.
    for each in sorted(chosen, key=lambda each: (names.index(each.name), bool(each.bare))):
        for size in each.quick if asked.quick else each.sizes:
            for figure in _in_a_process(each, size):
                found.append(figure)
                print(_line(figure, found), flush=True)
                if asked.json:
                    _keep(asked.json, found)
    return None


def _keep(file: Path, found: Sequence[Figure]) -> None:
    """Write figures to a file, beside those of other cases that are there."""
    kept = json.loads(file.read_text("utf-8"))["figures"] if file.exists() else []
    figures = {(f["name"], f["who"], f["at"]): f for f in [*kept, *(each.as_dict() for each in found)]}
    file.write_text(json.dumps({**_machine(), "figures": list(figures.values())}, indent=1) + "\n")


def _in_a_process(case: Case, size: int) -> Iterator[Figure]:
    command = [sys.executable, "-W", "ignore", __file__, "--inside", str(CASES.index(case)), str(size)]
    environment = clean_environment()
    if case.who == OURS:  # `import cascade` says so, and comes before Arrow in a project
        environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                yield Figure(**json.loads(line))
    if process.returncode:
        sys.exit(f"{case.name}, {case.who}, {size:,} {case.axis} failed; what it says is above.")


def _inside(number: int, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for figure in measured(CASES[number], Path(folder), size):
            print(json.dumps(figure.as_dict()), flush=True)


def _line(figure: Figure, found: Sequence[Figure]) -> str:
    what = f"{figure.name}, {figure.at:,} {figure.axis}"
    ratio = f"{value:5.2f} x {figure.bare}" if (value := ratio_of(figure, found)) is not None else ""
    return f"{what:<64} {figure.who:<13} {figure.cpu:>8.3f} CPU-s {figure.memory:>6.0f} MB  {ratio}"


def ratio_of(figure: Figure, found: Sequence[Figure]) -> float | None:
    """Return how many times the CPU time of the bare path something takes, where the bare path was measured before."""
    bare = [f.cpu for f in found if (f.name, f.at, f.who) == (figure.name, figure.at, figure.bare)]
    return figure.cpu / bare[-1] if bare and bare[-1] else None


def _machine() -> dict[str, Any]:
    """Say where and with what the figures were made."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GB, {platform.system()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }


def clean_environment() -> dict[str, str]:
    """Return the environment without what would lead to another project."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("CASCADE_", "DAGSTER_", "DBT_"))}


if __name__ == "__main__":
    main()
