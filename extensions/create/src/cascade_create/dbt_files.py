"""The YAML files of a dbt project: entries are added, and comments, order and quotes of the rest stay."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cascade.errors import UsageError
from cascade_create.changes import Change
from cascade_create.names import is_reserved

__all__ = [
    "PROJECT",
    "add_model",
    "add_source_table",
    "columns_of",
    "model_columns",
    "model_files",
    "require_dbt",
    "source_tables",
]

#: Where the dbt project lies, from the root of the project.
PROJECT = "transforms/dbt"
_MODELS = f"{PROJECT}/models"


def add_source_table(root: Path, table: Mapping[str, Any]) -> Change:
    """Return the change that adds a table to the source `raw`.

    Args:
        root: Root of the project.
        table: The entry: `name`, `description`, `columns`.

    Raises:
        UsageError: The table is there already, or a file is no YAML.
    """
    for file in _yaml_files(root):
        document = _read(file)
        for source in document.get("sources") or () if isinstance(document, dict) else ():
            if source.get("name") != "raw":
                continue
            tables = source.setdefault("tables", [])
            if any(one.get("name") == table["name"] for one in tables):
                raise UsageError(
                    f"The dbt source raw.{table['name']} is there already. Nothing was written.",
                    where=file.relative_to(root).as_posix(),
                    fix="take another name, or remove it first.",
                )
            tables.append(dict(table))
            return _changed(root, file, document)
    source = {"name": "raw", "schema": "raw", "description": "What the ingestion workflows load, unchanged."}
    fresh = {"version": 2, "sources": [{**source, "tables": [dict(table)]}]}
    return _new(root, f"{_MODELS}/sources/raw.yml", fresh)


def add_model(root: Path, layer: str, model: Mapping[str, Any]) -> Change:
    """Return the change that adds a model to the file of its layer, such as `bronze/bronze.yml`.

    Args:
        root: Root of the project.
        layer: The folder of the model.
        model: The entry: `name`, `description`, `columns`.
    """
    path = f"{_MODELS}/{layer}/{layer}.yml"
    if not (root / path).is_file():
        return _new(root, path, {"version": 2, "models": [dict(model)]})
    document = _read(root / path)
    if not isinstance(document, dict):
        raise _not_yaml(root / path, "it is not a mapping")
    entries = document.get("models") or []
    entries.append(dict(model))
    document["models"] = entries
    return _changed(root, root / path, document)


def source_tables(root: Path) -> dict[str, list[str]]:
    """Return the tables of all dbt sources, `source.table`, with the columns that are written down."""
    found: dict[str, list[str]] = {}
    for file in _yaml_files(root):
        document = _read(file)
        for source in document.get("sources") or () if isinstance(document, dict) else ():
            for table in source.get("tables") or ():
                columns = [column["name"] for column in table.get("columns") or ()]
                found[f"{source['name']}.{table['name']}"] = columns
    return found


def model_files(root: Path) -> dict[str, Path]:
    """Return the models of the dbt project: name to file."""
    return {file.stem: file for file in sorted((root / _MODELS).rglob("*.sql"))}


def model_columns(root: Path, name: str) -> list[str]:
    """Return the columns of a model that are written down; empty when none are."""
    for file in _yaml_files(root):
        document = _read(file)
        for model in document.get("models") or () if isinstance(document, dict) else ():
            if model.get("name") == name:
                return [column["name"] for column in model.get("columns") or ()]
    return []


def require_dbt(root: Path) -> None:
    """Raise when there is no dbt project."""
    if not (root / PROJECT / "dbt_project.yml").is_file():
        raise UsageError(
            "The project has no dbt project, where models in SQL go. Nothing was written.",
            where=f"{root / PROJECT}",
            fix="take transforms/dbt over from a new project: copier copy … elsewhere",
        )


def _yaml_files(root: Path) -> list[Path]:
    return sorted(file for file in (root / _MODELS).rglob("*") if file.suffix in (".yml", ".yaml"))


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # long lines stay as they are
    return yaml


def _read(file: Path) -> Any:
    yaml = _yaml()
    try:
        return yaml.load(file.read_text("utf-8")) or {}
    except Exception as error:  # noqa: BLE001  of the parser, or of what it is given
        raise _not_yaml(file, str(error).splitlines()[0]) from None


def _not_yaml(file: Path, why: str) -> UsageError:
    return UsageError(
        f"A file of the dbt project cannot be read as YAML: {why}. Nothing was written.",
        where=str(file),
        fix="correct it; `cascade validate` says more.",
    )


def _new(root: Path, path: str, document: Mapping[str, Any]) -> Change:
    if (root / path).exists():
        raise UsageError(
            "The file is there already, and has no source `raw`. Nothing was written.",
            where=path,
            fix="add the source `raw` to it: - name: raw",
        )
    return Change(
        path,
        _text(document, (2, 4, 2)).replace("\nsources:", "\n\nsources:").replace("\nmodels:", "\n\nmodels:").encode(),
    )


def _changed(root: Path, file: Path, document: Any) -> Change:
    before = file.read_bytes()
    indent = _indent(before.decode())
    return Change(file.relative_to(root).as_posix(), _text(document, indent).encode(), before)


def _text(document: Any, indent: tuple[int, int, int]) -> str:
    yaml = _yaml()
    mapping, sequence, offset = indent
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _indent(text: str) -> tuple[int, int, int]:
    """Return how a file indents: lists at the level of their key, or below it."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for before, line in pairwise(lines):
        if before.rstrip().endswith(":") and line.lstrip().startswith("- "):
            deeper = len(line) - len(line.lstrip()) - (len(before) - len(before.lstrip(" -")))
            return (2, 4, 2) if deeper >= 2 else (2, 2, 0)
    return (2, 4, 2)


def columns_of(names: Sequence[tuple[str, str]], key: Sequence[str]) -> list[dict[str, Any]]:
    """Return the entries of columns: name, description where there is one, and tests for the key."""
    entries: list[dict[str, Any]] = []
    for name, description in names:
        entry: dict[str, Any] = {"name": name}
        if description:
            entry["description"] = description
        if is_reserved(name):  # the tests of dbt write the name into SQL
            entry["quote"] = True
        if name in key:
            entry["data_tests"] = ["not_null", "unique"] if len(key) == 1 else ["not_null"]
        entries.append(entry)
    return entries
