"""The portable macros on DuckDB. `tests/integration` holds the same cases against Trino."""

from pathlib import Path

import pytest

from support.portable.cases import CASES, Case
from support.portable.macros import macros
from support.portable.running import DuckDB, assert_rows, render


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("dbt") / "project", "duckdb", {case.name: case.sql for case in CASES})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_portable_macro_gives_these_rows(case: Case, rendered: dict[str, str]) -> None:
    assert_rows(DuckDB().run(rendered[case.name]), case.rows)


def test_every_portable_macro_has_a_case_and_a_description() -> None:
    """A macro that nobody compared on both engines is not portable."""
    cases = " ".join(case.sql for case in CASES)
    assert [m.name for m in macros() if f"{m.name}(" not in cases] == []
    assert [m.name for m in macros() if not m.description.endswith(".") or f"{m.name}(" not in m.example] == []


def test_a_time_format_that_the_engines_do_not_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="holds '%q'; both engines know %Y, %m, %d, %H"):
        render(tmp_path / "project", "duckdb", {"refused": "select {{ cascade_parse_timestamp('a', '%Y-%q') }} as v"})
