"""Measure what users wait for. Every case runs in a process of its own; `nox -s bench` prints the table.

CPU-seconds are of the process and its children, start-up included where the case says so; peak RSS is of the
largest of them. Wall time depends on what else the machine does and is shown for orientation only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROWS = 1_000_000
DAY = "2024-01-01"

_PLAIN = """
import dagster as dg

def _asset(i):
    @dg.asset(key=["raw", f"t{i}"], partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
    def load(context): ...
    return load

defs = dg.Definitions(assets=[_asset(i) for i in range(COUNT)])
defs.resolve_asset_graph()
"""
_OURS = """
from cascade.config import load_settings
from cascade.framework.definitions import build_definitions

build_definitions(load_settings()).resolve_asset_graph()
"""
_WORKFLOW = """
from cascade.ingestion import cascade_ingestion

def _asset(i):
    @cascade_ingestion(table_name=f"t{i}", unique_key="id", group="bench")
    def load(partition_date: str):
        return []
    return load

assets = [_asset(i) for i in range(COUNT)]
"""


def main() -> None:
    """Run the cases that were asked for, print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"by default all: {', '.join(CASES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if arguments.inside:
        for row in CASES[arguments.cases[0]]():
            print(json.dumps(row), flush=True)
        return
    found: list[dict[str, Any]] = []
    for case in arguments.cases or CASES:
        command = [sys.executable, __file__, "--inside", case]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_clean()) as process:
            for line in process.stdout or ():
                row = json.loads(line)
                found.append(row)
                if not arguments.json:
                    print(
                        f"{row['what']:<64} {row['cpu']:>8.2f} CPU-s {row['wall']:>8.2f} s {row['rss']:>6.0f} MB",
                        flush=True,
                    )
        if process.returncode:
            sys.exit(f"The case {case} failed; what it says is above.")
    if arguments.json:
        print(json.dumps(found, indent=2))


def startup() -> Iterator[dict[str, Any]]:
    """`import cascade` and `cascade --help`, the best of five, start-up of Python included."""
    for what, command in (
        ("python -c pass", [sys.executable, "-c", "pass"]),
        ("import cascade", [sys.executable, "-c", "import cascade"]),
        ("cascade --help", [str(BIN / "cascade"), "--help"]),
    ):
        yield min((child(what, command) for _ in range(5)), key=lambda row: row["cpu"])


def definitions() -> Iterator[dict[str, Any]]:
    """Definitions with 1 and 200 ingestion assets, beside as many plain Dagster assets; the best of three."""
    for count in (1, 200):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "pyproject.toml").write_text("[tool.cascade]\n")
            (root / "workflows").mkdir()
            (root / "workflows" / "many.py").write_text(_WORKFLOW.replace("COUNT", str(count)))
            for what, code in (
                (f"bare Dagster, {count} assets", _PLAIN.replace("COUNT", str(count))),
                (f"Cascade, {count} assets", _OURS),
            ):
                command = [sys.executable, "-W", "ignore", "-c", code]
                yield min((child(what, command, cwd=root) for _ in range(3)), key=lambda row: row["cpu"])


def demo() -> Iterator[dict[str, Any]]:
    """Generate the example and run it, command by command."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "demo"
        copy = ["copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", str(REPOSITORY), str(project)]
        yield child("demo: copier copy", [str(BIN / "copier"), *copy])
        gold = "select count(*) as days from gold.weather_daily"
        for what, arguments in (
            ("demo: cascade run, 364 days", ["run"]),
            ("demo: cascade run again, nothing to ingest", ["run"]),
            ("demo: cascade run, one day", ["run", "--partition", "2013-07-01"]),
            ("demo: cascade query", ["query", gold]),
            ("demo: cascade branch list", ["branch", "list"]),
        ):
            yield child(what, [str(BIN / "cascade"), *arguments], cwd=project)


def load_dicts() -> Iterator[dict[str, Any]]:
    """First load and re-run of a million rows of ten columns, as pages of dicts."""
    yield from million("dicts", lambda: ([row_of(i) for i in range(at, at + 1000)] for at in range(0, ROWS, 1000)))


def load_arrow() -> Iterator[dict[str, Any]]:
    """First load and re-run of a million rows of ten columns, as Arrow; then 10,000 rows of them."""
    import pyarrow as pa

    pages = [pa.Table.from_pylist([row_of(i) for i in range(at, at + 100_000)]) for at in range(0, ROWS, 100_000)]
    yield from million("Arrow", lambda: iter(pages), merge=pages[3].slice(0, 10_000))


def branches() -> Iterator[dict[str, Any]]:
    """Make and promote a branch with 1,000 changed tables."""
    import sqlalchemy as sa

    from cascade.config import Settings
    from cascade_embedded.catalog import EmbeddedCatalog

    with tempfile.TemporaryDirectory() as folder:
        lake = EmbeddedCatalog(Settings(project_dir=Path(folder)))
        lake.create("seed")
        rows = [("seed", "raw", f"t{i}", f"/x/{i}.json", "TABLE") for i in range(1000)]
        names = ("catalog_name", "table_namespace", "table_name", "metadata_location", "iceberg_type")
        with lake.database.engine.begin() as connection:
            statement = sa.text(f"insert into iceberg_tables ({', '.join(names)}) values (:{', :'.join(names)})")
            connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
        yield here("promote 1,000 created tables", lambda: lake.merge("seed"))
        yield here("make a branch of 1,000 tables", lambda: lake.create("work"))
        with lake.database.engine.begin() as connection:
            changed = (
                "update iceberg_tables set metadata_location = metadata_location || 'x' where catalog_name = 'work'"
            )
            connection.execute(sa.text(changed))
        yield here("promote 1,000 changed tables", lambda: lake.merge("work"))
        yield here("drop a branch of 1,000 tables", lambda: lake.delete("work"))


def lakehouse() -> Iterator[dict[str, Any]]:
    """The same on the real servers, side by side with the embedded engine: see `lakehouse.py`."""
    import lakehouse as servers

    yield from servers.measure()


def million(
    kind: str, fetch: Callable[[], object], merge: object = None, settings: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Load a million rows through the decorator.

    Args:
        kind: What they are, for the table.
        fetch: Makes the pages.
        merge: Rows of theirs to load once more.
        settings: Of the lakehouse; an embedded one in a temporary folder by default.
    """
    import pyarrow as pa

    from cascade.config import build_settings
    from cascade.iceberg.schema import schema_from_arrow
    from cascade.ingestion import cascade_ingestion, daily, load_plan
    from cascade.ingestion.load import load
    from cascade.lakehouse import Lakehouse

    source: dict[str, Any] = {"fetch": fetch}

    schema = schema_from_arrow(pa.Table.from_pylist([row_of(1)]).schema)

    @cascade_ingestion(
        table_name="million", unique_key="id", partitions=daily(start=DAY, end=DAY), iceberg_schema=schema
    )
    def bench(partition_date: str) -> object:
        return source["fetch"]()

    with tempfile.TemporaryDirectory() as folder:
        lakehouse = Lakehouse(build_settings(Path(folder), settings or {}), "bench")
        plan = load_plan(bench)

        def run() -> object:
            return load(plan, lakehouse, [DAY], missing_only=False, run_id="bench")

        # Imports and the first connection belong to start-up.
        source["fetch"] = lambda: [row_of(-1)]
        run()
        source["fetch"] = fetch
        if kind == "dicts":
            yield here("1 M rows: making the dicts alone", lambda: sum(1 for _ in fetch()))  # type: ignore[call-overload]
        yield here(f"1 M rows as {kind}: first load", run)
        yield here(f"1 M rows as {kind}: re-run of the partition", run)
        if merge is not None:
            source["fetch"] = lambda: merge
            yield here("10,000 rows merged into that 1 M", run)


def row_of(i: int) -> dict[str, Any]:
    """Return one row of ten columns."""
    words = {f"word_{k}": f"value {i * k % 997}" for k in range(1, 5)}
    return {"id": i, **{f"number_{k}": i * k * 0.5 for k in range(1, 5)}, **words, "count": i % 1000}


def here(what: str, work: Callable[[], object]) -> dict[str, Any]:
    """Measure work in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {"what": what, **used, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def child(what: str, command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Measure a process and its children."""
    wall = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{what}: {' '.join(command)} failed:\n{said}")
    usage = _children_since_last()
    return {"what": what, "cpu": usage, "wall": time.perf_counter() - wall, "rss": _children_rss()}


_last = 0.0


def _children_since_last() -> float:
    global _last
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = usage.ru_utime + usage.ru_stime
    before, _last = _last, total
    return total - before


def _children_rss() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _clean() -> dict[str, str]:
    """The environment without what would lead to another project."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("CASCADE_", "DAGSTER_", "DBT_"))}


CASES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "startup": startup,
    "definitions": definitions,
    "branches": branches,
    "load_dicts": load_dicts,
    "load_arrow": load_arrow,
    "demo": demo,
    "lakehouse": lakehouse,
}


if __name__ == "__main__":
    main()
