"""The table of differences on Trino, and both engines side by side."""

import pytest

from cascade_project.portability.differences import trino_functions
from support.portable.running import DuckDB, Trino, render
from support.portable.table import ENTRIES, REMEDIES, attempt, check_entry
from support.servers.stack import Stack

Remedies = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def server(stack: Stack) -> Trino:
    return Trino(stack.environment["CASCADE_TRINO__URL"])


@pytest.fixture(scope="module")
def remedies(server: Trino, tmp_path_factory: pytest.TempPathFactory) -> Remedies:
    folder = tmp_path_factory.mktemp("dbt")
    return {dialect: render(folder / dialect, dialect, REMEDIES, server.url) for dialect in ("duckdb", "trino")}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_table_tells_the_truth_about_trino(name: str, server: Trino, remedies: Remedies) -> None:
    check_entry(server, ENTRIES[name], remedies["trino"].get(name, ""))


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_gives_the_same_on_both_engines(name: str, server: Trino, remedies: Remedies) -> None:
    assert repr(DuckDB().run(remedies["duckdb"][name])) == repr(server.run(remedies["trino"][name]))


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.engine == "both"])
def test_what_means_something_else_does(name: str, server: Trino) -> None:
    bad = ENTRIES[name].bad
    found = [repr(attempt(engine, bad)) for engine in (DuckDB(), server)]
    assert found[0] != found[1]


def test_the_list_of_trino_s_functions_is_the_server_s(server: Trino) -> None:
    assert trino_functions() == {row[0] for row in server.run("show functions")}
