"""Measure the production engine beside the embedded one, in one run: real servers, started for it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from bench import BIN, REPOSITORY, ROWS, _clean, child, here, million, row_of

sys.path.insert(0, str(REPOSITORY / "tests"))

from cascade.catalog import MAIN, open_catalog
from cascade.config import build_settings
from cascade.engine import delete_branch, query
from cascade_servers.nessie import NessieCatalog
from cascade_servers.nessie.reference import put, put_namespace
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

__all__ = ["measure"]

TABLES = 1000
WARM, TIMES = 10, 7


def measure() -> Iterator[dict[str, Any]]:
    """Ingestion, 1,000 tables, a run branch on Trino, and the example's whole pipeline."""
    pages = [pa.Table.from_pylist([row_of(i) for i in range(at, at + 100_000)]) for at in range(0, ROWS, 100_000)]
    with Stack() as stack:
        for name, settings in (("embedded", None), ("trino", _settings(stack))):
            for row in million("Arrow", lambda: iter(pages), pages[3].slice(0, 10_000), settings):
                yield {**row, "what": f"{name}: {row['what']}"}
        yield from _tables(stack)
        yield from _branch_on_trino(stack)
        yield from _example(stack)


def _settings(stack: Stack) -> dict[str, str]:
    ours = {n.removeprefix("CASCADE_").lower(): v for n, v in fresh_lake(stack, "nessie").items()}
    return {name.replace("__", "."): value for name, value in ours.items()}


def _tables(stack: Stack) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lake = NessieCatalog(build_settings(Path(folder), _settings(stack)))
        lake.create("seed")
        _move(lake, "seed", "0", [put_namespace("raw")])
        yield here("lakehouse: promote 1,000 created tables, first use", lambda: lake.merge("seed"))
        found: dict[str, list[dict[str, Any]]] = {}
        for state in range(1, 1 + WARM + TIMES):  # a server is slower while Java still compiles it
            steps: dict[str, Callable[[], object]] = {
                "make a branch of 1,000 tables": lambda: lake.create("work"),
                "": lambda: _move(lake, "work", str(state), []),  # noqa: B023  # called in this turn
                "promote 1,000 changed tables": lambda: lake.merge("work"),
                "drop a branch of 1,000 tables": lambda: lake.delete("work"),
            }
            for what, step in steps.items():
                found.setdefault(what, []).append(here(f"lakehouse: {what}, median of {TIMES}", step))
        del found[""]
        for rows in found.values():
            yield sorted(rows[WARM:], key=lambda row: float(row["wall"]))[TIMES // 2]


def _move(lake: NessieCatalog, branch: str, state: str, first: list[dict[str, Any]]) -> None:
    """Let 1,000 tables stand at a state of their own; their files need not exist to be promoted."""
    standing = lake._contents(lake.client.reference(branch)["hash"])
    operations = [
        put(
            name := f"raw.t{i}",
            {
                "type": "ICEBERG_TABLE",
                "metadataLocation": f"s3://warehouse/{name}/{state}.json",
                "snapshotId": i,
                **dict.fromkeys(("schemaId", "specId", "sortOrderId"), 0),
                **({"id": standing[name]["id"]} if name in standing else {}),
            },
        )
        for i in range(TABLES)
    ]
    lake.client.commit(branch, lake.client.reference(branch)["hash"], [*first, *operations], "Move")


def _branch_on_trino(stack: Stack) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lake = open_catalog(build_settings(Path(folder), _settings(stack)))
        lake.create_if_missing("dev")
        query(lake, MAIN, "SELECT 1")  # the first connection belongs to start-up

        def use() -> None:
            lake.create("run-bench")
            query(lake, "run-bench", "SELECT 1")
            delete_branch(lake, "run-bench")

        use()
        yield here("lakehouse: a run branch on Trino, made, read, dropped", use)


def _example(stack: Stack) -> Iterator[dict[str, Any]]:
    # Marts, and Dagster's runs and events, are in PostgreSQL, too.
    databases = {name: stack.environment[name] for name in ("CASCADE_DAGSTER_URL", "CASCADE_MARTS_URL")}
    with tempfile.TemporaryDirectory() as folder:
        for name, environment in (("embedded", {}), ("trino", fresh_lake(stack, "nessie") | databases)):
            project = Path(folder) / name
            copy = ["copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", str(REPOSITORY), str(project)]
            child("copy", [str(BIN / "copier"), *copy])
            for what in ("run, 364 days", "run again, nothing to ingest"):
                env = _clean() | environment
                yield child(f"{name}: the example, cascade {what}", [str(BIN / "cascade"), "run"], project, env)
