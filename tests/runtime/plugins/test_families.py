"""Plugins for data people, where the work is: a source, a check and a transformation by name, with typed options.

Modules: `cascade.plugins.families`, `cascade.ingestion.connector`, `cascade.plugins.shape`.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cascade import cascade_ingestion, cascade_quality, cascade_transform
from cascade.errors import CascadeError, ConfigurationError, DefinitionError
from cascade.plugins import get_service, get_source_connector, list_plugins
from support.ingestion import Lake
from support.packages import install

_PACKAGE = """
import pandera.pandas as pap
from pydantic import BaseModel

from cascade.plugins import (
    PluginMetadata, QualityCheckPlugin, ServicePlugin, SourceConnectorPlugin, TransformationPlugin
)
from cascade.quality import in_range


class Numbers(pap.DataFrameModel):
    n: int = pap.Field(lt=100)


class NumberOptions(BaseModel):
    first: int = 1
    last: int
    password: int = 0


class NumberSource(SourceConnectorPlugin):
    metadata = PluginMetadata(name="numbers", version="2.1", description="Counts.", tags=("example",))
    options = NumberOptions

    def fetch(self, options):
        return [{"n": n} for n in range(options.first, options.last + 1)]

    def schema(self, options):
        return Numbers


class Positive(QualityCheckPlugin):
    metadata = PluginMetadata(name="small", version="1")

    class options(BaseModel):
        most: int = 5

    def create_check(self, options):
        return in_range("n", maximum=options.most, name=f"at_most_{options.most}")


class Times(TransformationPlugin):
    metadata = PluginMetadata(name="times", version="1")

    class options(BaseModel):
        factor: int = 2

    def transform(self, tables, options):
        (rows,) = tables.values()
        return [{"n": n * options.factor} for n in rows["n"].to_pylist()]


class Cache(ServicePlugin):
    metadata = PluginMetadata(name="cache", version="1")


class Rows(ServicePlugin):
    metadata = PluginMetadata(name="rows", version="1")

    def definition(self, name): ...


class NoFetch(SourceConnectorPlugin):
    metadata = PluginMetadata(name="lame", version="1")


class NoMetadata(SourceConnectorPlugin):
    def fetch(self, options): ...


class OtherFetch(SourceConnectorPlugin):
    metadata = PluginMetadata(name="other", version="1")

    def fetch(self): ...


class NeedsMore(SourceConnectorPlugin):
    metadata = PluginMetadata(name="more", version="1")

    def __init__(self, url): ...
    def fetch(self, options): ...


class Stranger:
    def fetch(self, options): ...
"""
_ENTRIES = """
[cascade.plugins.sources]
numbers = number_pack:NumberSource
lame = number_pack:NoFetch
nameless = number_pack:NoMetadata
other = number_pack:OtherFetch
stranger = number_pack:Stranger
more = number_pack:NeedsMore
[cascade.plugins.quality]
small = number_pack:Positive
[cascade.plugins.transforms]
times = number_pack:Times
[cascade.plugins.services]
cache = number_pack:Cache
rows = number_pack:Rows
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path / "packages", monkeypatch, {"number-pack": (_ENTRIES, _PACKAGE)}, {"service.yaml": "name: cache\n"}
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, project_dir=tmp_path)


def test_each_kind_works_where_the_work_is(lake: Lake) -> None:
    @cascade_ingestion(source="numbers", options={"last": 3}, partitions="none", unique_key="n")
    def numbers() -> None:
        """Numbers."""

    @cascade_transform(table="silver.doubled", reads=["raw.numbers"], transformation="times", key="n")
    def doubled() -> dict[str, int]:
        return {"factor": 3}

    @cascade_quality(asset="raw/numbers", checks=["small"])
    def small() -> None: ...

    lake.succeed(numbers)
    assert lake.rows("raw.numbers") == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [spec.name for spec in numbers.check_specs] == ["contract"]  # the plugin's, for the asset gave none
    lake.succeed(doubled)
    assert lake.rows("silver.doubled", order="n") == [{"n": 3}, {"n": 6}, {"n": 9}]
    assert [spec.name for spec in small.check_specs] == ["at_most_5"]
    assert get_service("cache").definition() == {"name": "cache"}


def test_a_function_says_more_for_each_partition(lake: Lake) -> None:
    @cascade_ingestion(
        source="numbers", options={"last": 0}, partitions="daily", write="append", validation_schema=None
    )
    def numbers(partition_date: str) -> dict[str, int]:
        day = int(partition_date[-2:])
        return {"first": day, "last": day}

    lake.succeed(numbers, "2024-01-03", "2024-01-04")
    assert lake.rows("raw.numbers", order="n") == [{"n": 3}, {"n": 4}]


def _source(**options: Any) -> Any:
    return cascade_ingestion(table_name="t", partitions="none", **options)(lambda: None)


def _check(*checks: Any) -> Any:
    return cascade_quality(asset="raw/t", checks=list(checks))(test_what_is_wrong_is_said_at_definition)


def _transform(**options: Any) -> Any:
    return cascade_transform(table="silver.t", reads=["raw.t"], **options)(lambda: None)


@pytest.mark.parametrize(
    ("define", "said"),
    [
        (
            lambda: _source(source="number"),
            "No installed package brings `number` for cascade.plugins.sources; there is",
        ),
        (lambda: _source(source="numbers"), "`last`: Field required"),
        (lambda: _source(source="numbers", options={"last": 1, "lst": 2}), "`lst`: there is no such option"),
        (lambda: _source(source="numbers", options={"last": 1, "password": "geheim"}), "`password`: Input should be"),
        (lambda: _source(options={"last": 1}), "options are those of a plugin: name it as source"),
        (lambda: _source(source="lame"), "NoFetch has no `fetch`, which SourceConnectorPlugin asks for"),
        (lambda: _source(source="nameless"), "NoMetadata has no `metadata`"),
        (lambda: _source(source="other"), "it is called as `fetch(self, options)`, and takes (self)"),
        (lambda: _source(source="stranger"), "is no class derived from cascade.plugins.families.SourceConnectorPlugin"),
        (lambda: _source(source="more"), "it is called as `NeedsMore()`, and takes (url)"),
        (lambda: _transform(options={"factor": 3}), "options are those of a plugin: name it as transformation"),
        (lambda: _check("smal"), "'smal' is not a check"),
        (lambda: _transform(transformation="times", options={"by": 3}), "`by`: there is no such option"),
        (lambda: _transform(transformation="time"), "No installed package brings `time`"),
    ],
    ids=range(14),
)
def test_what_is_wrong_is_said_at_definition(define: Any, said: str) -> None:
    with pytest.raises(CascadeError) as caught:
        define()
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_function_that_returns_rows_beside_a_plugin_is_refused(lake: Lake) -> None:
    @cascade_ingestion(source="numbers", options={"last": 3}, partitions="none", max_retries=0)
    def numbers() -> pa.Table:
        return pa.table({"n": [1]})

    assert "returned a value of type Table, but its rows come from a plugin" in lake.fail(numbers)


def test_plugins_are_listed_with_what_they_say_of_themselves() -> None:
    found = {record.name: record for record in list_plugins()}
    assert {name for name, record in found.items() if not record.cause} >= {"numbers", "small", "times", "cache"}
    said = get_source_connector("numbers").metadata
    assert (said.version, said.description, said.tags) == ("2.1", "Counts.", ("example",))
    with pytest.raises(ConfigurationError, match=r"called as `definition\(self\)`, and takes \(self, name\)"):
        get_service("rows")
    with pytest.raises(ConfigurationError, match="NoFetch has no `fetch`"):
        get_source_connector("lame")
    with pytest.raises(DefinitionError, match="`x`: there is no such option"):
        get_source_connector("numbers").validated({"x": 1, "last": 2})
