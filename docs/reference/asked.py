"""The page of operations: functions, their records field by field, and events; read from the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator

_BEGIN = """\
# Operations

What people and programs ask of a lakehouse is one function each, in `cascade_operations`. It takes the project's
settings (`cascade.load_settings()`), returns frozen records, and takes the leases and locks that it needs. A command
prints what its function returns: with `--json`, the fields below are that document.

```python
import cascade_operations as operations
from cascade import load_settings

for branch in operations.list_branches(load_settings()):
    print(branch.name, branch.changed)
```

Several records are a JSON array, rows of a query an array of objects. Times are ISO 8601 texts; decimals are
numbers, or text where a double would lose digits; NaN and infinity are null. An error of Cascade is
`{"error": {"what": …, "where": …, "fix": …}}`, beside its text on standard error.

| command | function | gives |
|---|---|---|
"""

#: Command to the function that it calls.
COMMANDS = {
    "run": "cascade_operations.run_pipeline",
    "materialize": "cascade_operations.materialize",
    "query": "cascade_operations.query",
    "table list": "cascade_operations.list_tables",
    "table show": "cascade_operations.show_table",
    "table history": "cascade_operations.table_history",
    "table drop": "cascade_operations.drop_tables",
    "table rename": "cascade_operations.rename_table",
    "table reset": "cascade_operations.reset_table",
    "quarantine list": "cascade_operations.list_quarantine",
    "quarantine show": "cascade_operations.read_quarantine",
    "quarantine replay": "cascade_operations.replay_quarantine",
    "quarantine drop": "cascade_operations.drop_quarantine",
    "schema plan": "cascade_operations.plan_schema",
    "schema apply": "cascade_operations.apply_schema",
    "branch list": "cascade_operations.list_branches",
    "branch create": "cascade_operations.create_branch",
    "branch delete": "cascade_operations.delete_branch",
    "branch diff": "cascade_operations.diff",
    "branch promote": "cascade_operations.promote",
    "branch restore": "cascade_operations.restore",
    "branch log": "cascade_operations.log",
    "alerts list": "cascade_alerts.telling.list_alerts",
    "partitions add": "cascade_operations.add_partitions",
    "partitions list": "cascade_operations.list_partitions",
    "partitions remove": "cascade_operations.remove_partitions",
    "schedules list": "cascade_operations.list_schedules",
    "schedules start": "cascade_operations.switch_schedules",
    "schedules stop": "cascade_operations.switch_schedules",
    "config show": "cascade_operations.list_settings",
    "doctor": "cascade_operations.diagnose",
    "create-workflow": "cascade_create.workflow.create_workflow",
    "create-model": "cascade_create.model.create_model",
    "create-check": "cascade_create.check.create_check",
    "maintain branches": "cascade_maintain.maintenance.drop_branches",
    "maintain all": "cascade_maintain.maintenance.maintain_all",
    "maintain expire": "cascade_maintain.maintenance.expire",
    "maintain compact": "cascade_maintain.maintenance.compact",
    "maintain files": "cascade_maintain.maintenance.remove_files",
    "maintain verify": "cascade_maintain.maintenance.verify",
    "lift": "cascade_maintain.lift.lift_lake",
    "plan": "cascade_operations.plan_run",
    "plugins list": "cascade_operations.plugins.inspect_plugins",
    "plugins info": "cascade_operations.plugins.inspect_plugins",
    "plugins check": "cascade_operations.plugins.inspect_plugins",
    "plugins search": "cascade_operations.offering.search_plugins",
    "services list": "cascade_services.running.list_services",
    "services ports": "cascade_services.running.list_ports",
    "services doctor": "cascade_services.running.examine",
    "services env": "cascade_services.env.complete_env",
    "services start": "cascade_services.servers.start_native",
    "services status": "cascade_services.servers.list_native",
    "postgrest apply": "cascade_postgrest.database.apply_api",
    "validate": "cascade_project.validate.inspect_project",
}


def operation(path: str) -> Callable[..., object]:
    """Return a function by its path."""
    module, _, name = path.rpartition(".")
    found: Callable[..., object] = getattr(__import__(module, fromlist=[name]), name)
    return found


def records() -> list[type]:
    """Return every record, in the order of the page."""
    from cascade.catalog import Branch
    from cascade.plugins import PluginRecord
    from cascade_create.changes import Created
    from cascade_maintain import branches, compact, expire, garbage, lift, maintenance, verify, warehouse
    from cascade_operations import records as ours
    from cascade_operations import table_records
    from cascade_operations.configuration import SettingRow
    from cascade_operations.offering import Offer
    from cascade_operations.planned import ColumnChange, Plan, PlannedAsset, PlannedCheck
    from cascade_postgrest.database import ApiColumn, ApiView
    from cascade_project import validate
    from cascade_project.portability import Finding
    from cascade_services.env import EnvFile
    from cascade_services.running import HostPort, Listed, Trouble
    from cascade_services.servers import NativeServer

    theirs = [maintenance.Upkeep, branches.Cleaning, compact.Compaction, compact.Compacted]
    theirs += [expire.Expiry, expire.Expired]
    theirs += [garbage.Collection, warehouse.StoredFile, verify.Verification, verify.DamagedFile]
    theirs += [lift.Lift, lift.LiftedTable]
    return [
        Branch,
        SettingRow,
        *(
            value
            for room in (ours, table_records)
            for value in vars(room).values()
            if dataclasses.is_dataclass(value) and isinstance(value, type)
        ),
        Plan,
        PlannedAsset,
        ColumnChange,
        PlannedCheck,
        *theirs,
        validate.Inspection,
        validate.DefinedCheck,
        Finding,
        PluginRecord,
        Offer,
        EnvFile,
        NativeServer,
        Listed,
        HostPort,
        Trouble,
        ApiView,
        ApiColumn,
        Created,
    ]


def page() -> Iterator[str]:
    """Return the page, part by part."""
    from cascade_operations import events

    yield _BEGIN
    for command, path in COMMANDS.items():
        gives = str(inspect.signature(operation(path)).return_annotation)
        yield f"| `cascade {command}` | `{path}` | {_linked(gives)} |\n"
    yield "\n"
    for path in dict.fromkeys(COMMANDS.values()):
        function = operation(path)
        signature = re.sub(r"<function (\w+)[^>]*>", r"\1", str(inspect.signature(function))).partition(" -> ")[0]
        signature = re.sub(r": '([^']*)'", r": \1", signature)
        yield f"## `{path}`\n\n```python\n{path.rpartition('.')[2]}{signature}\n```\n\n"
        yield re.sub(r"(?m)^(Args|Raises):\n", r"\1:\n\n", _listed(inspect.getdoc(function) or "")) + "\n\n"
    yield "## Records\n\n"
    for record in records():
        text, _, attributes = (inspect.getdoc(record) or "").partition("\nAttributes:\n")
        meanings = dict(_entries(attributes))
        yield f"### {record.__name__}\n\n{text.strip()}\n\n| field | type | meaning |\n|---|---|---|\n"
        for field in (field for field in dataclasses.fields(record) if field.repr):
            yield f"| `{field.name}` | {_linked(str(field.type))} | {meanings[field.name]} |\n"
        yield "\n"
    yield "## Events\n\nA function with `tell=` calls it with one of these, as the thing happens.\n\n"
    yield "| event | fields | meaning |\n|---|---|---|\n"
    for event in typing.get_args(events.Event):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(event))
        yield f"| `{event.__name__}` | {fields} | {(inspect.getdoc(event) or '').strip()} |\n"


def _linked(kind: str) -> str:
    known = {record.__name__ for record in records()}
    inner = next((name for name in re.findall(r"\w+", kind) if name in known), None)
    shown = f"`{kind}`".replace("|", "\\|")
    return f"[{shown}](#{inner.lower()})" if inner else shown


def _listed(text: str) -> str:
    """Turn the entries of a docstring into a list."""
    lines: list[str] = []
    for line in text.splitlines():
        if re.match(r"    \w[\w ,]*: ", line):
            lines.append("- " + line.strip())
        elif line.startswith("        ") and lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in _listed(text).splitlines():
        if line.startswith("- "):
            name, _, meaning = line[2:].partition(": ")
            yield name, meaning.replace("|", "\\|")
