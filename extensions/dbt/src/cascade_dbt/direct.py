"""Any command of dbt, with the profile, the macros and a branch of the project. Imports neither Dagster nor dbt."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from cascade.catalog import MAIN
from cascade.config import Settings
from cascade.engine import delete_branch
from cascade.errors import BranchNotFoundError, UsageError
from cascade.lakehouse import Lakehouse
from cascade.names import run_branch
from cascade_dbt.limits import require_buildable
from cascade_dbt.project import DBT, dbt_environment, parse_project, render_profile
from cascade_dbt.targets import namespaces_of, target_of

__all__ = ["Ran", "run_dbt"]

_WRITING = {"build", "retry", "run", "run-operation", "seed", "snapshot", "test"}
# They read files only, or the network: a machine without the catalog can do them.
_OFFLINE = {"clean", "deps", "init", "list", "ls", "parse", "serve"}


class Ran(NamedTuple):
    """What became of a command of dbt.

    Attributes:
        code: What dbt exited with.
        branch: The branch that it may have written; `None` for a command that only reads.
    """

    code: int
    branch: str | None


def run_dbt(settings: Settings, arguments: Sequence[str], *, branch: str | None = None) -> Ran:
    """Run dbt in its own process, which has this one's input and output.

    A command that writes, such as `build`, works on a branch that stays. Another one reads that branch if it is there,
    else a copy of `main` that ends with the command, so that even SQL that writes cannot reach `main`.

    Args:
        settings: The project's settings.
        arguments: Of dbt: `["build", "-s", "model"]`; paths are relative to the dbt project.
        branch: The branch; the setting `branch` by default. `main` can only be read.

    Raises:
        UsageError: There is no dbt project, a command that writes was given `main`, or `clone` was asked for.
        BranchNotFoundError: A command that reads was given a branch that does not exist.
        TransformError: The project asks what cannot be done; see `cascade_dbt.limits`.
    """
    if not (settings.dbt_path / "dbt_project.yml").is_file():
        raise UsageError(
            "There is no dbt project.", where=str(settings.dbt_path), fix="write its dbt_project.yml, or set dbt_dir."
        )
    command = next((word for word in arguments if word in _WRITING | _OFFLINE | {"clone"}), "")
    if command == "clone":
        raise UsageError(
            "`dbt clone` would make views, which the lakehouse does not keep; a branch has all tables of `main`.",
            where="dbt clone",
            fix="create a branch: cascade branch create NAME",
        )
    if command in _OFFLINE:
        return Ran(_call(settings, arguments, branch or settings.branch, {}), None)
    lakehouse = Lakehouse(settings, branch or settings.branch)
    if command in _WRITING:
        if lakehouse.branch == MAIN:
            raise UsageError(
                f"`dbt {command}` never writes `main`.",
                where="--branch main",
                fix="name another branch, and promote it by `cascade branch promote`.",
            )
        manifest = parse_project(settings)
        assert manifest is not None  # the project's file is there
        parsed = json.loads(manifest.read_text("utf-8"))
        require_buildable(settings, parsed)
        namespaces = namespaces_of(parsed, failures="--store-failures" in arguments)
        name = lakehouse.ensure_branch()
        prepared = target_of(settings).prepare(lakehouse.catalog, name, namespaces)
        return Ran(_call(settings, arguments, name, prepared), name)
    return Ran(_read(lakehouse, arguments, named=branch is not None), None)


def _read(lakehouse: Lakehouse, arguments: Sequence[str], *, named: bool) -> int:
    settings, catalog, branch = lakehouse.settings, lakehouse.catalog, lakehouse.branch
    there = branch != MAIN and catalog.exists(branch)
    if named and branch != MAIN and not there:
        raise BranchNotFoundError(f"There is no branch `{branch}`.", fix="see `cascade branch list`, or build on it.")
    name = branch if there else run_branch(str(uuid.uuid4()))
    catalog.create_if_missing(name)
    try:
        return _call(settings, arguments, name, target_of(settings).prepare(catalog, name, ()))
    finally:
        if not there:
            delete_branch(catalog, name)


def _call(settings: Settings, arguments: Sequence[str], branch: str, prepared: dict[str, str]) -> int:
    places = {"DBT_PROFILES_DIR": str(render_profile(settings)), "DBT_PROJECT_DIR": str(settings.dbt_path)}
    with dbt_environment(settings, branch, {**places, **prepared}):
        process = subprocess.Popen([*DBT, *arguments], cwd=settings.dbt_path)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # it has heard it too, and cancels what it does on the engine
        raise
