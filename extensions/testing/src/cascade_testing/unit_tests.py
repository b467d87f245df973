"""The unit tests of dbt models as tests of pytest: one process of dbt runs all of them, over empty tables."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from cascade.config import load_settings
from cascade.errors import ProjectNotFoundError
from cascade.lakehouse import Lakehouse
from cascade_dbt.project import DBT, dbt_environment, render_profile
from cascade_dbt.targets import target_of
from cascade_testing.lakehouse import fresh_lakehouse

__all__ = ["UnitTestFile", "is_of_dbt"]

_RESULTS = pytest.StashKey[dict[str, tuple[str, str]]]()


class UnitTestFile(pytest.File):
    """A file of dbt that has unit tests."""

    def collect(self) -> Iterator[UnitTestItem]:
        """Return its unit tests; whether dbt can read them, dbt says when they run."""
        try:
            written = yaml.safe_load(self.path.read_text("utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise self.CollectError(f"{self.path} is no YAML: {error}") from None
        for test in (written or {}).get("unit_tests") or ():
            yield UnitTestItem.from_parent(self, name=str(test.get("name")))


class UnitTestItem(pytest.Item):
    """One unit test of dbt."""

    def runtest(self) -> None:
        """Look at the result; the first one that is asked for runs all that were collected."""
        results = self.session.stash.setdefault(_RESULTS, {})
        if not results:
            names = {item.name for item in self.session.items if isinstance(item, UnitTestItem)}
            results.update(_run(names))
        status, message = results.get(self.name, ("error", "dbt did not run it: is it disabled?"))
        if status != "pass":
            pytest.fail(message, pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Say where it is."""
        return self.path, None, self.name


def is_of_dbt(file: Path) -> bool:
    """Say whether a file is of the dbt project of the Cascade project that it is in."""
    try:
        return load_settings(file.parent).dbt_path.resolve() in file.resolve().parents
    except ProjectNotFoundError:
        return False


def _run(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Run unit tests, and return for each of them its status and what dbt says."""
    lakehouse = fresh_lakehouse()
    _ = lakehouse.definitions  # dbt parses
    target = lakehouse.settings.data_path / "dbt" / "target"
    parsed = json.loads((target / "manifest.json").read_text("utf-8"))
    lakehouse.make_empty(_needed(parsed, [one for one in parsed["unit_tests"].values() if one["name"] in names]))
    with tempfile.TemporaryDirectory() as folder:
        said = _ask_dbt(lakehouse.lakehouse, sorted(names), Path(folder))
        results = Path(folder, "run_results.json")
        found = json.loads(results.read_text("utf-8"))["results"] if results.is_file() else []
    if not found:
        return dict.fromkeys(names, ("error", f"dbt could not run it:\n{said}"))
    return {one["unique_id"].rpartition(".")[2]: (one["status"], one["message"] or said) for one in found}


def _ask_dbt(lakehouse: Lakehouse, names: Sequence[str], target: Path) -> str:
    """Let dbt run unit tests by name, and return what it prints; `run_results.json` in its target has the results."""
    settings, branch = lakehouse.settings, lakehouse.ensure_branch()
    places = {
        "profiles-dir": render_profile(settings),
        "project-dir": settings.dbt_path,
        "target-path": target,
        "log-path": target,
    }
    command = [*DBT, "--quiet", "--no-use-colors", "test", *(f"--{name}={value}" for name, value in places.items())]
    command += ["--select", *(f"unit_test:{name}" for name in names)]
    with dbt_environment(settings, branch, target_of(settings).prepare(lakehouse.catalog, branch, ["unit_tests"])):
        done = subprocess.run(command, cwd=settings.dbt_path, check=False, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}".strip()


def _needed(parsed: Mapping[str, Any], tests: Collection[Mapping[str, Any]]) -> set[dg.AssetKey]:
    """Return the tables that dbt looks at for the columns of what a test gives: those of its model and upstream."""
    waiting, seen = [node for test in tests for node in test["depends_on"]["nodes"]], set()
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += parsed["parent_map"].get(name, ())
    nodes = [node for name, node in {**parsed["nodes"], **parsed["sources"]}.items() if name in seen]
    return {dg.AssetKey([one["schema"], one.get("alias") or one.get("identifier") or one["name"]]) for one in nodes}
