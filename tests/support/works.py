"""Pieces of work that tests kill and make fail: the state before, the work, what readers see, what may be left."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import duckdb
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.ingestion import cascade_ingestion, daily, load_plan, none
from cascade.ingestion.load import load
from cascade.lakehouse import Lakehouse
from cascade.publish.marts import publish_marts
from cascade_dbt.project import dbt_environment, parse_project
from cascade_maintain.branches import clean_branches
from cascade_maintain.garbage import collect_files
from cascade_maintain.lift import lift_lake
from cascade_maintain.maintenance import compact, expire, maintain_all
from cascade_operations import drop_tables, rename_table, reset_table, run_pipeline
from support.dbt import dbt_project
from support.garbage import needed, stored
from support.lakes import marking, numbers, open_embedded, promoted, put, read
from support.projects import make_project

__all__ = ["PIPELINE", "WORKS", "Work", "files_below", "require_clean"]

_NOW = dt.timedelta(0)
_DAYS = ("2013-07-01", "2013-07-02")
_RUN = "run-1a2b3c4d"

#: By reference and table: the rows, or what else a reader sees.
Seen = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """Something that a process does in a folder and that may be begun again after it was killed.

    Attributes:
        prepare: Makes the folder as it is before.
        do: Does the work; its working folder is the folder.
        seen: What readers see.
        parts: Whether each table moves by itself, so that readers may see some after the work and some before it.
        same: Whether readers see the same before and after.
    """

    prepare: Callable[[], None]
    do: Callable[[], object]
    seen: Callable[[], Seen]
    parts: bool = False
    same: bool = False


def lake() -> BranchingCatalog:
    """Open the lakehouse of the working folder."""
    return open_catalog(Settings(project_dir=Path.cwd()))


def rows_of_all() -> Seen:
    """Return the rows of all tables of `main` and `dev`, without the columns that differ from run to run."""
    opened = lake()
    with _closing(opened):
        return {
            f"{ref} {table}": [{k: v for k, v in row.items() if not _of_a_run(k)} for row in read(opened, ref, table)]
            for ref in (MAIN, "dev")
            if opened.exists(ref)
            for table in opened.pointers(ref)
        }


def _of_a_run(column: str) -> bool:
    return column.startswith("_cascade_") or column in ("run_id", "rejected_at")


@contextlib.contextmanager
def _closing(opened: BranchingCatalog) -> Iterator[BranchingCatalog]:
    """Close the connections of a catalog: the next test puts another database in the place of its own."""
    yield opened
    opened.database.engine.dispose()  # type: ignore[attr-defined]


# --- ingestion ----------------------------------------------------------------------------------------------


def _upto() -> int:
    return int(Path("upto").read_text())


@cascade_ingestion(partitions=none(), write="append", max_retries=0)
def events() -> Any:
    """What came since the last time: a row that is appended twice is there twice."""

    @dlt.resource
    def new_events(at: Any = dlt.sources.incremental("id", initial_value=0)) -> Any:  # noqa: B008  as dlt wants it
        yield [{"id": n} for n in range(at.last_value + 1, _upto() + 1)]

    return new_events


_GUESTS = Schema(NestedField(1, "id", StringType()), NestedField(2, "n", LongType()))


@cascade_ingestion(
    partitions=daily(start="2013-07-01", end="2013-07-03"),
    unique_key="id",
    iceberg_schema=_GUESTS,
    on_invalid="quarantine",
    quarantine_limit=10,
    max_retries=0,
)
def guests(partition_date: str) -> list[dict[str, Any]]:
    """Of every day three rows; the fourth has a number that is none."""
    return [{"id": f"{partition_date} {n}", "n": "none" if n == 4 else _upto() + n} for n in range(1, 5)]


def _load(asset: dg.AssetsDefinition, *keys: str, upto: int) -> None:
    Path("upto").write_text(str(upto))
    opened = lake()
    with _closing(opened):
        house = Lakehouse(opened.settings, "dev")
        load(load_plan(asset), house, keys, missing_only=False, run_id=f"to {upto}")
        house.catalog.database.engine.dispose()  # type: ignore[attr-defined]


def _nothing() -> None:
    with _closing(lake()) as opened:
        opened.create("dev")
    Path("upto").write_text("0")


def _first_load() -> None:
    _load(events, upto=10)


def _append() -> None:
    _load(events, upto=20)


def _quarantine_first() -> None:
    _load(guests, _DAYS[0], upto=0)


def _quarantine() -> None:
    _load(guests, *_DAYS, upto=100)


def _to_mark() -> None:
    with _closing(lake()) as opened:
        for first in (0, 10, 20):
            put(opened, "dev", "raw.a", [{"id": n, "v": 0} for n in range(first, first + 10)])
        with marking():
            put(opened, "dev", "raw.a", [{"id": n, "v": 1} for n in (9, 19, 29)], "merge", key=["id"])


def _mark() -> None:
    """Merge one more row of each file: in place of the file of marks comes another one."""
    with _closing(lake()) as opened, marking():
        put(opened, "dev", "raw.a", [{"id": n, "v": 1} for n in (8, 18, 28)], "merge", key=["id"])


# --- promotion, publishing, maintenance -----------------------------------------------------------------------


def _to_promote() -> None:
    with _closing(lake()) as opened:
        for table in ("raw.a", "raw.b"):
            promoted(opened, table, numbers(1, 1))
        opened.create("dev")
        put(opened, _RUN, "raw.a", numbers(2, 2))
        put(opened, _RUN, "raw.b", numbers(2, 2))
        put(opened, _RUN, "raw.c", numbers(2, 2))


def _promote() -> None:
    with _closing(lake()) as opened:
        if opened.exists(_RUN):
            opened.merge(_RUN)
            opened.delete(_RUN)


def _to_drop() -> None:
    make_project(Path.cwd(), {})
    with _closing(lake()) as opened:
        for table in ("raw.a", "quarantine.raw__a", "raw.b"):
            promoted(opened, table, numbers(1, 2))
        opened.create("dev")


def _drop() -> None:
    with _closing(lake()) as opened:
        if "raw.a" in opened.pointers(MAIN):
            drop_tables(opened.settings, ["raw.a"])
        else:  # what the next promotion does
            publish_marts(opened, opened.settings)


def _rename() -> None:
    with _closing(lake()) as opened:
        if "raw.a" in opened.pointers(MAIN):
            rename_table(opened.settings, "raw.a", "raw.c")
        else:  # what the next promotion does
            publish_marts(opened, opened.settings)


def _to_reset() -> None:
    make_project(Path.cwd(), {"workflows/all.py": _WORKFLOW})
    for day in _DAYS:
        _load(guests, day, upto=10)
    with _closing(lake()) as opened:
        opened.merge("dev")


def _reset() -> None:
    with _closing(lake()) as opened:
        reset_table(opened.settings, "raw.guests")


def _to_publish() -> None:
    with _closing(lake()) as opened:
        for mart in ("marts.a", "marts.b"):
            promoted(opened, mart, numbers(1, 2))
        publish_marts(opened, opened.settings)
        for mart in ("marts.a", "marts.b"):
            promoted(opened, mart, numbers(3, 4))
        promoted(opened, "marts.c", numbers(1, 4))


def _publish() -> None:
    with _closing(lake()) as opened:
        publish_marts(opened, opened.settings)


def _published() -> Seen:
    """Return the rows of the file that reports read."""
    with _closing(lake()) as opened, duckdb.connect(str(opened.settings.marts_path), read_only=True) as marts:
        names = [name for (name,) in marts.sql("SELECT table_name FROM cascade.published").fetchall()]
        return {name: sorted(marts.sql(f"SELECT id FROM {name}").fetchall()) for name in names}


def _to_maintain() -> None:
    _to_promote()
    with _closing(lake()) as opened:
        put(opened, "dev", "raw.a", numbers(7, 9))
        put(opened, "dev", "raw.a", numbers(7, 8), "merge", key=["id"])
        opened.delete(_RUN)
        put(opened, "run-5e6f7a8b", "raw.b", numbers(5, 5))
    for leftover in ("tmp/1b2c", "dbt/runs/3d4e"):
        Path(".cascade", leftover).mkdir(parents=True)
        Path(".cascade", leftover, "rows").write_text("left by a killed process")
    Path(".cascade/published.new").write_text("left by a killed process")


def _to_compact() -> None:
    """Make tables of several small files and old snapshots, and a branch that wrote one of them."""
    _to_maintain()
    with _closing(lake()) as opened:
        for first in (10, 20, 30):
            for table in ("raw.a", "raw.b"):
                promoted(opened, table, numbers(first, first + 1))


def _compact() -> None:
    with _closing(lake()) as opened:
        done = compact(opened.settings)
        assert not done.problems, done.problems
        assert not done.left


def _expire() -> None:
    with _closing(lake()) as opened:
        assert not expire(opened.settings, keep_history=_NOW).left


def _maintain_all() -> None:
    with _closing(lake()) as opened, dg.DagsterInstance.ephemeral() as instance:
        ages = {"branches_older_than": _NOW, "files_older_than": _NOW, "keep_history": _NOW}
        done = maintain_all(opened.settings, instance=instance, **ages)
        assert not [*done.branches.problems, *done.compaction.problems, *done.files.failed, *done.files.missing]


def _to_lift() -> None:
    with _closing(open_embedded(Path.cwd() / "laptop")) as laptop:
        for table in ("raw.a", "raw.b"):
            promoted(laptop, table, numbers(1, 3))
        promoted(laptop, "raw.a", numbers(2, 4), mode="merge", key=["id"])
    with _closing(lake()):
        pass


def _lift() -> None:
    with _closing(lake()) as opened:
        lift_lake(opened.settings, Path.cwd() / "laptop")


def janitor() -> None:
    """Take away what nobody needs: `cascade maintain` with no grace, where Dagster knows no run."""
    with _closing(lake()) as opened, dg.DagsterInstance.ephemeral() as instance:
        done = clean_branches(opened, opened.settings, instance, older_than=_NOW)
        assert not done.problems, done.problems
        collected = collect_files(opened, older_than=_NOW, keep_history=_NOW)
        assert not collected.failed
        assert not collected.missing


def require_clean() -> None:
    """After the janitor no branch of a run is there, no file that no state of a table needs, and no held lock."""
    janitor()
    with _closing(lake()) as opened:
        branches = [branch.name for branch in opened.branches()]
        assert set(branches) <= {MAIN, "dev"}
        assert stored(opened) == needed(opened, log=False, forgotten=True)
        for branch in branches:
            with opened.lease(branch, "the test"):
                for table in opened.pointers(branch):
                    with opened.table_lock(table):
                        pass


# --- dbt ------------------------------------------------------------------------------------------------------

_MODELS = {
    "transforms/dbt/dbt_project.yml": dbt_project(
        "models: { shop: { +materialized: table, +schema: silver, second: { +schema: marts } } }\n"
    ),
    "transforms/dbt/models/sources.yml": "sources: [{ name: raw, tables: [{ name: events }] }]\n",
    "transforms/dbt/models/first.sql": "{{ config(materialized='incremental', unique_key='id') }}\n"
    "select id, id * 2 as n from {{ source('raw', 'events') }}",
    "transforms/dbt/models/second.sql": "select count(*) as n from {{ ref('first') }}",
}


def _to_transform() -> None:
    make_project(Path.cwd(), _MODELS)
    _load(events, upto=10)
    _transform()
    _load(events, upto=20)


def _transform() -> None:
    from dbt.cli.main import dbtRunner

    with _closing(lake()) as opened:
        parse_project(opened.settings)
        folder = opened.settings.data_path / "dbt"
        places = {
            "profiles-dir": folder,
            "project-dir": opened.settings.dbt_path,
            "target-path": folder / "target",
            "log-path": folder / "target",
        }
        with dbt_environment(opened.settings, "dev"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = dbtRunner().invoke(
                ["--quiet", "--no-write-json", "build", *(f"--{name}={place}" for name, place in places.items())]
            )
        assert done.success, done


# --- all of it ------------------------------------------------------------------------------------------------

_WORKFLOW = '''\
"""What comes since the last time, and who is there."""

from support.works import events, guests
'''


def _whole_project() -> None:
    make_project(Path.cwd(), {**_MODELS, "workflows/all.py": _WORKFLOW})
    Path("upto").write_text("10")
    _pipeline()
    Path("upto").write_text("20")


def _pipeline() -> None:
    with _closing(lake()) as opened, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AssetExecutionContext")
        report = run_pipeline(opened.settings)
        assert report.success, report.failures


WORKS = {
    "first load": Work(_nothing, _first_load, rows_of_all),
    "append": Work(_first_load, _append, rows_of_all),
    "quarantine": Work(_quarantine_first, _quarantine, rows_of_all),
    "marks": Work(_to_mark, _mark, rows_of_all),
    "dbt": Work(_to_transform, _transform, rows_of_all, parts=True),
    "promotion": Work(_to_promote, _promote, rows_of_all),
    "drop": Work(_to_drop, _drop, rows_of_all),
    "rename": Work(_to_drop, _rename, rows_of_all),
    "reset": Work(_to_reset, _reset, rows_of_all),
    "publishing": Work(_to_publish, _publish, _published),
    "maintenance": Work(_to_maintain, janitor, rows_of_all, same=True),
    "compaction": Work(_to_compact, _compact, rows_of_all, same=True),
    "expiry": Work(_to_compact, _expire, rows_of_all, same=True),
    "all maintenance": Work(_to_compact, _maintain_all, rows_of_all, same=True),
    "lift": Work(_to_lift, _lift, rows_of_all),
}
PIPELINE = Work(_whole_project, _pipeline, rows_of_all)


_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{5}-|\d{6,}|[0-9a-f]{32}")


def files_below(folder: Path) -> Counter[str]:
    """Return the files of a folder, without what differs from run to run in their names."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (_CHANGING.sub("…", str(path.relative_to(folder))) for path in files)
    return Counter(name for name in names if not name.endswith(("-wal", "-shm")))
