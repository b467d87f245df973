"""What lies below `workflows/` is found by its type; what cannot be used costs itself, never the rest, and is named.

Modules: `cascade.framework.base`, `cascade.framework.discovery`, `cascade_operations.unpromoted`.
"""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.framework.definitions import Problems, build_definitions, guards_of, note_problems, problems_of
from cascade.names import DEFINITIONS_CHECK
from cascade.publish import PROMOTE_KEY
from support.packages import install

ASSET = """
import dagster as dg

@dg.asset
def {name}():
    return 1
"""
RESOURCE = """
import dagster as dg

class Box(dg.ConfigurableResource):
    size: int

{name} = Box(size={size})
"""
# A daily and an hourly asset that write tables, and a job of both, which no run can hold.
TWO_RHYTHMS = """
import dagster as dg
from cascade import Lakehouse

@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
def days(lakehouse: dg.ResourceParam[Lakehouse]): ...

@dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"))
def hours(lakehouse: dg.ResourceParam[Lakehouse]): ...
"""


def built(folder: Path, **files: str) -> dg.Definitions:
    for name, text in files.items():
        file = folder / "workflows" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return build_definitions(Settings(project_dir=folder, owners=("team:owls",)))


def names(definitions: dg.Definitions) -> set[str]:
    """Return the assets that can be materialized, without our own."""
    keys = definitions.resolve_asset_graph().executable_asset_keys
    return {key.to_user_string() for key in keys if key.path[0] != "cascade"}


def test_one_process_opens_two_projects_with_folders_below_workflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # a package would be found there by later tests
    for number in (1, 2):
        folder = tmp_path / str(number)
        (folder / "workflows" / "ingestion").mkdir(parents=True)
        (folder / "workflows" / "__init__.py").touch()
        (folder / "workflows" / "ingestion" / "deep.py").write_text(ASSET.format(name=f"deep_{number}"))
        assert names(built(folder, flat=ASSET.format(name=f"flat_{number}"))) == {f"deep_{number}", f"flat_{number}"}


_DEFINE = """
import sys
from cascade.config import load_settings
from cascade.framework.definitions import build_definitions
build_definitions(load_settings())
print(sorted({"dbt", "dlt", "duckdb", "pandas", "pyarrow.dataset", "pyiceberg.io.pyarrow"} & sys.modules.keys()))
"""


def test_to_define_assets_imports_nothing_that_only_runs_need(tmp_path: Path) -> None:
    """Each process of Dagster loads the definitions, and so does `cascade validate`."""
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]\n")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "orders.py").write_text(
        "from cascade.ingestion import cascade_ingestion\n\n"
        "@cascade_ingestion(unique_key='id')\ndef orders(partition_date: str): ...\n"
    )
    done = subprocess.run([sys.executable, "-c", _DEFINE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_files_define_is_found_by_its_type(tmp_path: Path) -> None:
    definitions = built(tmp_path, a=ASSET.format(name="one"), b=RESOURCE.format(name="box", size=1))
    assert names(definitions) == {"one"}
    assert set(definitions.resources or {}) == {"box", "lakehouse"}
    assert problems_of(definitions) == Problems()


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ASSET.format(name="one"), ASSET.format(name="one"), "asset one"),
        (RESOURCE.format(name="box", size=1), RESOURCE.format(name="box", size=2), "resource box"),
    ],
    ids=["asset", "resource"],
)
def test_what_two_files_define_is_refused_in_the_second(tmp_path: Path, first: str, second: str, said: str) -> None:
    definitions = built(tmp_path, a=first, b=second, c=ASSET.format(name="other"))
    (problem,) = problems_of(definitions).broken
    assert problem == f"workflows/b.py: {said} is already defined in workflows/a.py; rename one of them."
    assert "other" in names(definitions)


def test_one_object_that_two_files_show_is_one(tmp_path: Path) -> None:
    definitions = built(tmp_path, a=RESOURCE.format(name="box", size=1), b="from workflows.a import box")
    assert set(definitions.resources or {}) == {"box", "lakehouse"}
    assert problems_of(definitions) == Problems()


PLAIN = """
import dagster as dg
from cascade import Lakehouse

@dg.asset
def bare(lakehouse):
    return lakehouse.branch

@dg.asset
def typed(bare, lakehouse: Lakehouse):
    assert lakehouse.branch == bare

@dg.asset_check(asset=bare)
def alone(lakehouse):
    return dg.AssetCheckResult(passed=lakehouse.branch == "dev")

@dg.asset_check(asset=bare)
def beside(bare, lakehouse):
    return dg.AssetCheckResult(passed=lakehouse.branch == bare)

@dg.multi_asset(specs=[dg.AssetSpec("first"), dg.AssetSpec("second")])
def several(lakehouse):
    return tuple(dg.MaterializeResult(name, metadata={"on": lakehouse.branch}) for name in ("first", "second"))
"""


def test_plain_assets_and_checks_ask_for_the_lakehouse_by_name(tmp_path: Path) -> None:
    """No annotation is needed, and the class as one is enough: without it Dagster would look for another asset."""
    definitions = built(tmp_path, plain=PLAIN)
    assert problems_of(definitions) == Problems()
    chosen = [dg.AssetKey(name) for name in ("bare", "typed", "first", "second")]
    for spec in (definitions.resolve_asset_graph().get(key) for key in chosen):
        [code] = spec.metadata["dagster/code_references"].value.code_references
        assert code.file_path == str(tmp_path / "workflows" / "plain.py")
        assert spec.owners == ["team:owls"]
    job = definitions.resolve_implicit_job_def_def_for_assets(chosen)
    assert job is not None
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        result = job.execute_in_process(instance=instance, asset_selection=chosen)
    assert {done.check_name for done in result.get_asset_check_evaluations() if done.passed} == {"alone", "beside"}


# One bad definition

HEAD = "import dagster as dg\n"
BAD = {
    "unknown_input": (
        "@dg.asset\ndef bad(nowhere): ...",
        'workflows/bad.py: asset bad: Input asset "["nowhere"]" is not produced by any',
    ),
    "missing_resource": (
        "@dg.asset(required_resource_keys={'nope'})\ndef bad(): ...",
        "workflows/bad.py: asset bad: resource with key 'nope' required by op 'bad' was not provided.",
    ),
    "partitions_of_one's_own": (
        "class Mine(dg.StaticPartitionsDefinition): ...\n@dg.asset(partitions_def=Mine(['1']))\ndef bad(): ...",
        "workflows/bad.py: asset bad: no run knows which rows belong to partitions of Mine; use those of Dagster",
    ),
    "several_assets": (
        "@dg.multi_asset(specs=[dg.AssetSpec('bad'), dg.AssetSpec('worse')], required_resource_keys={'no'})\n"
        "def both(): ...",
        "workflows/bad.py: `both`: resource with key 'no' required by op 'both' was not provided.",
    ),
    "key_in_definitions": (
        "defs = dg.Definitions(assets=[dg.asset(name='one')(lambda: 1)])",
        "workflows/bad.py: `defs`: Duplicate asset key: one: a model of the dbt project, or another workflow, makes",
    ),
    "second_executor": (
        "a = dg.Definitions(executor=dg.multiprocess_executor)\nb = dg.Definitions(executor=dg.in_process_executor)",
        "workflows/bad.py: `b`: this and another `Definitions` both have an executor",
    ),
    "second_logger": (
        "a, b = (dg.Definitions(loggers={'mine': dg.logger(lambda _: None)}) for _ in range(2))",
        "workflows/bad.py: `b`: this and another `Definitions` have different loggers with same key 'mine'",
    ),
    "a_name_that_differs_in_case": (
        "@dg.asset\ndef One(): ...",
        "asset One: SQL, which knows no capital letters, cannot tell these tables apart: `One` and `one`",
    ),
    "our_resource": (
        "defs = dg.Definitions(resources={'lakehouse': 1})",
        "workflows/bad.py: `defs`: this and another `Definitions` have different resources with same key 'lakehouse'",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_definition_costs_itself_and_nothing_is_promoted(tmp_path: Path, text: str, said: str) -> None:
    good = {f"z{i}": ASSET.format(name=f"z{i}") for i in range(3)}
    definitions = built(tmp_path, a=ASSET.format(name="one"), bad=HEAD + text, **good)
    (problem,) = problems_of(definitions).broken
    assert said in problem
    assert names(definitions) == {"one", *good}
    assert guards_of(definitions).broken == (problem,)


BAD_JOBS = {
    "job": (
        "nightly = dg.define_asset_job('nightly', dg.AssetSelection.all())",
        "workflows/bad.py: job nightly: Failed to resolve asset job nightly; Selected assets must have the same",
    ),
    "schedule": (
        "s = dg.ScheduleDefinition(name='s', cron_schedule='0 3 * * *', target=dg.AssetSelection.all())",
        "workflows/bad.py: schedule s: Failed to resolve asset job __anonymous_asset_job_s; Selected assets must",
    ),
    "sensor": (
        "@dg.sensor(job_name='nowhere')\ndef s(): ...",
        "workflows/bad.py: sensor s: ",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD_JOBS.values(), ids=BAD_JOBS.keys())
def test_a_job_that_cannot_be_resolved_costs_itself_alone(tmp_path: Path, text: str, said: str) -> None:
    """It holds no checks, so all else is promoted."""
    fine = "days = dg.define_asset_job('days_alone', ['days', 'cascade/promote'])"
    definitions = built(tmp_path, a=TWO_RHYTHMS, bad=f"{HEAD}{text}\n{fine}")
    (problem,) = problems_of(definitions).jobs
    assert said in problem
    assert names(definitions) == {"days", "hours"}
    assert definitions.resolve_job_def("days_alone")
    assert guards_of(definitions).broken == ()


def test_what_waits_for_a_later_file_is_not_lost_with_a_bad_one(tmp_path: Path) -> None:
    """The files are tried by halves when one is bad; an asset whose input comes later is good all the same."""
    early = HEAD + "@dg.asset\ndef early(late): ..."
    definitions = built(tmp_path, a=early, b=HEAD + BAD["unknown_input"][0], c=ASSET.format(name="late"))
    assert names(definitions) == {"early", "late"}


def test_a_check_of_the_promotion_fails_in_the_ui_as_long_as_something_is_left_out(tmp_path: Path) -> None:
    """Before anything is run; a project that was whole from the start has no such event."""
    key = dg.AssetCheckKey(PROMOTE_KEY, DEFINITIONS_CHECK)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:

        def told(**files: str) -> list[tuple[bool, str, str]]:
            definitions = built(tmp_path, **files)
            assert key in definitions.resolve_asset_graph().asset_check_keys
            for _ in range(2):  # each process of Dagster loads them
                note_problems(instance, definitions)
            records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
            found = [record.evaluation for record in records]
            return [
                (e.passed, e.severity.name, e.description or "")
                for e in found
                if isinstance(e, dg.AssetCheckEvaluation)
            ]

        assert told(a=ASSET.format(name="one")) == []
        ((passed, severity, why),) = told(broken="1 / 0", jobs=HEAD + BAD_JOBS["sensor"][0])
        assert (passed, severity) == (False, "ERROR")
        assert why.startswith(
            "workflows/broken.py:1: ZeroDivisionError: division by zero\n\nworkflows/jobs.py: sensor s: "
        )
        assert [one[:2] for one in told(broken="")] == [(False, "WARN"), (False, "ERROR")]
        (tmp_path / "workflows" / "jobs.py").unlink()
        assert told()[0] == (True, "WARN", "All files and definitions are loaded.")


def test_an_executor_of_the_project_is_used(tmp_path: Path) -> None:
    definitions = built(tmp_path, a=HEAD + "defs = dg.Definitions(executor=dg.multiprocess_executor)")
    assert definitions.executor is dg.multiprocess_executor
    assert problems_of(definitions) == Problems()


# Packages

PACKAGES = {
    "broken": (
        {"cascade-extra": "nothere:build"},
        "`extra` of cascade.schedules: ModuleNotFoundError: No module named 'nothere'",
    ),
    "other": ({"cascade-extra": "builtins:len"}, "TypeError: object of type 'Settings' has no len()"),
    "no_schedule": ({"cascade-extra": "builtins:repr"}, "str is not a schedule"),
    "exits": ({"cascade-extra": "sys:exit"}, "`extra` of cascade.schedules: SystemExit: "),
    "twice": (
        {"cascade-extra": "a:b", "cascade-more": "a:b"},
        "package cascade-extra 1.0: `extra` of cascade.schedules: cascade-more brings one of this name, too",
    ),
}


@pytest.mark.parametrize(("packages", "said"), PACKAGES.values(), ids=PACKAGES.keys())
def test_a_broken_package_costs_itself_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: dict[str, str], said: str
) -> None:
    given = {name: (f"[cascade.schedules]\nextra = {value}\n", "") for name, value in packages.items()}
    install(tmp_path / "packages", monkeypatch, given)
    definitions = built(tmp_path, a=ASSET.format(name="one"))
    problems = problems_of(definitions).jobs
    assert len(problems) == len(packages)
    assert said in problems[0]
    assert all(f"package {name} 1.0: `extra`" in problem for name, problem in zip(packages, problems, strict=True))
    assert names(definitions) == {"one"}
    assert guards_of(definitions).broken == ()


BLOCKING = {
    "assets": ("[cascade.assets]\nextra = cascade_extra:nothere\n", ""),
    "assets_that_do_not_start": ("[cascade.assets]\nextra = builtins:len\n", ""),
    "assets_that_do_not_come": (
        "[cascade.assets]\nextra = cascade_extra:start\n",
        "import contextlib\n\n\n@contextlib.contextmanager\ndef start(settings):\n    yield lambda: 1 / 0\n",
    ),
    "source": ("[cascade.plugins.sources]\nextra = cascade_extra:nothere\n", ""),
    "check": ("[cascade.plugins.quality]\nextra = cascade_extra:x\n", "x = 1\n"),
    "transformation": ("[cascade.plugins.transforms]\nextra = builtins:len\n", ""),
}


@pytest.mark.parametrize("package", BLOCKING.values(), ids=BLOCKING.keys())
def test_a_broken_package_that_may_hold_checks_keeps_all_from_being_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: tuple[str, str]
) -> None:
    """The assets of others load, and can be materialized on a branch."""
    install(tmp_path / "packages", monkeypatch, {"cascade-extra": package})
    definitions = built(tmp_path, a=ASSET.format(name="one"))
    (problem,) = problems_of(definitions).broken
    assert problem.startswith("package cascade-extra 1.0: `extra` of cascade.")
    assert guards_of(definitions).broken == (problem,)
    assert names(definitions) == {"one"}


# What works, and may not do what its author expects

UNPROMOTED = {
    "job": ("j = dg.define_asset_job('j', ['days'])", "job j"),
    "schedule": (
        "j = dg.define_asset_job('j', ['days'])\ns = dg.ScheduleDefinition(job=j, cron_schedule='0 3 * * *')",
        "job j",
    ),
    "sensor": (
        "j = dg.define_asset_job('j', ['days'])\n@dg.sensor(job=j)\ndef s(): ...",
        "job j",
    ),
    "target": (
        "s = dg.ScheduleDefinition(name='s', cron_schedule='0 3 * * *', target=dg.AssetSelection.assets('days'))",
        "schedule s",
    ),
    "definitions": (
        "j = dg.define_asset_job('j', ['days'])\ndefs = dg.Definitions(jobs=[j])",
        "job j",
    ),
}


@pytest.mark.parametrize(("text", "title"), UNPROMOTED.values(), ids=UNPROMOTED.keys())
def test_a_job_that_writes_and_does_not_promote_is_told(tmp_path: Path, text: str, title: str) -> None:
    definitions = built(tmp_path, a=TWO_RHYTHMS, jobs=HEAD + text)
    problems = problems_of(definitions)
    (warning,) = problems.warnings
    assert warning.startswith(f"workflows/jobs.py: {title}: what it writes (days) stays on the branch of its run")
    assert problems.all == []
    if title == "job j" and "Definitions(" not in text:
        assert warning in (definitions.resolve_job_def("j").description or "")


STARTED = {
    "sensor": (
        "@dg.sensor(asset_selection=['days'])\ndef s(): ...",
        "workflows/jobs.py: sensor s: what it starts (days)",
    ),
    "condition": (
        "@dg.asset(automation_condition=dg.AutomationCondition.eager(), required_resource_keys={'lakehouse'})\n"
        "def own(): ...\ns = dg.AutomationConditionSensorDefinition('s', target=dg.AssetSelection.all())",
        "automation_condition: what it starts (own)",
    ),
}


@pytest.mark.parametrize(("text", "said"), STARTED.values(), ids=STARTED.keys())
def test_what_starts_single_assets_is_said_to_promote_nothing(tmp_path: Path, text: str, said: str) -> None:
    problems = problems_of(built(tmp_path, a=TWO_RHYTHMS, jobs=HEAD + text))
    assert (len(problems.warnings), problems.all) == (1, [])
    assert problems.warnings[0].startswith(f"{said} is written to the branch of the setting `branch`")


@pytest.mark.parametrize("selection", ["['days', 'cascade/promote']", "dg.AssetSelection.groups('cascade')"])
def test_a_job_that_promotes_or_writes_nothing_is_not_told(tmp_path: Path, selection: str) -> None:
    definitions = built(tmp_path, a=TWO_RHYTHMS, jobs=f"{HEAD}j = dg.define_asset_job('j', {selection})")
    assert problems_of(definitions) == Problems()


PYTHON_COMPONENT = """\
import dagster as dg


class Made(dg.Component):
    def build_defs(self, context):
        return dg.Definitions(assets=[dg.AssetSpec(["python", "c"])])


@dg.component_instance
def load(context):
    return Made()
"""
COMPONENT = """\
type: dagster.PythonScriptComponent
attributes:
  execution:
    path: script_{name}.py
  assets:
    - key: sync/{name}
"""


def test_components_are_loaded_as_dagster_loads_them_and_their_scripts_are_not_run(tmp_path: Path) -> None:
    """Several of them, also below other folders; a file that is broken costs itself, and so does a component."""
    sources = {
        "sync": COMPONENT.format(name="a"),
        "crm/sync": COMPONENT.format(name="b"),
        "bad": "type: nothing.There\n",
    }
    for name, text in sources.items():
        folder = tmp_path / "workflows" / name
        (folder / "below").mkdir(parents=True)
        (folder / "defs.yaml").write_text(text)
        for script in ("script_a.py", "script_b.py", "below/more.py"):
            (folder / script).write_text("raise SystemExit('ran')")
    python = tmp_path / "workflows" / "python"
    python.mkdir()
    (python / "component.py").write_text(PYTHON_COMPONENT)
    definitions = built(tmp_path, a=ASSET.format(name="one"), broken="1 / 0")
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert keys >= {"one", "sync/a", "sync/b", "python/c"}
    broken, component = sorted(problems_of(definitions).all, reverse=True)
    assert "workflows/broken.py:1: ZeroDivisionError" in broken
    assert component.startswith("workflows/bad/defs.yaml")
    assert "Module `nothing` not found" in component


# Settings


def test_settings_are_read_once_for_all_assets(tmp_path: Path) -> None:
    """The given ones count, wherever the command is run: nothing of the folder is read again."""
    text = "from cascade.ingestion import cascade_ingestion\n"
    for name in ("one", "two"):
        text += f"@cascade_ingestion(unique_key='id')\ndef {name}(partition_date: str): ...\n"
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "loads.py").write_text(text)
    (tmp_path / "cascade_config.py").write_text("raise SystemExit('read again')")
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]")
    definitions = build_definitions(Settings(project_dir=tmp_path, timezone="Asia/Tokyo"))
    assert problems_of(definitions) == Problems()
    for name in ("one", "two"):
        partitions = definitions.resolve_asset_graph().get(dg.AssetKey(["raw", name])).partitions_def
        assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
        assert partitions.timezone == "Asia/Tokyo"
