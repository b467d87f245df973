"""What the service says, beside a project's compose.yaml and by the real compose client; `tests/integration` runs it.

What holds for the services of all packages is in `tests/extensions/services/test_fragments.py`.

Modules: `cascade_superset`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from cascade_services.known import find_services
from support.generated import BIN, REPOSITORY
from support.superset import DEFINITION, FILES, PACKAGE, SECRETS, composed

TEMPLATE = REPOSITORY / "template"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the template's compose.yaml and its `.env`, completed with what the service wants."""
    root = tmp_path_factory.mktemp("project")
    whole = (TEMPLATE / "compose.yaml.jinja").read_text("utf-8")
    (root / "compose.yaml").write_text(re.sub(r"\{%- if.*?\{%- endif %\}", "", whole, flags=re.DOTALL))
    return root


def _services(project: Path, overrides: str = "{}") -> dict[str, Any]:
    env = {name: value or "" for name, value in dotenv_values(TEMPLATE / "services/env.example").items()}
    ports = {name: str(port["default"]) for name, port in DEFINITION["ports"].items()}
    return composed(project / "compose.yaml", project, env | ports | SECRETS, overrides)


def test_it_is_found_and_follows_the_format() -> None:
    found = find_services()["superset"]
    assert (found.problem, found.folder) == ("", PACKAGE)
    assert found.service
    assert not found.service.enabled


def test_the_client_merges_it_with_the_project(project: Path) -> None:
    """Each container sees its own secrets and no more, and the mart's reader is the only role that enters the marts."""
    services = _services(project)
    superset, database = services["superset"], services["superset-database"]
    assert {"superset", "superset-database"} == services.keys() - _core(services)
    assert superset["environment"].keys() & {"PGPASSWORD", "POSTGRES_PASSWORD"} == set()
    assert "//cascade_reader:" in superset["environment"]["SUPERSET_MARTS_URL"]
    assert database["environment"].keys() == {"PGPASSWORD", "POSTGRES_SUPERSET_PASSWORD"}
    assert database["image"] == services["postgres"]["image"]
    assert [f"{port['host_ip']}:{port['published']}" for port in superset["ports"]] == ["127.0.0.1:8088"]
    for service in (superset, database):
        assert list(service["networks"]) == ["state"]
        assert all(mount["read_only"] for mount in service["volumes"])
        assert all(Path(mount["source"]).is_relative_to(FILES) for mount in service["volumes"])


def test_dashboards_of_the_project_take_the_place_of_the_example(project: Path) -> None:
    superset = _services(project, 'services: {superset: {volumes: ["./dashboards:/app/dashboards:ro"]}}')["superset"]
    sources = {mount["target"]: mount["source"] for mount in superset["volumes"]}
    assert sources == {"/app/cascade": str(FILES), "/app/dashboards": str(project / "dashboards")}


def test_it_works_with_postgresql_elsewhere(tmp_path: Path) -> None:
    """By the lines of the docs: the client refuses to wait for a container that is not there."""
    page = (REPOSITORY / "docs/how-to/dashboards-with-superset.md").read_text("utf-8")
    (lines,) = re.findall(r"```yaml\n(services:\n[^`]*!override[^`]*)```", page)
    (tmp_path / "compose.yaml").write_text("networks: {state: {}, internet: {}}\n")
    names = ("POSTGRES_INSIDE", "POSTGRES_PASSWORD", "POSTGRES_READER_PASSWORD", "SUPERSET_PORT")
    variables = dict.fromkeys(names, "8088") | SECRETS
    services = composed(tmp_path / "compose.yaml", tmp_path, variables, lines.replace("enabled: true, ", ""))
    assert {name: set(service["networks"]) for name, service in services.items()} == {
        "superset": {"state", "internet"},
        "superset-database": {"state", "internet"},
    }


def test_hadolint_finds_nothing() -> None:
    # The name of the user is the image's own.
    hadolint = [BIN / "hadolint", "--ignore", "DL3066", FILES / "Dockerfile"]
    assert subprocess.run(hadolint, capture_output=True, text=True).stdout == ""


def test_the_files_of_the_example_name_each_other_and_columns_that_the_mart_has() -> None:
    """Superset leaves out what it does not find, and says nothing."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in (FILES / "example").glob("*/**/*.yaml"):
        kind = file.relative_to(FILES / "example").parts[0]
        found.setdefault(kind, []).append(yaml.safe_load(file.read_text("utf-8")))
    (database,), (dataset,), (dashboard,) = found["databases"], found["datasets"], found["dashboards"]
    assert dataset["database_uuid"] == database["uuid"]
    assert {chart["dataset_uuid"] for chart in found["charts"]} == {dataset["uuid"]}
    placed = {
        part["meta"]["uuid"]: part["meta"]["sliceName"] for part in dashboard["position"].values() if _chart(part)
    }
    assert placed == {chart["uuid"]: chart["slice_name"] for chart in found["charts"]}
    models = yaml.safe_load((TEMPLATE / "transforms/dbt/models/marts/marts.yml").read_text("utf-8"))["models"]
    (mart,) = [model for model in models if model["name"] == dataset["table_name"]]
    assert [column["column_name"] for column in dataset["columns"]] == [column["name"] for column in mart["columns"]]
    metrics = {metric["metric_name"] for metric in dataset["metrics"]}
    used = {
        name for chart in found["charts"] for name in chart["params"].get("metrics", [chart["params"].get("metric")])
    }
    assert used == metrics


def _core(services: dict[str, Any]) -> set[str]:
    return {name for name in services if not name.startswith("superset")}


def _chart(part: Any) -> bool:
    return isinstance(part, dict) and part["type"] == "CHART"
