"""Cases on the real servers, started for each of them: Nessie, Trino, S3 and PostgreSQL. Not part of a quick run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import projects
from loading import ARROW
from measuring import Work, case
from rows import DAY, batches

ON_SERVERS = "Cascade on servers"
BRANCH, TABLES = "a run branch on Trino: made, read, dropped", "1,000 tables: branch made, changed tables promoted"

_NOT_QUICK: tuple[int, ...] = ()


@case(ARROW, ON_SERVERS, "rows", (1_000_000,), _NOT_QUICK)
def arrow_on_servers(folder: Path, rows: int) -> Iterator[Work]:
    from lake import Contract, Loads

    from support.servers.stack import Stack

    with Stack() as stack:
        load = Loads(folder, _settings(stack), unique_key="id", validation_schema=Contract)
        load(lambda: batches(1), ["2024-01-02"])
        yield Work(lambda: load(lambda: batches(rows), [DAY]), making=lambda: sum(1 for _ in batches(rows)))


@case(BRANCH, ON_SERVERS, "branch", (1,), _NOT_QUICK)
def branch_on_servers(folder: Path, _: int) -> Iterator[Work]:
    from cascade.catalog import MAIN, open_catalog
    from cascade.config import build_settings
    from cascade.engine import delete_branch, query
    from support.servers.stack import Stack

    with Stack() as stack:
        lake = open_catalog(build_settings(folder, _settings(stack)))
        lake.create_if_missing("dev")
        query(lake, MAIN, "SELECT 1")  # the first connection belongs to start-up

        def use() -> None:
            lake.create("run-bench")
            query(lake, "run-bench", "SELECT 1")
            delete_branch(lake, "run-bench")

        yield Work(use, times=5)


@case(TABLES, ON_SERVERS, "tables", (10, 100, 1_000), _NOT_QUICK)
def tables_on_servers(folder: Path, tables: int) -> Iterator[Work]:
    from cascade.config import build_settings
    from cascade_servers.nessie import NessieCatalog
    from cascade_servers.nessie.reference import put_namespace
    from support.servers.stack import Stack

    with Stack() as stack:
        lake = NessieCatalog(build_settings(folder, _settings(stack)))
        lake.create("seed")
        _move(lake, "seed", tables, "0", [put_namespace("raw")])
        lake.merge("seed")
        for state in range(10):  # a server is slower while Java still compiles it
            lake.create("work")
            _move(lake, "work", tables, str(state + 1), [])
            if state < 9:
                lake.merge("work")
                lake.delete("work")
        yield Work(lambda: lake.merge("work"))


@case(projects.EXAMPLE, ON_SERVERS, "days", (364,), _NOT_QUICK)
def example_on_servers(folder: Path, days: int) -> Iterator[Work]:
    from support.servers.lakes import fresh_lake
    from support.servers.stack import Stack

    with Stack() as stack:
        # Marts, and Dagster's runs and events, are in PostgreSQL, too.
        databases = {name: stack.environment[name] for name in ("CASCADE_DAGSTER_URL", "CASCADE_MARTS_URL")}
        os.environ.update(fresh_lake(stack, "nessie") | databases)
        yield from projects.example_ours(folder, days)


def _settings(stack: Any) -> dict[str, str]:
    from support.lakes import as_settings
    from support.servers.lakes import fresh_lake

    return as_settings(fresh_lake(stack, "nessie"))


def _move(lake: Any, branch: str, tables: int, state: str, first: list[dict[str, Any]]) -> None:
    """Let tables stand at a state of their own; their files need not exist to be promoted."""
    from cascade_servers.nessie.reference import put

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
        for i in range(tables)
    ]
    lake.client.commit(branch, lake.client.reference(branch)["hash"], [*first, *operations], "Move")
