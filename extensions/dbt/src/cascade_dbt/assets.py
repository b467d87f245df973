"""dbt models become assets: one dbt project, one dbt process per run, every model an Iceberg table."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from packaging import version
from pyiceberg.exceptions import CommitFailedException

from cascade._dagster import disable_dagster_warnings
from cascade.config import Settings
from cascade.errors import TransformError
from cascade.lakehouse import Lakehouse
from cascade.names import COLUMN_SCHEMA, EMPTY_TAG, FULL_REFRESH_TAG, MARTS, PROMOTE_ASSET, PUBLISH_ASSET, TABLE_NAME
from cascade_dbt.dagster_dbt import (
    DBT_VERSION,
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliResource,
    dbt_assets,
    without_dbt,
)
from cascade_dbt.events import Events
from cascade_dbt.failures import said_by_dbt
from cascade_dbt.limits import require_buildable
from cascade_dbt.project import DBT, dbt_environment, fingerprint, render_profile
from cascade_dbt.targets import TABLES, namespaces_of, target_of
from cascade_dbt.unchanged import read_recipes, record

__all__ = ["build_dbt_assets", "build_exposures"]


class _Translator(DagsterDbtTranslator):
    """Asset keys are `namespace/table`, what the table is called in the lakehouse."""

    def __init__(self, project: Settings) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))
        self._project = project

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        # Of a model Dagster would say `dbt, duckdb` alone, and show two kinds of storage in one lineage.
        spec = super().get_asset_spec(manifest, unique_id, project)
        stored = {"dagster/storage_kind": "iceberg"}
        return spec.replace_attributes(kinds={*spec.kinds, "iceberg"}, metadata={**spec.metadata, **stored})

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        # dagster-dbt adds the SQL, of which lists show the first line: it is in the metadata.
        props = dbt_resource_props
        return props.get("description") or f"{props['resource_type'].capitalize()} {props['name']} of dbt."

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:
        said = dbt_resource_props.get("meta", {}).get("owner") or super().get_owners(dbt_resource_props)
        names = [said] if isinstance(said, str) else said or self._project.owners
        return [name if "@" in name or name.startswith("team:") else f"team:{name}" for name in map(str, names)]

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        found = {**super().get_metadata(dbt_resource_props)}
        found.pop(COLUMN_SCHEMA, None)  # its descriptions would hide those of the events, which say more
        if dbt_resource_props["resource_type"] in (*TABLES, "source"):  # dbt's database is not part of the name here
            found[TABLE_NAME] = ".".join(self.get_asset_key(dbt_resource_props).path)
        if dbt_resource_props.get("language") == "sql":
            found["sql"] = dg.MetadataValue.md(f"```sql\n{dbt_resource_props['raw_code']}\n```")
        file = self._project.dbt_path / dbt_resource_props["original_file_path"]
        if file.is_file():  # else it is of a package
            code = dg.CodeReferencesMetadataValue(code_references=[dg.LocalFileCodeReference(file_path=str(file))])
            found["dagster/code_references"] = code
        return found

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        props = dbt_resource_props
        if props["resource_type"] == "source":
            return dg.AssetKey([props["schema"], props.get("identifier") or props["name"]])
        if props["resource_type"] in TABLES:
            return dg.AssetKey([props["schema"], props.get("alias") or props["name"]])
        return super().get_asset_key(props)

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        configured = super().get_group_name(dbt_resource_props)
        return dbt_resource_props["schema"] if configured in (None, "default") else configured


class _Dbt(DbtCliResource):
    @property
    def _cli_version(self) -> version.Version:
        # dagster-dbt starts `dbt --version` to learn it, which costs seconds in every run.
        return DBT_VERSION

    def _initialize_dbt_core_adapter(self, args: Any) -> Any:
        # It would only serve dagster-dbt's own row counts, which an in-memory database does not
        # answer, and importing all of dbt into this process costs more than a second.
        return None


def build_dbt_assets(settings: Settings, manifest: Path) -> dg.AssetsDefinition | None:
    """Make assets of the project's dbt models, seeds, snapshots and tests.

    Args:
        settings: The project's settings.
        manifest: What dbt's parser wrote; see `start_parsing`.

    Returns:
        One definition that holds all of them; `None` when there is nothing to build.

    Raises:
        TransformError: The project asks what cannot be done; see `cascade_dbt.limits`.
    """
    parsed = json.loads(manifest.read_text("utf-8"))
    require_buildable(settings, parsed)
    namespaces = namespaces_of(parsed)
    if not any(node["resource_type"] in TABLES for node in parsed["nodes"].values()):
        return None
    stamp = manifest.parent / "fingerprint"
    described = stamp.read_text("utf-8") if stamp.is_file() else None
    dbt = _Dbt(
        project_dir=str(settings.dbt_path),
        profiles_dir=str(render_profile(settings)),
        dbt_executable=DBT[0],
        global_config_flags=list(DBT[1:]),
    )

    def run_dbt(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> Iterator[Any]:
        branch = lakehouse.ensure_branch()
        target = settings.data_path / "dbt" / "runs" / context.run.run_id
        target.mkdir(parents=True, exist_ok=True)
        # What the parser remembers saves this process from parsing again.
        with contextlib.suppress(OSError):
            shutil.copy(manifest.parent / "partial_parse.msgpack", target)
        recipes, before, made = read_recipes(settings, parsed), lakehouse.catalog.pointers(branch), {}
        # What dbt would write of its manifest and its results nobody reads.
        # Without rows no test means anything.
        empty = ["--empty", *(f"--exclude-resource-type={kind}" for kind in ("test", "unit_test"))]
        command = ["build", *(empty if EMPTY_TAG in context.run.tags else [])]
        command += ["--full-refresh"] if FULL_REFRESH_TAG in context.run.tags else []
        with (
            dbt_environment(settings, branch, target_of(settings).prepare(lakehouse.catalog, branch, namespaces)),
            _log(context, settings),
        ):
            events = Events(context, lakehouse, parsed, recipes, target)
            invocation = dbt.cli(
                ["--no-write-json", *command], context=context, target_path=target, raise_on_error=False
            )
            for event in invocation.stream():
                if isinstance(event, dg.Output):
                    table = ".".join(context.asset_key_for_output(event.output_name).path)
                    made[table] = lakehouse.head(table)
                yield events.described(event)
            if fingerprint(settings) == described:  # else dbt may have read other files than the recipes tell of
                _record(context, lambda: record(recipes, lakehouse.catalog, branch, made, before))
            if (error := invocation.get_error()) is not None:
                # Some batches of a microbatch may be there, and the next run would take them for all.
                asked = {".".join(key.path) for key in context.selected_asset_keys}
                lakehouse.catalog.put_back(branch, {table: before.get(table) for table in asked - made.keys()})
                raise TransformError(
                    said_by_dbt(str(error), settings.dbt_path, settings.project_dir, target / "dbt.log"),
                    where=f"dbt's log is {target / 'dbt.log'}",
                    fix="correct the model or the test that dbt names.",
                )
        # After a failure it stays until the next maintenance: dbt's message names the log and the SQL in it.
        shutil.rmtree(target, ignore_errors=True)

    translator = _Translator(settings)
    with without_dbt(), disable_dagster_warnings():  # references to code are called beta
        options: dict[str, Any] = {"name": "dbt", "dagster_dbt_translator": translator, "op_tags": {EMPTY_TAG: "true"}}
        return dbt_assets(manifest=manifest, **options)(run_dbt)


def build_exposures(settings: Settings, manifest: Path) -> dg.AssetsDefinition | None:
    """Make assets of the project's exposures, such as dashboards: what reads the lakehouse, and nobody here computes.

    They stand behind what they read, and behind the step that lets others read it: the publication of marts, or the
    promotion to `main`.

    Args:
        settings: The project's settings.
        manifest: What dbt's parser wrote; see `start_parsing`.

    Returns:
        One definition that holds all of them; `None` without exposures.
    """
    parsed, translator = json.loads(manifest.read_text("utf-8")), _Translator(settings)
    known = {**parsed["nodes"], **parsed["sources"]}
    specs = []
    for exposure in parsed["exposures"].values():
        nodes = [known[key] for key in exposure["depends_on"]["nodes"] if key in known]
        tables = [node for node in nodes if node["config"].get("materialized") != "ephemeral"]
        published = any(node["schema"] == MARTS for node in tables)
        reads = [translator.get_asset_key(node) for node in tables]
        said = {"url": exposure.get("url"), "owner": exposure["owner"].get("email") or exposure["owner"].get("name")}
        specs.append(
            dg.AssetSpec(
                ["exposure", exposure["name"]],
                deps=[*reads, dg.AssetKey(PUBLISH_ASSET if published else PROMOTE_ASSET)],
                description=exposure.get("description") or exposure.get("label"),
                group_name="exposures",
                kinds={exposure["type"]},
                metadata={name: text for name, text in said.items() if text},
            )
        )
    return dg.AssetsDefinition(specs=specs) if specs else None


def _record(context: dg.AssetExecutionContext, work: Callable[[], None]) -> None:
    """Let the next run know what need not be computed; if that fails, it only costs the next run time."""
    try:
        work()
    except CommitFailedException as error:
        context.log.warning(f"The next run computes these models again, since another process wrote them: {error}")


@contextlib.contextmanager
def _log(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[None]:
    """Keep dbt's log out of a command's output; the UI shows it, where a run has a page of its own."""
    if context.run.job_code_origin is not None:  # Dagster's own processes execute it
        yield
        return
    with (
        (settings.data_path / "dbt" / "dbt.log").open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        yield
