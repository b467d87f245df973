"""What users' files name may not move without a codemod: each of these paths is in a file that they own."""

from importlib import import_module

import pytest

from support.generated import REPOSITORY

#: Path to the file of a new project that names it; `None`: what users are told to write themselves.
PATHS = {
    "cascade.framework.definitions:defs": "definitions.py",
    "cascade.framework.storage:ProjectStorage": "dagster.yaml",
    "cascade.ingestion:cascade_ingestion": "workflows/ingestion/weather.py",
    "cascade.ingestion:daily": "workflows/ingestion/weather.py",
    "cascade.quality:cascade_quality": "workflows/quality/weather.py",
    "cascade.testing:TemporaryLakehouse": "tests/test_weather.py",
    "cascade:Lakehouse": None,
    "cascade:load_settings": None,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_in_users_files_stays(path: str) -> None:
    module, _, name = path.partition(":")
    if name != "defs":  # building it needs a project
        assert getattr(import_module(module), name)
    if file := PATHS[path]:
        text = (REPOSITORY / "template" / file).read_text("utf-8")
        assert module in text
        assert name in text


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("transforms/dbt/dbt_project.yml", "CASCADE_DBT_MACROS"),
        ("transforms/dbt/dbt_project.yml", "profile: cascade"),
        ("pyproject.toml.jinja", "[tool.cascade]"),
    ],
)
def test_a_name_in_users_files_stays(file: str, name: str) -> None:
    assert name in (REPOSITORY / "template" / file).read_text("utf-8")
