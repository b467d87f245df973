"""The promises of validation: all rows that are written are checked, in batches, and a failure shows some of them.

Modules: `cascade.ingestion.incoming`, `cascade.ingestion.report`.
"""

from dataclasses import dataclass, field
from typing import Any

import pandera.pandas as pap
import pandera.polars as plp
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cascade.errors import ServiceError
from cascade.ingestion import cascade_ingestion
from cascade.quality import Check, cascade_quality, not_null, unique
from support.ingestion import Lake

pytestmark = pytest.mark.on_servers("nessie", shared=True)

#: Three batches: the loader cuts at 100,000 rows.
MANY = 250_000


class Numbers(pap.DataFrameModel):
    """A contract of the pandas API."""

    id: int
    n: int = pap.Field(ge=0)
    code: int = pap.Field(unique=True)


class PolarsNumbers(plp.DataFrameModel):
    """The same of the polars API."""

    id: int
    n: int = plp.Field(ge=0)
    code: int = plp.Field(unique=True)


MODELS = {"pandas": Numbers, "polars": PolarsNumbers}


def numbers(**changed: dict[int, int]) -> pa.Table:
    """Return many good rows, but for some values of columns, by position."""
    ids = pa.array(range(MANY), pa.int64())
    columns = {"id": ids, "n": ids, "code": ids}
    for name, values in changed.items():
        mask = pc.is_in(ids, value_set=pa.array(sorted(values), pa.int64()))
        columns[name] = pc.replace_with_mask(columns[name], mask, pa.array([values[at] for at in sorted(values)]))
    return pa.table(columns)


@dataclass(frozen=True)
class Broken:
    """Values that break the contract, by column and position; what is said of them, and which rows are set aside."""

    changed: dict[str, dict[int, int]]
    says: tuple[str, ...]
    aside: tuple[int, ...] = field(default=())


BROKEN: dict[str, Broken] = {
    "the first row": Broken({"n": {0: -1}}, ("1 of 250,000 rows break the contract", "for -1 in {", '"id": 0'), (0,)),
    "the last row of a batch": Broken({"n": {99_999: -1}}, ("1 of 250,000 rows", '"id": 99999'), (99_999,)),
    "the first row of a batch": Broken({"n": {100_000: -1}}, ("1 of 250,000 rows", '"id": 100000'), (100_000,)),
    "the last row": Broken({"n": {MANY - 1: -1}}, ("1 of 250,000 rows", '"id": 249999'), (MANY - 1,)),
    "rows of each batch": Broken(
        {"n": {5: -1, 150_000: -2, 240_000: -3}},
        ("3 of 250,000 rows", "for -1 in {", "for -2 in {", "for -3 in {"),
        (5, 150_000, 240_000),
    ),
    "a value that is there again two batches later": Broken(
        {"code": {240_000: 7}}, ("`code` must be unique: 7 (2 times)",), (7, 240_000)
    ),
    "a value that is there once where the row is set aside": Broken(
        {"code": {240_000: 7}, "n": {7: -1}}, ("1 of 250,000 rows",), (7,)
    ),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, _own_machine: None) -> Lake:
    folder = tmp_path_factory.mktemp("validation")
    return Lake(folder, project_dir=folder)


@pytest.mark.parametrize("library", MODELS)
@pytest.mark.parametrize("name", BROKEN)
def test_every_row_of_every_batch_is_checked_and_some_are_shown(lake: Lake, name: str, library: str) -> None:
    case, table = BROKEN[name], f"v{list(BROKEN).index(name)}_{library}"
    options: dict[str, Any] = {"partitions": "none", "validation_schema": MODELS[library], "max_retries": 0}
    asset = cascade_ingestion(table_name=table, **options)(lambda: numbers(**case.changed))
    said = lake.fail(asset)
    check = lake.check(asset, "contract")
    assert (check.passed, check.blocking) == (False, True)
    for words in case.says:
        assert words in said
        assert words in str(check.description)
    assert f"raw.{table}" not in lake.lakehouse.tables()

    quarantined = cascade_ingestion(table_name=table, on_invalid="quarantine", **options)(
        lambda: numbers(**case.changed)
    )
    found = lake.succeed(quarantined)
    assert (found["loaded_rows"], found["quarantined_rows"]) == (MANY - len(case.aside), len(case.aside))
    check = lake.check(quarantined, "contract")
    assert (check.passed, check.severity.value) == (False, "WARN")
    (bad,) = lake.query(f"SELECT count(*) AS n FROM raw.{table} WHERE id IN ({', '.join(map(str, case.aside))})")
    assert bad["n"] == 0


SHOWN: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "values that cannot be cast": (
        [{"id": 1, "n": "x", "code": 1}],
        {},
        ("1 of 1 row break the contract Numbers", "column `n`: 'x' is not a long", '"n": "x"'),
    ),
    "keys without a value": (
        [{"id": None, "n": 1, "code": 1}],
        {"unique_key": "id"},
        ("column `id`: must not be null", '"code": 1'),
    ),
    "more than are shown": (
        [{"id": n, "n": -n, "code": n} for n in range(1, 10)],
        {},
        ("9 of 9 rows break", '"id": 1', '"id": 5'),
    ),
    "more than may be set aside": (
        [{"id": n, "n": -n, "code": n} for n in range(1, 10)],
        {"on_invalid": "quarantine", "quarantine_limit": 2},
        ("9 of 9 rows break", "more than quarantine_limit=2", '"id": 1'),
    ),
    "a larger share than may be set aside": (
        [{"id": n, "n": n - 1, "code": n} for n in range(2)],
        {"on_invalid": "quarantine", "quarantine_fraction": 0.1},
        ("1 of 2 rows break", "more than quarantine_fraction=0.1", '"id": 0'),
    ),
    "a column that the policy refuses": (
        [{"id": 1, "n": 1, "code": 1, "more": 1}],
        {"schema_policy": "strict"},
        ("does not have: `more`",),
    ),
    "a column that no row has": ([{"id": 1, "n": 1}], {"schema_policy": "strict"}, ("No fetched row has `code`",)),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_step_that_fails_leaves_the_check_s_result_with_failing_rows(lake: Lake, name: str) -> None:
    rows, options, says = SHOWN[name]
    chosen = {"partitions": "none", "validation_schema": Numbers, "max_retries": 0, **options}
    asset = cascade_ingestion(table_name=f"w{list(SHOWN).index(name)}", **chosen)(lambda: rows)
    lake.fail(asset)
    check = lake.check(asset, "contract")
    assert not check.passed
    assert [words for words in says if words not in str(check.description)] == []
    assert '"id": 6' not in str(check.description)


def test_where_it_is_asked_a_value_is_unique_over_the_whole_table(lake: Lake) -> None:
    """`unique=True` of the contract is about one load; `unique` of `@cascade_quality` reads what the table holds."""
    rows = iter([[{"id": 1, "n": 1, "code": 7}], [{"id": 2, "n": 1, "code": 7}]])
    asset = cascade_ingestion(table_name="u", partitions="none", write="append", validation_schema=Numbers)(
        lambda: next(rows)
    )

    @cascade_quality(asset="raw/u", checks=[unique("code")])
    def once() -> None:
        """A code comes once."""

    checks = ["raw/u contract", "raw/u unique_code"]
    assert lake.run(asset, once).checks == dict.fromkeys(checks, True)
    assert lake.run(asset, once).checks == {checks[0]: True, checks[1]: False}
    found = lake.check(asset, "unique_code")
    assert found.blocking
    assert "2 of 2 rows of raw.u" in str(found.description)
    (sample,) = [value for name, value in found.metadata.items() if name == "sample"]
    assert [record.data["code"] for record in sample.records] == ["7"]  # type: ignore[union-attr]


def test_checks_that_ran_before_a_server_was_gone_keep_their_results(lake: Lake) -> None:
    """The step fails, since nothing is known of the last one; what is known stays."""

    def gone(scope: object) -> Any:
        raise ServiceError("The server is gone.")

    asset = cascade_ingestion(table_name="g", partitions="none")(lambda: [{"id": 1}, {"id": 1}])

    @cascade_quality(asset="raw/g", checks=[unique("id"), not_null("id"), Check("last", "", gone)])
    def group() -> None:
        """Three rules."""

    result = lake.run(asset, group)
    assert (result.success, result.checks) == (False, {"raw/g unique_id": False, "raw/g not_null_id": True})
    assert "The server is gone." in result.errors[0]
