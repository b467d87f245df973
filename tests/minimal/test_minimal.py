"""The runtime with its command line alone: a project runs, promotes, publishes, and says what is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import duckdb
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import DayTransform, IdentityTransform

from cascade.config import Settings
from cascade.errors import DefinitionError
from cascade.ingestion import cascade_ingestion, none
from support.generated import BIN, generate, run, stranger

GUESTS = '''\
"""Two guests, loaded right into the marts: models in SQL are another package's."""

from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality, in_range, unique


@cascade_ingestion(namespace="marts", unique_key="id", partitions=none(), max_retries=0)
def guests():
    """Who is expected."""
    return [{"id": 1, "age": 36}, {"id": 2, "age": 85}]


@cascade_quality(asset="marts/guests", checks=[unique("id"), in_range("age", 0, LIMIT)])
def known_guests() -> None:
    """Each guest is there once, and alive."""
'''

#: What this session installs of Cascade.
INSTALLED = {"cascade-checks", "cascade-cli", "cascade-embedded", "cascade-operations", "cascade-runtime"}

# Dagster executes the assets without what the command line is made of.
BY_DAGSTER = """
import sys
sys.modules["cascade_cli"] = sys.modules["cascade_operations"] = None
import dagster as dg
from cascade import load_settings
from cascade.framework.definitions import build_definitions
from cascade.framework.instance import open_instance
settings = load_settings()
keys = [dg.AssetKey(["marts", "guests"]), dg.AssetKey(["cascade", "promote"]), dg.AssetKey(["cascade", "publish"])]
job = build_definitions(settings).resolve_implicit_job_def_def_for_assets(keys)
with open_instance(settings) as instance:
    done = job.execute_in_process(instance=instance, asset_selection=keys, tags={"cascade/branch": "by-dagster"})
promoted = done.asset_materializations_for_node("cascade__promote")
sys.exit(0 if done.success and promoted else 1)
"""


class Project:
    """A generated project, without what the extensions bring."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = root, environment
        shutil.rmtree(root / "transforms")
        for folder in ("ingestion", "quality"):  # its rows come through dlt
            (root / f"workflows/{folder}/weather.py").unlink()
        manifest = root / "pyproject.toml"
        lines = manifest.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.lstrip().startswith('"cascade-') or _is_kept(line)]
        assert len(kept) < len(lines)
        manifest.write_text("".join(kept), "utf-8")
        self.allow(150)

    def allow(self, age: int) -> None:
        """Write the workflow with a highest age."""
        (self.root / "workflows/ingestion/guests.py").write_text(GUESTS.replace("LIMIT", str(age)), "utf-8")

    def cascade(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run(BIN / "cascade", *arguments, cwd=self.root, environment=self.environment, **variables)


def _is_kept(line: str) -> bool:
    return any(f'"{package} ' in line for package in INSTALLED)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    environment = stranger(tmp_path_factory.mktemp("home"))
    return Project(generate(tmp_path_factory.mktemp("generated") / "my-project", environment), environment)


def test_nothing_else_is_installed() -> None:
    """Else the other promises of this file say nothing."""
    installed = {found.metadata["Name"] for found in metadata.distributions()}
    assert {name for name in installed if name.startswith("cascade-")} == INSTALLED


def test_a_project_runs_is_checked_promoted_queried_and_published(project: Project) -> None:
    """What fails a check stays on its branch."""
    project.allow(80)
    refused = project.cascade("run", "--select", "marts/guests")
    assert refused.returncode == 1, refused.stderr
    assert project.cascade("query", "SELECT * FROM marts.guests").returncode == 1
    project.allow(150)
    done = project.cascade("run")
    assert done.returncode == 0, done.stderr
    rows = project.cascade("query", "--json", "SELECT id, age FROM marts.guests ORDER BY id")
    assert json.loads(rows.stdout) == [{"id": 1, "age": 36}, {"id": 2, "age": 85}]
    with duckdb.connect(str(Settings(project_dir=project.root).marts_path), read_only=True) as marts:
        assert marts.execute("SELECT id, age FROM marts.guests ORDER BY id").fetchall() == [(1, 36), (2, 85)]


def test_a_run_of_dagster_needs_the_runtime_alone(project: Project) -> None:
    done = run(BIN / "python", "-c", BY_DAGSTER, cwd=project.root, environment=project.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by-dagster" in project.cascade("branch", "log").stdout


def test_definitions_load_and_every_plugin_works(project: Project) -> None:
    for command in (["cascade", "plugins", "check"], ["dagster", "definitions", "validate"]):
        done = run(BIN / command[0], *command[1:], cwd=project.root, environment=project.environment)
        assert done.returncode == 0, done.stdout + done.stderr


def test_partitions_by_a_transform_are_refused_without_what_computes_them() -> None:
    fields = PartitionField(1, 1000, IdentityTransform(), "id"), PartitionField(2, 1001, DayTransform(), "d")
    with pytest.raises(DefinitionError, match=r"by day needs a package: uv add 'pyiceberg\[pyiceberg-core\]'"):
        cascade_ingestion(partitions=none(), partition_spec=PartitionSpec(*fields))(lambda: [])


@pytest.mark.parametrize("command", ["maintain", "services", "validate"])
def test_a_command_of_a_missing_package_is_answered_with_what_to_do(project: Project, command: str) -> None:
    done = project.cascade(command)
    assert done.returncode == 2
    assert f"No such command '{command}'" in done.stderr
    assert "`dependencies` in the project's pyproject.toml" in done.stderr


def test_a_setting_that_needs_a_missing_package_is_named(project: Project) -> None:
    done = project.cascade("config", "show", CASCADE_ENGINE="trino")
    assert done.returncode == 2
    assert "'trino' is not an installed engine; there is embedded" in done.stderr
