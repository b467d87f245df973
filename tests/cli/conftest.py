"""One generated project, without the example's models: commands are quicker without dbt, and say the same."""

from __future__ import annotations

import shutil

import pytest

from support.generated import Project, generate, odd_folder, stranger

#: What the tests need beside the example: a table of a few rows, and two whose rows are wrong.
_WORKFLOW = '''\
"""Rows that are right, and rows that are not."""

import pandera.polars as pa
from cascade.ingestion import cascade_ingestion, none


class Guests(pa.DataFrameModel):
    """Who is expected."""

    id: int
    age: int = pa.Field(ge=0, le=150)


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def guests():
    """Two guests."""
    return [{"id": 1, "age": 36}, {"id": 2, "age": 85}]


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def newcomers():
    """One more, in a table of its own."""
    return [{"id": 3, "age": 20}]


@cascade_ingestion(unique_key="id", partitions=none(), validation_schema=Guests, max_retries=0)
def grim_guests():
    """One of them is older than anybody."""
    return [{"id": 1, "age": 36}, {"id": 7, "age": 1985}]


@cascade_ingestion(unique_key="badge", partitions=none(), max_retries=0)
def nameless():
    """The second row has no key."""
    return [{"badge": 1, "age": 36}, {"badge": None, "age": 85}]
'''


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project before anything ran in it."""
    environment = stranger(tmp_path_factory.mktemp("home"))
    root = generate(odd_folder(tmp_path_factory.mktemp("generated")) / "my-project", environment)
    shutil.rmtree(root / "transforms")
    (root / "workflows/quality/weather.py").unlink()
    (root / "workflows/ingestion/guests.py").write_text(_WORKFLOW)
    return Project(root, environment)


@pytest.fixture(scope="session")
def project(fresh: Project) -> Project:
    """The project after a run that loaded every day of the example, and the guests."""
    done = fresh.cascade("run", "--select", "weather_observations", "--select", "raw/guests")
    assert done.returncode == 0, done.stderr
    return fresh
