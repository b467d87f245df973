"""Trino's catalogs: one for each branch, made when needed, dropped with the branch, and no secret anywhere."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.engine import delete_branch, engine_of, query
from cascade.errors import QueryError
from cascade_servers.trino.catalogs import catalog_name, ensure_catalog
from cascade_servers.trino.server import server_of
from support.lakes import numbers, put, settings_in
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

COUNT = "SELECT count(*) AS n FROM raw.a"


@pytest.fixture
def lake(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BranchingCatalog:
    """A lakehouse on the servers with nothing in it, nor in Trino."""
    for name, value in fresh_lake(stack, "nessie").items():
        monkeypatch.setenv(name, value)
    opened = open_catalog(settings_in(tmp_path))
    engine_of(opened.settings).drop_leftovers(opened)
    return opened


def catalogs(lake: BranchingCatalog) -> set[str]:
    return {row[0] for row in server_of(lake.settings).read("SELECT catalog_name FROM system.metadata.catalogs").rows}


def n(lake: BranchingCatalog, ref: str) -> int:
    (row,) = query(lake, ref, COUNT).to_pylist()
    return int(row["n"])


def test_each_reference_is_read_through_a_catalog_of_its_own_which_is_made_when_needed(lake: BranchingCatalog) -> None:
    put(lake, "dev", "raw.a", numbers(1, 1))
    put(lake, "Fix-July.2", "raw.a", numbers(1, 2))
    lake.tag("v1", "Fix-July.2")
    put(lake, "Fix-July.2", "raw.a", numbers(3, 3))
    assert [n(lake, ref) for ref in ("dev", "Fix-July.2", "v1")] == [1, 3, 2]
    assert {catalog_name(ref) for ref in ("dev", "Fix-July.2", "v1")} <= catalogs(lake)


def test_commits_of_others_are_seen_at_once(lake: BranchingCatalog) -> None:
    for count in range(1, 4):
        put(lake, "fix", "raw.a", numbers(count, count))
        assert n(lake, "fix") == count


def test_a_branch_that_was_dropped_and_made_again_is_the_new_one(lake: BranchingCatalog) -> None:
    put(lake, "dev", "raw.a", numbers(1, 3))
    assert n(lake, "dev") == 3
    lake.delete("dev")
    put(lake, "dev", "raw.a", numbers(1, 1))
    assert n(lake, "dev") == 1


def test_processes_may_make_the_same_catalog_at_the_same_time(lake: BranchingCatalog) -> None:
    with ThreadPoolExecutor(6) as threads:
        made = set(threads.map(lambda _: ensure_catalog(lake.settings, "run-same"), range(12)))
    assert made == {catalog_name("run-same")}


def test_the_catalog_ends_with_the_branch(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    n(lake, "fix")
    delete_branch(lake, "fix")
    assert catalog_name("fix") not in catalogs(lake)


def test_leftovers_are_found_and_nothing_else_is_dropped(lake: BranchingCatalog) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    put(lake, "kept", "raw.a", numbers(1, 1))
    for ref in ("fix", "kept"):
        n(lake, ref)
    lake.delete("fix")
    assert engine_of(lake.settings).drop_leftovers(lake) == [catalog_name("fix")]
    assert {MAIN, "dev", "system", catalog_name("kept")} <= catalogs(lake)


def test_no_secret_is_in_the_history_of_queries_or_in_files(lake: BranchingCatalog, stack: Stack) -> None:
    put(lake, "fix", "raw.a", numbers(1, 1))
    n(lake, "fix")
    secrets = [stack.environment[f"CASCADE_S3_{name}_KEY"] for name in ("ACCESS", "SECRET")]
    history = server_of(lake.settings).read("SELECT query FROM system.runtime.queries").rows
    assert any("CREATE CATALOG" in row[0] for row in history)
    assert not [row[0] for row in history if any(secret in row[0] for secret in secrets)]
    texts = [
        path.read_bytes()
        for path in (stack.folder / "trino").rglob("*")
        if path.is_file() and path.stat().st_size < 1 << 22
    ]
    assert texts
    assert not [text for text in texts for secret in secrets if secret.encode() in text]


def test_why_a_catalog_is_not_made_is_told_in_a_line(
    lake: BranchingCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trino's own answer is 16 times the same stack of calls."""
    put(lake, "fix", "raw.a", numbers(1, 1))
    monkeypatch.setenv("CASCADE_NESSIE__TOKEN", "which the server does not know")
    with pytest.raises(QueryError) as caught:
        query(open_catalog(settings_in(tmp_path)), "fix", COUNT)
    assert "Trino does not make a catalog for branch `fix`: " in str(caught.value)
    assert "CASCADE_NESSIE__TOKEN" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
