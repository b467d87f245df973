"""The portable macros on Trino: the same cases as on DuckDB (`tests/extensions/dbt/test_portable_macros.py`)."""

import pytest

from support.portable.cases import CASES, Case
from support.portable.running import Trino, assert_rows, render
from support.servers.stack import Stack


@pytest.fixture(scope="module")
def rendered(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    statements = {case.name: case.sql for case in CASES}
    folder = tmp_path_factory.mktemp("dbt") / "project"
    return render(folder, "trino", statements, stack.environment["CASCADE_TRINO__URL"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_portable_macro_gives_these_rows(case: Case, rendered: dict[str, str], stack: Stack) -> None:
    assert_rows(Trino(stack.environment["CASCADE_TRINO__URL"]).run(rendered[case.name]), case.rows)
