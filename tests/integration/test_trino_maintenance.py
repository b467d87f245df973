"""What Trino's own commits leave in a table does not grow: a promotion ends with its maintenance."""

from pathlib import Path

import pytest

from cascade.catalog import MAIN, open_catalog
from cascade.engine import query
from cascade_maintain import after, expire, rewrite
from cascade_maintain.after import maintain_promoted
from cascade_servers.trino.catalogs import ensure_catalog
from cascade_servers.trino.server import server_of
from support.lakes import ids, marking, numbers, put, settings_in
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

T = "raw.a"
# As an incremental model does it: rows of keys that are there are marked as deleted, and written again.
MERGE = """merge into {catalog}.raw.a t using (values {value}, {value} + 1000) as s (id) on t.id = s.id
when matched then update set id = s.id when not matched then insert (id) values (s.id)"""


def test_files_and_snapshots_of_trino_become_few_and_trino_goes_on(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fresh_lake(stack, "nessie").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rewrite, "MANY_DELETE_FILES", 4)
    monkeypatch.setattr(after, "MANY_SNAPSHOTS", 4)
    monkeypatch.setattr(expire, "KEPT_STATES", 3)
    lake = open_catalog(settings_in(tmp_path))
    put(lake, "dev", T, numbers(0, 99))
    expected, server = set(range(100)), server_of(lake.settings)
    for _ in range(2):
        catalog = ensure_catalog(lake.settings, "dev")
        for value in range(5):
            server.read(MERGE.format(catalog=catalog, value=value))
            expected |= {value + 1000}
        entry = lake.merge("dev")
        assert entry is not None
        said = maintain_promoted(lake, entry)
        assert said.startswith(f"compacted {T}, ")
        assert f"old snapshots of {T} leave" in said
        table = lake.load(T, lake.pointers(MAIN)[T])
        assert (len(table.snapshots()), sum(len(task.delete_files) for task in table.scan().plan_files())) == (3, 0)
        assert ids(lake, MAIN, T) == sorted(expected)
        assert query(lake, MAIN, f"select count(*) as n, sum(id) as s from {T}").to_pylist() == [
            {"n": len(expected), "s": sum(expected)}
        ]


def test_rows_that_either_marks_as_deleted_are_gone_for_both(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fresh_lake(stack, "nessie").items():
        monkeypatch.setenv(name, value)
    lake = open_catalog(settings_in(tmp_path))
    server, expected = server_of(lake.settings), set(range(100))
    put(lake, "dev", T, numbers(0, 99))
    for turn in range(2):
        for value in (10 * turn, 10 * turn + 1):  # of Trino's files of marks and ours, one of ours is made
            server.read(MERGE.format(catalog=ensure_catalog(lake.settings, "dev"), value=value))
            expected |= {value + 1000}
        with marking():
            done = put(lake, "dev", T, numbers(50 + turn, 52 + turn), "merge", key=["id"])
        assert (done.replaced, done.total) == (3, len(expected))
        assert ids(lake, "dev", T) == sorted(expected)
        assert query(lake, "dev", f"select count(*) as n, sum(id) as s from {T}").to_pylist() == [
            {"n": len(expected), "s": sum(expected)}
        ]
        tasks = list(lake.open("dev").load_table(T).scan().plan_files())
        assert len({file for task in tasks for file in task.delete_files}) == 1
