"""Write a workflow that loads a source: its function, its contract, its model of the bronze layer, and a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pyarrow as pa

from cascade.config import Settings, export_dotenv
from cascade.errors import CascadeError, UsageError
from cascade.ingestion.cast import cast_column
from cascade.ingestion.text import json_text, listed, snake_case
from cascade_create import dbt_files, existing
from cascade_create.changes import Change, Created, create, formatted
from cascade_create.names import class_name, require_name, title
from cascade_create.partitions import UNITS, Slices, key_of, midnight
from cascade_create.render import Code, Raw, bronze_sql, imports_of, literal, model_code, module_code
from cascade_create.sample import Sample, column_of, draw, first_moment, guess_cursor, guess_key, is_unique
from cascade_create.sources import KINDS, Request, Shape, Source

__all__ = ["Draft", "create_workflow", "look", "plan_workflow"]

_RECORDED = 20
# The kinds whose cursor says what is new; files are new by themselves.
_BY_CURSOR = ("rest", "database", "python")


@dataclass(frozen=True)
class Draft:
    """What was found out about a source, before anything is written.

    Attributes:
        request: What was asked for.
        source: The source.
        sample: Some of its rows; None without `infer`.
        key: The columns of the table that name a row; a guess unless they were asked for.
        cursor: The column that says when a row changed, if it was asked for; as the source calls it.
        guessed_cursor: A column that may be one.
        guesses: What was guessed, and what a person should know, one sentence each.
    """

    request: Request
    source: Source
    sample: Sample | None
    key: Sequence[str]
    cursor: str = ""
    guessed_cursor: str | None = None
    guesses: Sequence[str] = field(default_factory=tuple)


def look(settings: Settings, request: Request) -> Draft:
    """Find out what the workflow needs to know; the source is asked only with `infer`.

    Args:
        settings: The project's settings.
        request: What somebody asks for.

    Raises:
        UsageError: The name cannot be taken, an option is missing or wrong, the source cannot be reached or is empty.
    """
    root = settings.project_dir
    request = replace(request, root=root)
    require_name(request.name, "workflow")
    existing.require_free(root, request.name, "workflow", _paths)
    dbt_files.require_dbt(root)
    if f"raw.{request.name}" in dbt_files.source_tables(root):
        raise UsageError(
            f"The dbt source raw.{request.name} is there already. Nothing was written.",
            where=str(root / dbt_files.PROJECT / "models"),
            fix=f"take another name, such as {existing.free_name(root, request.name, _paths)}",
        )
    if request.kind not in KINDS:
        raise UsageError(f"{request.kind!r} is not a kind of source.", fix=f"choose one of {', '.join(KINDS)}")
    if request.partitions and request.partitions not in UNITS:
        raise UsageError(
            f"There are no {request.partitions} partitions. Nothing was written.",
            where="--partitions",
            fix=f"choose one of {', '.join(UNITS)}",
        )
    if request.partitions and not request.infer and request.kind != "python":
        raise UsageError(
            "Partitions need a look at the source: which type the cursor has. Nothing was written.",
            where="--partitions",
            fix="add --infer",
        )
    if request.kind == "python" and request.partitions and not request.cursor:
        request = replace(request, cursor="happened_at")
    export_dotenv(root)
    source = cast("Source", KINDS[request.kind](request))
    if not request.infer and request.kind != "python":
        key = tuple(map(snake_case, request.key))
        return Draft(request, source, None, key, request.cursor, guesses=tuple(source.notes))
    return _with_sample(root, Draft(request, source, _sample(root, source, request.name), ()))


def _sample(root: Path, source: Source, name: str) -> Sample:
    """Run the code that is going to be written, and take some of its rows."""
    before = dict(os.environ)
    os.environ.update(source.secrets)  # the code reads them from there
    try:
        return draw(_run(root, source.code(Shape()), name), source.most, texts=source.texts, kept=_RECORDED)
    except CascadeError:
        raise
    except Exception as error:  # of a library that the source needs
        raise source.explain(error) from error
    finally:
        for variable in source.secrets.keys() - before.keys():
            del os.environ[variable]


def _run(root: Path, code: Code, name: str) -> Any:
    """Call the function of a workflow that is not written yet, in a module as dlt looks for it."""
    text = f"{imports_of(code.imports)}\n\n{code.top}\n\n\ndef {name}():\n{code.body}\n"
    module = sys.modules["cascade_create_draft"] = ModuleType("cascade_create_draft")
    module.__file__ = str(root / _workflow(name))
    exec(compile(text, module.__file__, "exec"), vars(module))
    function: Callable[[], Any] = getattr(module, name)
    return function()


def _with_sample(root: Path, draft: Draft) -> Draft:
    """Return the draft with key and cursor, asked for or guessed."""
    request, sample, source = draft.request, draft.sample, draft.source
    assert sample is not None
    notes = list(source.notes)
    seen = f"{sample.rows.num_rows:,} rows"
    if request.key:
        key = tuple(column_of(sample, one, "--key").name for one in request.key)
        if nulls := [name for name in key if sample.rows[name].null_count]:
            raise UsageError(
                f"The key {listed(nulls)} has no value in some rows of the sample. Nothing was written.",
                where="--key",
                fix="name columns that every row has a value in.",
            )
        if not is_unique(sample, key):
            notes.append(f"{listed(key)} is not unique in {seen}: of rows with one key the last one stays.")
    elif source.known_key:
        key = tuple(column_of(sample, one, "the primary key").name for one in source.known_key)
        notes += [f"Key: {listed(key)}, as the source says."] if request.kind == "database" else []
    else:
        guess = guess_key(sample, request.name)
        key = (guess,) if guess else ()
        notes.append(
            f"Key: {listed(key)} is a guess, unique in {seen}; --key says another one."
            if guess
            else f"No column of {seen} looks like a key: every run replaces the whole table; --key names a key."
        )
    cursor, guessed = "", None
    if request.cursor:
        cursor = request.cursor if "." in request.cursor else column_of(sample, request.cursor, "--cursor").source
    elif request.kind in _BY_CURSOR and (guessed := guess_cursor(sample)):
        guessed = next(column.source for column in sample.columns if column.name == guessed)
        notes.append(f"Cursor: {guessed} may be one, a guess; with --cursor {guessed} a run loads only what is new.")
    if request.partitions:
        sample = _with_moments(request, sample, cursor)
        if request.kind == "file":
            notes.append("Each partition reads all files, and takes its own rows.")
        if request.kind == "rest" and not request.cursor_param:
            notes.append(
                "Each partition asks for every page: --cursor-param lets the API leave out what came before it."
            )
    if sample.empty:
        notes.append(f"Without a value in {seen}, and so not in the contract: {listed(sample.empty)}.")
    return replace(draft, sample=sample, key=key, cursor=cursor, guessed_cursor=guessed, guesses=tuple(notes))


def _with_moments(request: Request, sample: Sample, cursor: str) -> Sample:
    """Return the sample with a cursor that says which partition a row belongs to: a time also where it is text."""
    name = column_of(sample, cursor, "--cursor").name if cursor else ""
    if not name or first_moment(sample, name) is None:
        raise UsageError(
            "Partitions of time need a cursor that says when a row happened. Nothing was written.",
            where=f"--partitions {request.partitions}, --cursor {cursor or 'missing'}",
            fix="name a column of times: --cursor updated_at",
        )
    moment = pa.timestamp("us", "UTC")
    columns = [
        replace(one, type=moment) if one.name == name and pa.types.is_string(one.type) else one
        for one in sample.columns
    ]
    return replace(sample, columns=columns)


def _slices(draft: Draft) -> Slices | None:
    """Return the partitions of the table; None for a table without."""
    sample, unit = draft.sample, draft.request.partitions
    if not unit or sample is None:
        return None
    column = column_of(sample, draft.cursor, "--cursor")
    start = first_moment(sample, column.name)
    assert start is not None
    given = next((row.get(column.source) for row in sample.raw if row.get(column.source) is not None), None)
    if not isinstance(given, str):
        return Slices(unit, start, column.name, sample.rows[column.name].type)
    return Slices(unit, start, column.name, pa.string(), given[10:11].strip("Z+-") or "T")


def plan_workflow(settings: Settings, draft: Draft) -> list[Change]:
    """Return the files of a workflow."""
    root, request, sample, source = settings.project_dir, draft.request, draft.sample, draft.source
    name, key = request.name, list(draft.key)
    columns = sample.columns if sample else []
    nulls = bool(sample and draft.cursor in sample.rows.column_names and sample.rows[draft.cursor].null_count)
    slices = _slices(draft)
    names = {column.source: column.name for column in columns if column.renamed}
    called = {column.name: column.source for column in columns}
    source_key = [called.get(one, one) for one in key] if sample else list(request.key)
    code = source.code(Shape(key=source_key, cursor=draft.cursor, cursor_has_nulls=nulls, names=names, slices=slices))
    model = class_name(name) if sample else None
    by_cursor = bool(draft.cursor) and request.kind in _BY_CURSOR  # a run loads what is new, without a key too
    options: dict[str, Any] = {} if key or by_cursor else {"write": "replace_partition"}
    if slices:
        options = {"partitions": Raw(slices.definition), "partition_column": slices.column}
    python = {_workflow(name): module_code(code, name, key=key, model=model, options=options)}
    described = [(column.name, column.source if column.source != column.name else "") for column in columns]
    changes: list[Change] = []
    if sample:
        python[f"workflows/schemas/{name}.py"] = model_code(name, columns, key)
    test, files = _test(draft, code)
    python[f"tests/test_{name}.py"] = test
    changes += [Change(path, formatted(root, path, text).encode()) for path, text in python.items()]
    changes += [Change(path, content) for path, content in files.items()]
    sql = bronze_sql(name, [column.name for column in columns] or None)
    changes.append(Change(f"{dbt_files.PROJECT}/models/bronze/{name}.sql", sql.encode()))
    listed_columns = described or [(one, "") for one in key]
    table = {"name": name, "description": code.doc, "columns": dbt_files.columns_of(listed_columns, [])}
    entry = {
        "name": name,
        "description": f"{title(name)} as they were loaded.",
        "columns": dbt_files.columns_of(listed_columns, key),
    }
    if not listed_columns:
        del table["columns"], entry["columns"]
    changes.append(dbt_files.add_source_table(root, table))
    changes.append(dbt_files.add_model(root, "bronze", entry))
    return changes + _secrets(root, source.secrets)


def _secrets(root: Path, secrets: Mapping[str, str]) -> list[Change]:
    """Return the change that adds secrets to `.env`, which git ignores."""
    if not secrets:
        return []
    file = root / ".env"
    before = file.read_bytes() if file.is_file() else None
    safe = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in secrets.items()}
    lines = "".join(f"{name}='{value}'\n" for name, value in safe.items())
    start = (before or b"").decode()
    text = start + ("" if not start or start.endswith("\n") else "\n") + lines
    return [Change(".env", text.encode(), before)]


def _test(draft: Draft, code: Code) -> tuple[str, Mapping[str, bytes]]:
    """Return the test of a workflow, and the files that it reads."""
    name, sample = draft.request.name, draft.sample
    about = f'"""{title(name)} load as the contract says; a second run adds nothing."""'
    if sample is None or draft.request.kind == "python":
        return _plain_test(draft, about), {}
    rows, key_of_rows = _recorded(draft, sample)
    stand = draft.source.stand_in(sample, rows)
    count = _distinct(sample, draft.key, rows)
    imports = imports_of(
        [
            *stand.imports,
            "import pytest",
            "from cascade.testing import TemporaryLakehouse",
            f"from workflows.ingestion import {name} as workflow",
        ]
    )
    twice = bool(draft.key) or not (draft.cursor and draft.request.kind in _BY_CURSOR)
    loop = "    for _ in range(2):\n        " if twice else "    "
    inner = "\n        " if twice else "\n    "
    body = (
        f"    {stand.patch.format(module='workflow')}\n"
        f"{loop}result = lakehouse.run(workflow.{name}{key_of_rows}){inner}assert result.success, result.errors\n"
        f'    assert lakehouse.query("select count(*) as n from raw.{name}") == [{{"n": {count}}}]\n'
    )
    says = "Loading the recorded rows twice keeps each of them once." if twice else "The recorded rows are loaded."
    test = (
        f"{about}\n\n{imports}\n\n{stand.top}\n\n\n"
        f"def test_{name}_are_loaded(lakehouse: TemporaryLakehouse, monkeypatch: pytest.MonkeyPatch) -> None:\n"
        f'    """{says}"""\n{body}'
    )
    return test, stand.files


def _plain_test(draft: Draft, about: str) -> str:
    """Return the test of a workflow whose source was not looked at."""
    name = draft.request.name
    if draft.request.kind == "python":
        slices = _slices(draft)
        partition = f', partitions="{key_of(slices.unit, midnight(slices.start))}"' if slices else ""
        imports = imports_of(
            [
                "from cascade.testing import TemporaryLakehouse",
                f"from workflows.ingestion.{name} import {name}",
            ]
        )
        return (
            f"{about}\n\n{imports}\n\n\n"
            f"def test_{name}_are_loaded(lakehouse: TemporaryLakehouse) -> None:\n"
            '    """Loading the rows twice keeps each of them once."""\n'
            "    for _ in range(2):\n"
            f"        result = lakehouse.run({name}{partition})\n        assert result.success, result.errors\n"
            f'    assert lakehouse.query("select count(*) as n from raw.{name}") == [{{"n": 2}}]\n'
        )
    imports = imports_of(["import dagster as dg", f"from workflows.ingestion.{name} import {name}"])
    return (
        f'"""The workflow of {name} is found."""\n\n{imports}\n\n\n'
        f"def test_{name}_has_its_table() -> None:\n"
        '    """Its source was not looked at when it was written: there are no recorded rows."""\n'
        f'    assert {name}.key == dg.AssetKey(["raw", {literal(name)}])\n'
    )


def _recorded(draft: Draft, sample: Sample) -> tuple[list[dict[str, Any]], str]:
    """Return the rows that a test has, and the argument of a run that loads them: those of one partition."""
    slices = _slices(draft)
    if slices is None:
        return sample.raw, ""
    moments, _ = cast_column(sample.rows[slices.column].slice(0, len(sample.raw)), pa.timestamp("us", "UTC"))
    keys = [moment and key_of(slices.unit, moment) for moment in moments.to_pylist()]
    first = next(key for key in keys if key)
    rows = [row for row, key in zip(sample.raw, keys, strict=True) if key == first]
    return rows, f', partitions="{first}"'


def _distinct(sample: Sample, key: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of the recorded rows stay: one for each key."""
    names = [column.source for column in sample.columns if column.name in key]
    return len({json_text([row.get(name) for name in names]) for row in rows}) if names else len(rows)


def create_workflow(settings: Settings, draft: Draft, *, dry_run: bool = False) -> Created:
    """Write the files of a workflow: all of them, or none.

    Args:
        settings: The project's settings.
        draft: What was found out about the source.
        dry_run: Whether nothing is written.
    """
    changes = plan_workflow(settings, draft)
    name = draft.request.name
    guesses = list(draft.guesses)
    if any(change.path.startswith("tests/data/") for change in changes):
        recorded = [change.path for change in changes if change.path.startswith("tests/data/")]
        guesses.append(f"Recorded rows of the source: {recorded[0]}. Look at them before you commit.")
    return create(
        settings.project_dir,
        changes,
        what="workflow",
        name=name,
        asset=f"raw/{name}",
        next_commands=("cascade run", f'cascade query "select * from bronze.{name} limit 10"'),
        guesses=guesses,
        dry_run=dry_run,
    )


def _workflow(name: str) -> str:
    return f"workflows/ingestion/{name}.py"


def _paths(name: str) -> list[str]:
    """The files that a workflow may need, none of which may be there."""
    return [
        _workflow(name),
        f"workflows/schemas/{name}.py",
        f"tests/test_{name}.py",
        f"tests/data/{name}.json",
        f"tests/data/{name}",
        f"{dbt_files.PROJECT}/models/bronze/{name}.sql",
    ]
