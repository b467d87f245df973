"""Python and SQL as text: literals that fit in a line, models, workflows, tests."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cascade_create.names import class_name, quoted, title
from cascade_create.sample import Column

__all__ = ["Code", "Raw", "bronze_sql", "imports_of", "literal", "model_code", "module_code"]

WIDTH = 110


class Raw(str):
    """Python that a literal holds as it is: a name, a call."""


@dataclass(frozen=True)
class Code:
    """What fetches the rows of a source.

    Attributes:
        doc: The docstring of the function.
        imports: Lines that import what the rest uses.
        top: What stands between the imports and the function.
        body: The body of the function.
        about: The docstring of the module.
    """

    about: str
    doc: str
    body: str
    imports: Sequence[str] = ()
    top: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def literal(value: Any, indent: int = 0, room: int = 0) -> str:
    """Return a value as Python writes it, in one line where it fits.

    Args:
        value: Text, numbers, lists and dicts of them, and `Raw`.
        indent: How far the line is indented that it stands in.
        room: Characters that stand before and behind it in that line.
    """
    flat = _flat(value)
    if indent + room + width(flat) <= WIDTH:
        return flat
    inner, outer = " " * (indent + 4), " " * indent
    if isinstance(value, dict):
        entries = [f"{_flat(key)}: {literal(item, indent + 4, width(_flat(key)) + 3)}" for key, item in value.items()]
        return "{\n" + "".join(f"{inner}{entry},\n" for entry in entries) + outer + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"{inner}{literal(item, indent + 4, 1)},\n" for item in value) + outer + "]"
    if isinstance(value, Raw) or not isinstance(value, str):
        return flat
    parts = [f"{inner}{_text(part)}\n" for part in _cut(value, WIDTH - indent - 8)]
    return "(\n" + "".join(parts) + outer + ")"


def _flat(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """Return a text in the quotes that ruff prefers."""
    plain = all(character.isprintable() for character in value)
    shown = json.dumps(value, ensure_ascii=not plain)
    return repr(value) if '"' in value and "'" not in value and plain and "\\" not in value else shown


def _cut(value: str, room: int) -> list[str]:
    parts, line = [], ""
    for character in value:
        if width(_text(line + character)) > room:
            parts.append(line)
            line = ""
        line += character
    return [*parts, line]


def width(text: str) -> int:
    """Return how wide a text is on the screen: two columns for a character of Chinese, or an emoji."""
    return sum(2 if unicodedata.east_asian_width(character) in "FW" else 1 for character in text)


def imports_of(lines: Iterable[str]) -> str:
    """Return imports in the order that ruff wants: the standard library, packages, the project's own."""
    blocks: tuple[list[str], list[str], list[str]] = ([], [], [])
    names: dict[str, set[str]] = {}
    for line in lines:
        module, _, name = line.partition(" import ") if line.startswith("from ") else (line, "", "")
        names.setdefault(module, set()).update(name.split(", ") if name else ())
    for module, found in names.items():
        top = module.split()[1].split(".")[0]
        line = f"{module} import {', '.join(sorted(found))}" if found else module
        blocks[0 if top in _STANDARD else 2 if top in ("workflows", "definitions") else 1].append(line)
    ordered = (sorted(block, key=lambda line: (line.startswith("from"), line.split()[1].lower())) for block in blocks)
    return "\n\n".join("\n".join(block) for block in ordered if block)


_STANDARD = ("collections", "csv", "datetime", "itertools", "json", "os", "pathlib", "typing", "urllib")


def module_code(code: Code, name: str, *, key: Sequence[str], model: str | None, options: Mapping[str, Any]) -> str:
    """Return the file of a workflow."""
    given: dict[str, Any] = {}
    if key:
        given["unique_key"] = key[0] if len(key) == 1 else list(key)
    given |= {"partitions": "none", **({"validation_schema": Raw(model)} if model else {}), **code.options, **options}
    lines = "".join(f"    {option}={literal(value, 4, len(option) + 2)},\n" for option, value in given.items())
    unit = str(options.get("partitions", "")).partition("(")[0]
    own = [f"from cascade.ingestion import cascade_ingestion{', ' + unit if unit else ''}"]
    own += [f"from workflows.schemas.{name} import {model}"] if model else []
    top = f"\n\n{code.top.strip()}" if code.top else ""
    takes = "partition_date: str" if "partition_column" in options else ""
    return (
        f'"""{code.about}"""\n\n{imports_of([*code.imports, *own])}{top}\n\n\n'
        f"@cascade_ingestion(\n{lines})\ndef {name}({takes}):\n"
        f'    """{code.doc}"""\n{code.body}\n'
    )


def model_code(name: str, columns: Sequence[Column], key: Sequence[str]) -> str:
    """Return the file of a Pandera model."""
    imports, lines = {"import pandera.polars as pa"}, []
    for column in columns:
        kind, needed = _annotation(column.type)
        imports |= needed
        given: dict[str, Any] = {}
        attribute = _attribute(column.name)
        if attribute != column.name:
            given["alias"] = column.name
        if column.name not in key:
            given["nullable"] = True
        if column.source != column.name:
            given["description"] = _one_line(column.source)
        head = f"    {attribute}: {kind}"
        lines.append(head + (" = " + _call("pa.Field", given, width(head) + 3) if given else ""))
    return (
        f'"""The contract of {name}. The columns of the table are derived from it."""\n\n{imports_of(sorted(imports))}'
        f'\n\n\nclass {class_name(name)}(pa.DataFrameModel):\n    """One row of {name}."""\n\n'
        + "\n".join(lines)
        + "\n"
    )


def _call(function: str, given: Mapping[str, Any], room: int) -> str:
    flat = ", ".join(f"{option}={_flat(value)}" for option, value in given.items())
    if room + len(function) + 2 + width(flat) <= WIDTH:
        return f"{function}({flat})"
    inner = 8
    return (
        f"{function}(\n"
        + "".join(
            f"{' ' * inner}{option}={literal(value, inner, len(option) + 2)},\n" for option, value in given.items()
        )
        + "    )"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()) or text


def _attribute(column: str) -> str:
    """Return the attribute of a model for a column: Pandera keeps some names to itself, and Python others."""
    import keyword

    import pandera.polars as pandera

    plain = column.lstrip("_")
    taken = hasattr(pandera.DataFrameModel, plain) or keyword.iskeyword(plain) or not plain.isidentifier()
    taken = taken or plain in ("l", "pa", "pl", "bool", "int", "float", "str", "bytes")
    return f"{plain}_column" if taken and f"{plain}_column".isidentifier() else plain


_SIMPLE = {
    pa.bool_(): "bool",
    pa.int64(): "int",
    pa.float64(): "float",
    pa.string(): "str",
}
_POLARS = {
    pa.int32(): "pl.Int32",
    pa.float32(): "pl.Float32",
    pa.binary(): "pl.Binary",
    pa.date32(): "pl.Date",
    pa.time64("us"): "pl.Time",
}


def _annotation(kind: pa.DataType) -> tuple[str, set[str]]:
    """Return how a model declares a column of an Arrow type, and what it has to import for that."""
    if kind in _SIMPLE:
        return _SIMPLE[kind], set()
    polars, typing = "import polars as pl", "from typing import Annotated"
    if kind in _POLARS:
        return _POLARS[kind], {polars}
    if pa.types.is_timestamp(kind):
        zone = "None" if kind.tz is None else '"UTC"'
        return f'Annotated[pl.Datetime, "us", {zone}]', {polars, typing}
    if pa.types.is_decimal(kind):
        return f"Annotated[pl.Decimal, {kind.precision}, {kind.scale}]", {polars, typing}
    if pa.types.is_list(kind) or pa.types.is_struct(kind):
        polars_type, _, inner = _polars(kind)[:-1].partition("(")
        return f"Annotated[{polars_type}, {inner}]", {polars, typing}
    return "str", set()


_INNER = {
    pa.bool_(): "pl.Boolean",
    pa.int64(): "pl.Int64",
    pa.float64(): "pl.Float64",
    pa.string(): "pl.String",
    **_POLARS,
}


def _polars(kind: pa.DataType) -> str:
    """Return a type of polars as Python writes it."""
    if kind in _INNER:
        return _INNER[kind]
    if pa.types.is_timestamp(kind):
        return 'pl.Datetime("us")' if kind.tz is None else 'pl.Datetime("us", "UTC")'
    if pa.types.is_decimal(kind):
        return f"pl.Decimal({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind):
        return f"pl.List({_polars(kind.value_type)})"
    if pa.types.is_struct(kind):
        return "pl.Struct([" + ", ".join(f"pl.Field({_text(one.name)}, {_polars(one.type)})" for one in kind) + "])"
    return "pl.String"


def bronze_sql(name: str, columns: Sequence[str] | None) -> str:
    """Return the model of the bronze layer: the columns of the table, one row per row."""
    names = [*(columns or ()), "_cascade_ingested_at"] if columns else ["*"]
    selected = ",\n".join(f"    {quoted(column) if column != '*' else column}" for column in names)
    source = f"{{{{ source('raw', '{name}') }}}}"
    return f"-- {title(name)} as they were loaded, nothing left out.\nselect\n{selected}\nfrom {source}\n"
