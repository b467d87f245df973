"""Services of our packages, each by itself and all together: merged by the real client, and looked at by linters.

Modules: `cascade_services.chosen`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cascade.config import load_settings
from cascade_services import running
from cascade_services.chosen import choose, compose_files, env_lines
from cascade_services.containers import ask_compose
from cascade_services.env import complete_env
from cascade_services.known import find_services
from support.generated import BIN, REPOSITORY

OURS = [name for name, known in find_services().items() if known.origin.startswith("cascade-")]
# What compose-lint finds and we leave as it is.
LEFT = {
    # The project's own image, which is built on this machine: it has no version.
    ("CL-0004", "monitoring-exporter"),
}


@pytest.fixture(params=[*OURS, "all"])
def names(request: pytest.FixtureRequest, project: Path) -> list[str]:
    """Packages that are enabled in the project, whose `.env` is complete."""
    names = OURS if request.param == "all" else [request.param]
    (project / "cascade.yaml").write_text(f"services: {json.dumps({name: {'enabled': True} for name in names})}\n")
    complete_env(project, env_lines(choose(project)))
    return names


def test_they_are_a_project_that_linters_find_nothing_in(names: list[str], project: Path, tmp_path: Path) -> None:
    """Of a whole file, so that a fragment is seen with what it is merged with."""
    shutil.copy(REPOSITORY / "template/.compose-lint.yml", tmp_path)
    (tmp_path / "all.yaml").write_text(running.render(load_settings(project)))
    schema = (BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "all.yaml")
    subprocess.run(schema, cwd=tmp_path, check=True, capture_output=True)
    lint = (BIN / "compose-lint", "check", "--format", "json", "all.yaml")
    done = subprocess.run(lint, cwd=tmp_path, check=False, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert not report["errors"]
    found = {(one["rule_id"], one["service"]) for one in report["findings"] if not one["suppressed"]}
    assert found - LEFT == set()


def test_they_are_contained_and_say_what_they_use(names: list[str], project: Path) -> None:
    chosen = choose(project)
    files = compose_files(chosen, load_settings(project))
    merged = json.loads(ask_compose(project, "config", "--format", "json", files=files))["services"]
    published = [port for service in merged.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    numbers = [port["published"] for port in published]
    assert len(numbers) == len(set(numbers))
    for name in names:
        placed = chosen.services[name]
        assert placed.service is not None
        declared = {str(port.default) for port in placed.service.ports.values()}
        there = {port["published"] for container in placed.containers for port in merged[container].get("ports", [])}
        assert there == declared, name
        core = {container: one.name for one in chosen.enabled for container in one.containers}
        needed = {core[other] for container in placed.containers for other in merged[container].get("depends_on", {})}
        assert needed - {name} <= set(placed.service.needs), name
        known = {*placed.service.ports, *placed.service.settings}
        for need in placed.service.needs:
            other = chosen.services[need].service
            assert other is not None
            known |= {*other.ports, *other.settings}
        text = json.dumps(placed.service.compose)
        without_default = set(re.findall(r"(?<!\$)\$\{(\w+)(?:\}|:?\?)", text)) - {"COMPOSE_PROJECT_NAME"}
        assert without_default <= known, name
        for container in placed.containers:
            _contained(merged[container], container)
        assert any("healthcheck" in merged[container] for container in placed.containers), name


def _contained(service: dict[str, Any], name: str) -> None:
    assert service["cap_drop"] == ["ALL"], name
    assert service["security_opt"] == ["no-new-privileges:true"], name
    assert service["read_only"] is True, name
    assert service["init"] is True, name
    assert int(service["mem_limit"]) > 0, name
    assert 0 < service["cpus"] <= 2, name
    assert service["pids_limit"] > 0, name
    assert service["logging"]["options"] == {"max-file": "3", "max-size": "10m"}, name
    assert "privileged" not in service, name
