"""Assemble one Dagster `Definitions`: workflows, dbt models, promotion, schedules and the lakehouse resource."""

import contextlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import dagster as dg

from cascade._dagster import DagsterLibraryRegistry
from cascade.config import Settings, load_settings, use_settings
from cascade.duck.sql import alike
from cascade.engine import engine_of
from cascade.errors import CascadeError, DefinitionError
from cascade.framework.base import AssetSource, Reviewer, ScheduleFactory, TriggerFactory
from cascade.framework.discovery import Item, collect, discover, says
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse, branch_of_run
from cascade.names import BRANCH_TAG, PROBLEMS_METADATA, is_run_branch
from cascade.plugins import PluginRecord, load_all
from cascade.plugins.families import FAMILIES
from cascade.publish import PROMOTE_KEY, PUBLISH_KEY, Guards, build_publishing

__all__ = ["Problems", "build_definitions", "defs", "downstream", "guards_of", "note_problems", "problems_of"]  # noqa: F822  # `defs`: `__getattr__`

# Plugins that hold no checks.
_HARMLESS = ("cascade.plugins.services",)


def __getattr__(name: str) -> Any:
    # Built on first use: `from cascade.framework.definitions import defs` is all that a project needs.
    if name == "defs":
        settings = load_settings()
        definitions = build_definitions(settings)
        if problems := problems_of(definitions).all:
            print(*(f"cascade: not loaded: {problem}" for problem in problems), sep="\n", file=sys.stderr)
            # All that the page of a code location shows, which else looks healthy.
            DagsterLibraryRegistry.register("not loaded", "; ".join(problems), is_dagster_package=False)
        # A machine that only looks at definitions, as CI does, may have no storage; what is left out was printed.
        with contextlib.suppress(Exception), open_instance(settings) as instance:
            note_problems(instance, definitions)
        return definitions
    raise AttributeError(name)


@dataclass(frozen=True)
class Problems:
    """What is wrong with a project's definitions, one line each: where, why, and the remedy if it is known.

    Attributes:
        broken: Files, definitions and plugins that are left out, with checks that may be in them: nothing is promoted.
        jobs: Jobs, schedules, sensors and services that are left out.
        warnings: What works, and may not do what its author expects.
    """

    broken: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Everything that is left out."""
        return self.broken + self.jobs


def build_definitions(settings: Settings) -> dg.Definitions:
    """Build what Dagster loads for a project.

    What cannot be used is left out and named in the definitions' metadata, which `problems_of` reads. The rest loads,
    and can be materialized on a branch.

    Args:
        settings: The project's settings.
    """
    problems = Problems()
    for group, shape in FAMILIES.items():  # only checked here: workflows use them
        _load(group, shape, problems.jobs if group in _HARMLESS else problems.broken)
    # dbt works while the workflows are imported.
    with contextlib.ExitStack() as started, use_settings(settings):
        waiting = []
        for record in _load("cascade.assets", AssetSource, problems.broken):
            with _contained(record, settings, problems.broken):
                waiting.append((record, started.enter_context(record.object.start(settings))))
        found = discover(settings.workflows_path)
        problems.broken.extend(found.broken)
        for record, assets in waiting:
            with _contained(record, settings, problems.broken):
                # They come first: a workflow that contradicts one of them is left out, and not all models.
                found.items[:0] = [Item(_origin(record), "assets", record.name, a) for a in assets()]
    for record in _load("cascade.schedules", ScheduleFactory, problems.jobs):
        with _contained(record, settings, problems.jobs):
            made = record.object(settings)
            if not isinstance(made, dg.ScheduleDefinition | dg.SensorDefinition | None):
                raise TypeError(f"{type(made).__name__} is not a schedule or a sensor")
            if made is not None:
                kind = "schedules" if isinstance(made, dg.ScheduleDefinition) else "sensors"
                found.items.append(Item(_origin(record), kind, record.name, made))
    told = asdict(problems)
    items, definitions, failed = _usable(found.items, lambda items: _assemble(settings, items, problems))
    for item, cause in failed:
        (problems.broken if item.guards else problems.jobs).append(f"{item.title}: {_hint(says(cause))}")
    for record in _load("cascade.reviews", Reviewer, problems.jobs):
        with _contained(record, settings, problems.jobs):
            items, warnings = record.object(definitions, items)
            problems.warnings.extend(warnings)
    if asdict(problems) != told:
        definitions = _assemble(settings, items, problems)
    return definitions


def problems_of(definitions: dg.Definitions) -> Problems:
    """Return what is wrong with definitions that `build_definitions` made."""
    return Problems(**cast("dict[str, list[str]]", definitions.metadata[PROBLEMS_METADATA].value))


def guards_of(definitions: dg.Definitions) -> Guards:
    """Return what guards the promotion of a project, from its definitions."""
    problems = problems_of(definitions)
    return Guards(_blocking(definitions), tuple(problems.broken), tuple(problems.jobs))


def note_problems(instance: dg.DagsterInstance, definitions: dg.Definitions) -> None:
    """Let the check of the promotion say in the UI what is not loaded: before any run, and after one that failed."""
    now = guards_of(definitions).told()
    history = instance.event_log_storage.get_asset_check_execution_history(now.asset_check_key, limit=1)
    # Dagster calls a check failed that a run has only planned; such a record has no description.
    before = getattr(history[0].evaluation, "description", None) if history else None
    if before != now.description and (history or not now.passed):
        instance.report_runless_asset_event(now)


def _blocking(definitions: dg.Definitions) -> dict[dg.AssetKey, list[dg.AssetCheckKey]]:
    """Return the blocking checks of each asset."""
    blocking: dict[dg.AssetKey, list[dg.AssetCheckKey]] = defaultdict(list)
    for definition in [*(definitions.assets or ()), *(definitions.asset_checks or ())]:
        for spec in definition.check_specs if isinstance(definition, dg.AssetsDefinition) else ():
            if spec.blocking:
                blocking[spec.asset_key].append(spec.key)
    return dict(blocking)


def downstream(keys: set[dg.AssetKey], upstream: Mapping[dg.AssetKey, set[dg.AssetKey]]) -> set[dg.AssetKey]:
    """Return assets with all that depends on them; `upstream` says what each asset depends on."""
    while more := {key for key, deps in upstream.items() if not deps.isdisjoint(keys)} - keys:
        keys = keys | more
    return keys


def _usable(
    items: Sequence[Item], assemble: Callable[[Sequence[Item]], dg.Definitions]
) -> tuple[list[Item], dg.Definitions, list[tuple[Item, Exception]]]:
    """Return the items that Dagster can load together, their definitions, and the cause for each other item.

    All are tried at once, and only if that fails in halves, so that good definitions cost one try.
    """
    good: list[Item] = []
    bad: list[tuple[Item, Exception]] = []
    made: list[dg.Definitions] = []

    def add(some: Sequence[Item]) -> None:
        try:
            made[:] = [assemble([*good, *some])]
        # Dagster raises errors of many kinds for what users define.
        except Exception as error:
            if len(some) > 1:
                half = len(some) // 2
                add(some[:half])
                add(some[half:])
            elif some:
                bad.append((some[0], error))
            else:
                raise
        else:
            good.extend(some)

    add(sorted(items, key=lambda item: item.order))
    before = -1
    while bad and len(good) > before:  # an item may need one that was added after it
        before, again = len(good), [item for item, _ in bad]
        bad.clear()
        for item in again:
            add([item])
    return good, made[0], bad


def _assemble(settings: Settings, items: Sequence[Item], problems: Problems) -> dg.Definitions:
    """Return the definitions of a project; raises what Dagster raises when it cannot load them."""
    theirs = collect(items, settings.owners)
    assets = [a for a in theirs.assets or () if isinstance(a, dg.AssetsDefinition)]
    if same := alike(".".join(key.path) for a in assets for key in a.keys):
        raise DefinitionError(
            f"SQL, which knows no capital letters, cannot tell these tables apart: {same}.",
            fix="give one of them another name.",
        )
    upstream = {key: set(a.asset_deps[key]) for a in assets if a.is_executable for key in a.keys}
    before = upstream.keys() - downstream({PROMOTE_KEY, PUBLISH_KEY}, upstream)
    impossible: list[str] = []
    makers = _load("cascade.triggers", TriggerFactory, impossible)
    started = [one for record in makers for one in record.object(settings, assets, upstream, impossible)]
    problems = Problems(problems.broken, [*problems.jobs, *impossible], problems.warnings)
    guards = Guards(_blocking(theirs), tuple(problems.broken), tuple(problems.jobs))
    ours = dg.Definitions(
        metadata={PROBLEMS_METADATA: dg.MetadataValue.json(asdict(problems))},
        assets=build_publishing(sorted(before), guards),
        schedules=[each for each in started if isinstance(each, dg.ScheduleDefinition)],
        sensors=[each for each in started if isinstance(each, dg.SensorDefinition)],
        resources={"lakehouse": _lakehouse_resource(settings)},
        executor=None if theirs.executor else dg.in_process_executor,
    )
    whole = dg.Definitions.merge(theirs, ours)
    repository = whole.get_repository_def()
    repository.asset_graph.validate_partitions()  # type: ignore[no-untyped-call]
    for name in set(repository.job_names) - {each.job_name for each in started}:
        repository.get_job(name)
    assert repository.schedule_defs is not None
    assert repository.sensor_defs is not None
    return whole


def _load(group: str, shape: type[object], broken: list[str]) -> list[PluginRecord]:
    """Return what installed packages bring for a group, and note those that cannot be loaded."""
    records = load_all(group, shape)
    broken.extend(str(record) for record in records if record.cause)
    return [record for record in records if not record.cause]


@contextlib.contextmanager
def _contained(record: PluginRecord, settings: Settings, broken: list[str]) -> Iterator[None]:
    """Note what a package raises, or the file of the project that it complains about; the rest still loads."""
    try:
        yield
    # A package may raise anything.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        if isinstance(error, CascadeError) and error.where.startswith(f"{settings.project_dir}/"):
            file = Path(error.where).relative_to(settings.project_dir)
            broken.append(f"{file}: {error.what.rstrip('.')}; {error.fix}")
        else:
            broken.append(f"{_origin(record)}: `{record.name}` of {record.group}: {says(error)} ({record.where})")


def _origin(record: PluginRecord) -> str:
    return f"package {record.package}"


def _hint(cause: str) -> str:
    """Return Dagster's message with what to do about it, where we know."""
    cause = re.sub(r"Definitions objects \w+ and \w+", "this and another `Definitions`", cause)
    if cause.startswith("Duplicate asset key"):
        cause += ": a model of the dbt project, or another workflow, makes this table too; rename one of them"
    return cause


def _lakehouse_resource(settings: Settings) -> dg.ResourceDefinition:
    def open_lakehouse(context: dg.InitResourceContext) -> Lakehouse:
        if context.run is None:
            return Lakehouse(settings, settings.branch)
        log = context.log
        assert log is not None  # each run has one
        engine_of(settings).await_ready(settings, lambda what: log.info(f"Waiting for {what}"))
        branch = branch_of_run(context.run, settings)
        if BRANCH_TAG not in context.run.tags and not is_run_branch(branch) and context.instance is not None:
            # The branch comes from the settings of this process; the process that promotes it may have others.
            context.instance.add_run_tags(context.run.run_id, {BRANCH_TAG: branch})
        return Lakehouse(settings, branch)

    return dg.ResourceDefinition(open_lakehouse, description="The lakehouse on the branch that the run writes to.")
