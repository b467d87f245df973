"""The service `monitoring`: the real compose client takes it, and its files fit together.

Modules: `cascade_monitoring`.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import cascade_monitoring
from cascade_monitoring import Monitoring
from cascade_monitoring.metrics import METRICS
from cascade_services.known import find_services
from support.generated import BIN, REPOSITORY

_PACKAGE = Path(cascade_monitoring.__file__).parent
_DASHBOARDS = sorted((_PACKAGE / "files/dashboards").iterdir())
# What the fragment finds in a project's compose.yaml.
_PROJECT = """\
name: shop
networks: {lake: {}, state: {}, internet: {}}
services:
  code: {image: of-the-project, networks: [lake], healthcheck: {test: [CMD, "true"]}}
  postgres: {image: of-postgres, networks: [state], healthcheck: {test: [CMD, "true"]}}
"""
_TARGET = {
    "type": "object",
    "required": ["refId", "expr", "datasource"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 2}},
}
_PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "options", "targets"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["stat", "table", "timeseries"]},
        "title": {"type": "string", "minLength": 3},
        "description": {"type": "string", "minLength": 3},
        "datasource": {"const": {"type": "prometheus", "uid": "prometheus"}},
        "gridPos": {
            "type": "object",
            "required": ["h", "w", "x", "y"],
            "properties": {
                "h": {"type": "integer", "minimum": 1},
                "w": {"type": "integer", "minimum": 1, "maximum": 24},
                "x": {"type": "integer", "minimum": 0, "maximum": 23},
                "y": {"type": "integer", "minimum": 0},
            },
        },
        "targets": {"type": "array", "minItems": 1, "items": _TARGET},
    },
}
# What of Grafana's form we use.
_DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "time", "refresh", "templating", "annotations"],
    "properties": {
        "uid": {"pattern": "^[a-z]{1,40}$"},
        "title": {"pattern": "^Cascade: "},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "minItems": 1, "items": _PANEL},
    },
}


@pytest.fixture(scope="module")
def service() -> Any:
    assert Monitoring.metadata.name == "monitoring"
    return yaml.safe_load((_PACKAGE / "service.yaml").read_text())


def _included(folder: Path, service: Any) -> dict[str, Any]:
    """Return what the compose client makes of the fragment in a project."""
    variables = {**service["ports"], **service["settings"]}
    values = {name: str(about.get("default", "secret")) for name, about in variables.items()}
    values |= dict.fromkeys(
        re.findall(r"\$\{((?:CASCADE|POSTGRES)_\w+):\?", yaml.safe_dump(service["compose"])), "secret"
    )
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    (folder / "compose.yaml").write_text(_PROJECT)
    (folder / "monitoring.yaml").write_text(yaml.safe_dump(service["compose"]))
    entry = {"path": "monitoring.yaml", "project_directory": str(_PACKAGE), "env_file": ".env"}
    (folder / "packages.yaml").write_text(yaml.safe_dump({"include": [entry]}))
    command = [BIN / "docker-compose", "-f", "compose.yaml", "-f", "packages.yaml", "config", "--format", "json"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_compose_client_puts_it_beside_the_project(service: Any, tmp_path: Path) -> None:
    services = _included(tmp_path, service)["services"]
    exporter = services["monitoring-exporter"]
    assert exporter["image"] == "shop-code"  # which compose names the image so that it builds for `code`
    assert exporter["networks"].keys() == {"lake", "state", "monitoring"}
    assert services["alertmanager"]["networks"].keys() == {"internet", "monitoring"}
    mounted = [v["source"] for one in services.values() for v in one.get("volumes", ()) if v["type"] == "bind"]
    assert all(Path(source).exists() and Path(source).is_relative_to(_PACKAGE) for source in mounted)
    for name, one in services.items():
        assert {port["host_ip"] for port in one.get("ports", ())} <= {"127.0.0.1"}
        assert name in ("code", "postgres") or (one["read_only"] and one["cap_drop"] == ["ALL"] and one["mem_limit"])


def test_the_exporter_has_the_settings_of_the_container_that_runs_the_project(service: Any) -> None:
    lines = {line.strip() for line in (REPOSITORY / "template/compose.yaml.jinja").read_text("utf-8").splitlines()}
    for name, value in service["compose"]["services"]["monitoring-exporter"]["environment"].items():
        if name in ("CASCADE_CATALOG_URL", "CASCADE_DAGSTER_URL"):  # by a role that writes nothing
            assert value.startswith("postgresql://cascade_monitor:${POSTGRES_MONITOR_PASSWORD:?")
        else:
            assert (f"{name}: {value}" if value else f"{name}:") in lines


def test_cascade_services_knows_it() -> None:
    known = find_services()["monitoring"]
    assert (known.problem, known.folder) == ("", _PACKAGE)


def test_compose_lint_finds_nothing_but_the_image_that_is_built_here(service: Any, tmp_path: Path) -> None:
    (tmp_path / "monitoring.yaml").write_text(yaml.safe_dump(service["compose"]))
    command = [BIN / "compose-lint", "check", "--format", "json", "monitoring.yaml"]
    report = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout)
    found = [(one["rule_id"], one["service"]) for one in report["findings"] if one["severity"] != "low"]
    assert (found, report["errors"]) == ([("CL-0004", "monitoring-exporter")], [])


@pytest.mark.parametrize("file", _DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_has_the_form_of_grafana(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    jsonschema.validate(dashboard, _DASHBOARD)
    assert dashboard["uid"] == file.stem
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_rules_and_dashboards_name_metrics_that_there_are() -> None:
    files = [*_DASHBOARDS, _PACKAGE / "files/prometheus/rules.yml"]
    named = {name for file in files for name in re.findall(r"\bcascade_\w+", file.read_text())}
    assert named <= {metric.exported for metric in METRICS}
