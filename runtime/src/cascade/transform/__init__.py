"""dbt models become assets: one dbt project, one dbt process per run, every model an Iceberg table."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, dbt_assets
from filelock import FileLock

from cascade.config import PROJECT_DIR_VARIABLE, Settings
from cascade.errors import TransformError
from cascade.lakehouse import BRANCH_METADATA, SNAPSHOT_METADATA, Lakehouse

__all__ = ["RUN_BRANCH_VARIABLE", "build_dbt_assets", "dbt_environment", "prepare_manifest"]

#: How the dbt process learns the branch: as a variable of its own, since `--vars` would force a full parse.
RUN_BRANCH_VARIABLE = "CASCADE_RUN_BRANCH"
MACROS_VARIABLE = "CASCADE_DBT_MACROS"

_MACROS = Path(__file__).parent / "macros"
_PROFILE = """\
# Rendered by the Cascade runtime; changes here are overwritten.
cascade:
  target: embedded
  outputs:
    embedded:
      type: duckdb
      path: ":memory:"
      attach: [{ path: ":memory:", alias: iceberg }]
      database: iceberg
      schema: main
      threads: 2
      settings: { TimeZone: UTC }
      plugins: [{ module: cascade.transform.duckdb_plugin, alias: cascade }]
"""


class _Translator(DagsterDbtTranslator):
    """Asset keys are `namespace/table`, what the table is called in the lakehouse."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        props = dbt_resource_props
        if props["resource_type"] == "source":
            return dg.AssetKey([props["schema"], props.get("identifier") or props["name"]])
        if props["resource_type"] in ("model", "seed", "snapshot"):
            return dg.AssetKey([props["schema"], props.get("alias") or props["name"]])
        return super().get_asset_key(props)

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        configured = super().get_group_name(dbt_resource_props)
        return dbt_resource_props["schema"] if configured in (None, "default") else configured


class _Dbt(DbtCliResource):
    def _initialize_dbt_core_adapter(self, args: Any) -> Any:
        # It would only serve dagster-dbt's own row counts, which an in-memory database does not
        # answer, and importing all of dbt into this process costs more than a second.
        return None


def build_dbt_assets(settings: Settings) -> dg.AssetsDefinition | None:
    """Make assets of the project's dbt models, seeds and tests.

    Args:
        settings: The project's settings.

    Returns:
        One definition that holds all of them; `None` when there is no dbt project, or nothing in it.

    Raises:
        TransformError: dbt cannot parse the project.
    """
    if not (settings.dbt_path / "dbt_project.yml").is_file():
        return None
    manifest = prepare_manifest(settings)
    nodes = json.loads(manifest.read_text("utf-8"))["nodes"].values()
    if not any(node["resource_type"] in ("model", "seed") for node in nodes):
        return None
    dbt = _Dbt(
        project_dir=str(settings.dbt_path),
        profiles_dir=str(_render_profile(settings)),
        dbt_executable=_dbt_executable(),
    )

    @dbt_assets(
        manifest=manifest,
        name="dbt",
        dagster_dbt_translator=_Translator(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True)),
    )
    def run_dbt(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> Iterator[Any]:
        branch = lakehouse.ensure_branch()
        target = settings.data_path / "dbt" / "runs" / context.run_id
        try:
            with dbt_environment(settings, branch), _log(context, settings):
                invocation = dbt.cli(["build"], context=context, target_path=target)
                for event in invocation.stream():
                    yield _with_evidence(context, event, lakehouse)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    return run_dbt


@contextlib.contextmanager
def dbt_environment(settings: Settings, branch: str) -> Iterator[None]:
    """Set what a dbt process needs to know of the run; restored afterwards.

    `DbtCliResource.cli` takes no environment of its own and passes on this process's.
    """
    values = {
        RUN_BRANCH_VARIABLE: branch,
        MACROS_VARIABLE: str(_MACROS),
        PROJECT_DIR_VARIABLE: str(settings.project_dir),
        "DO_NOT_TRACK": "1",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def prepare_manifest(settings: Settings) -> Path:
    """Return dbt's manifest, parsed anew when a file of the dbt project has changed since.

    Args:
        settings: The project's settings.

    Raises:
        TransformError: dbt cannot parse the project; the message is dbt's own.
    """
    target = settings.data_path / "dbt" / "target"
    target.mkdir(parents=True, exist_ok=True)
    manifest, stamp = target / "manifest.json", target / "fingerprint"
    profiles = _render_profile(settings)
    # The code servers, the daemon and a command may all look at once; one parses.
    with FileLock(str(target / "parse.lock")):
        fingerprint = _fingerprint(settings.dbt_path)
        if manifest.is_file() and stamp.is_file() and stamp.read_text("utf-8") == fingerprint:
            return manifest
        with dbt_environment(settings, settings.branch):
            done = subprocess.run(
                [_dbt_executable(), "--quiet", "--no-use-colors", "parse", "--profiles-dir", str(profiles)]
                + ["--project-dir", str(settings.dbt_path), "--target-path", str(target), "--log-path", str(target)],
                capture_output=True,
                text=True,
                cwd=settings.dbt_path,
                check=False,
            )
        if done.returncode:
            raise TransformError(
                "dbt cannot parse the project: " + (done.stdout + done.stderr).strip(),
                where=str(settings.dbt_path),
                fix="correct the file that dbt names.",
            )
        stamp.write_text(fingerprint, "utf-8")
    return manifest


def _log(context: dg.AssetExecutionContext, settings: Settings) -> contextlib.AbstractContextManager[object]:
    """Keep dbt's log out of a command's output; the UI shows it, where a run has a page of its own."""
    if context.run.remote_job_origin is not None:
        return contextlib.nullcontext()
    return contextlib.redirect_stdout((settings.data_path / "dbt" / "dbt.log").open("a", encoding="utf-8"))


def _with_evidence(context: dg.AssetExecutionContext, event: Any, lakehouse: Lakehouse) -> Any:
    """Add to an event which snapshot of its table it speaks of: the promotion gate asks for it."""
    if isinstance(event, dg.Output):
        key = context.asset_key_for_output(event.output_name)
        return event.with_metadata({**event.metadata, **_snapshot(lakehouse, key)})
    if isinstance(event, dg.AssetCheckResult) and event.asset_key is not None:
        return event.with_metadata({**event.metadata, **_snapshot(lakehouse, event.asset_key)})
    return event


def _snapshot(lakehouse: Lakehouse, key: dg.AssetKey) -> dict[str, Any]:
    table = ".".join(key.path)
    found: dict[str, Any] = {SNAPSHOT_METADATA: str(lakehouse.head(table)), BRANCH_METADATA: lakehouse.branch}
    rows = lakehouse.row_count(table)
    return found if rows is None else {**found, "dagster/row_count": rows}


def _fingerprint(dbt_path: Path) -> str:
    """Name the state of everything that dbt parses: paths, sizes and times, not contents, to be quick."""
    seen = hashlib.sha256(json.dumps([sys.version, str(dbt_path), str(_MACROS)]).encode())
    for folder in (dbt_path, _MACROS):
        for path in sorted(folder.rglob("*")):
            skip = {"target", "logs", "__pycache__"} & set(path.relative_to(folder).parts)
            if path.is_file() and not skip:
                stat = path.stat()
                seen.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _render_profile(settings: Settings) -> Path:
    """Write `profiles.yml` for dbt and return its folder."""
    folder = settings.data_path / "dbt"
    folder.mkdir(parents=True, exist_ok=True)
    profile = folder / "profiles.yml"
    if not profile.is_file() or profile.read_text("utf-8") != _PROFILE:
        profile.write_text(_PROFILE, "utf-8")
    return folder


def _dbt_executable() -> str:
    """Return dbt of this environment: its folder need not be on the PATH, and the symlink must not be followed."""
    beside = Path(sys.executable).parent / "dbt"
    return str(beside) if beside.is_file() else "dbt"
