"""Cast a column of whatever came to the type of its target, and say which values cannot be."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import SchemaMismatchError
from cascade.iceberg.schema import storage_type
from cascade.ingestion.text import python_value, snake_case
from cascade.ingestion.values import CANNOT_CAST, BadValueError, convert, in_utc, kind_of

__all__ = ["Values", "cast_column", "chunked", "grown", "infer_type"]

#: The values of one column: as they came in Python, or as Arrow has them.
Values: TypeAlias = list[Any] | pa.ChunkedArray

_TIMESTAMP = pa.timestamp("us", "UTC")
_NONE = type(None)

# Exact Python types of all values of a column, and the Arrow type that takes them over unchanged. Anything
# else goes value by value: Arrow itself would cut 1.5 to 1, a datetime to its date, and read True as 1.
_NATURAL: tuple[tuple[frozenset[type], pa.DataType | None], ...] = (
    (frozenset(), pa.null()),
    (frozenset({int}), pa.int64()),
    (frozenset({float, int}), pa.float64()),
    (frozenset({str}), pa.string()),
    (frozenset({bool}), pa.bool_()),
    (frozenset({datetime.datetime}), _TIMESTAMP),  # a naive one is UTC
    (frozenset({datetime.date}), pa.date32()),
    (frozenset({datetime.time}), pa.time64("us")),
    (frozenset({bytes}), pa.binary()),
    (frozenset({decimal.Decimal, int}), None),  # Arrow finds precision and scale
)

# Kinds of Arrow types, and the kinds that a safe Arrow cast turns them into exactly. What is not here goes
# value by value.
_SAFE: dict[str, frozenset[str]] = {
    "int": frozenset({"int", "float", "string"}),
    "float": frozenset({"int"}),
    "decimal": frozenset({"decimal", "float", "int"}),
    "string": frozenset({"string", "float", "date"}),
    "binary": frozenset({"binary"}),
    "date": frozenset({"date", "timestamp", "string"}),
    "time": frozenset({"time"}),
}


def cast_column(values: Values, target: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """Cast the values of a column, exactly or not at all.

    Returns:
        The column, null where a value cannot be cast, and for each such position what is wrong with it.
    """
    try:
        natural = _arrow(values) if isinstance(values, list) else _plain(values)
        if natural is not None and (cast := _cast_arrow(natural, target)) is not None:
            return cast, {}
    except CANNOT_CAST:
        pass
    return _cast_each(values if isinstance(values, list) else values.to_pylist(), target)


def infer_type(values: Values) -> pa.DataType | None:
    """Return the type to store an undeclared column with; None when it has no value yet.

    Mappings, and values of more than one kind, become JSON text: a struct made from the first rows would
    lose the fields that come later.
    """
    if isinstance(values, list):
        present = [in_utc(plain) for value in values if (plain := python_value(value)) is not None]
        try:
            natural = _arrow(present)
        except CANNOT_CAST:
            natural = None
        if natural is not None and natural.type == _TIMESTAMP and any(value.tzinfo is None for value in present):
            return pa.timestamp("us")
        natural_type = pa.string() if natural is None else natural.type
    else:
        natural_type = pa.null() if values.null_count == len(values) else values.type
    if pa.types.is_null(natural_type):
        return None
    try:
        return storage_type(natural_type)
    except TypeError:
        return pa.string()


def grown(values: Values, target: pa.DataType, path: str) -> tuple[pa.DataType, list[str]]:
    """Find the fields that structs in the values have and the target has not.

    Args:
        values: The values of a column, or of a field of one.
        target: The type they are cast to.
        path: The name of the column; inner names follow after points.

    Returns:
        The target with the new fields that have a value, and the paths of all new fields: `place.city`.

    Raises:
        SchemaMismatchError: Two fields of the values fall on one field of the target.
    """
    kind = kind_of(target)
    if not isinstance(values, list):
        values = _plain(values)
        if kind_of(values.type) != kind:
            return target, []
    if kind in ("list", "map"):
        inner, more = grown(_items(values, kind), target.item_type if kind == "map" else target.value_type, path)
        if kind == "map":
            return pa.map_(target.key_type, target.item_field.with_type(inner)), more
        return pa.list_(target.value_field.with_type(inner)), more
    if kind != "struct":
        return target, []
    fields, sources, more = {field.name: field for field in target}, dict[str, str](), list[str]()
    by_snake = {snake_case(name): name for name in reversed(fields)}
    for source, members in _members(values):
        name = source if source in fields else by_snake.get(snake_case(source), source)
        if sources.setdefault(name, source) != source:
            raise SchemaMismatchError(
                f"`{path}.{sources[name]}` and `{path}.{source}` are both the field `{path}.{name}`.",
                fix="rename or leave out one of them before the rows are returned.",
            )
        if name in fields:
            inner, deeper = grown(members, fields[name].type, f"{path}.{source}")
            fields[name] = fields[name].with_type(inner)
            more += deeper
        else:
            more.append(f"{path}.{source}")
            if (inferred := infer_type(members)) is not None:
                fields[name] = pa.field(name, inferred)
    return pa.struct(list(fields.values())), more


def _items(values: Values, kind: str) -> Values:
    """The values inside lists, or those of maps."""
    if not isinstance(values, list):
        if kind == "list":
            return chunked(pc.list_flatten(values))
        return pa.chunked_array([chunk.items for chunk in values.chunks], values.type.item_type)
    if kind == "map":
        return list(chain.from_iterable(value.values() for value in values if isinstance(value, Mapping)))
    return list(chain.from_iterable(value for value in values if isinstance(value, list | tuple)))


def _members(values: Values) -> Iterator[tuple[str, Values]]:
    """The fields of structs: their names, and the values of each."""
    if isinstance(values, list):
        rows = [value for value in values if isinstance(value, Mapping)]
        for name in dict.fromkeys(chain.from_iterable(rows)):
            yield str(name), [row.get(name) for row in rows]
    else:
        for position, field in enumerate(values.type):
            yield field.name, chunked(pc.struct_field(values, [position]))


def chunked(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return an array as a chunked one."""
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries and extension types as what they stand for."""
    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_dictionary(values.type) or pa.types.is_run_end_encoded(values.type):
        return values.cast(values.type.value_type)
    return values


def _arrow(values: list[Any]) -> pa.ChunkedArray | None:
    """Take Python values over into Arrow. None when they are not all of one kind, or lists of one kind."""
    types = set(map(type, values)) - {_NONE}
    items = values
    if lists := types == {list}:
        items = list(chain.from_iterable(value for value in values if value is not None))
        types = set(map(type, items)) - {_NONE}
    # Arrow drops the zone of a datetime when PYARROW_IGNORE_TIMEZONE is set, and importing pandera sets it.
    zones = {item.tzinfo for item in items if item is not None} if types == {datetime.datetime} else set()
    if not zones <= {None, datetime.UTC}:
        return None
    for known, natural in _NATURAL:
        if types <= known:
            return chunked(pa.array(values, pa.list_(natural) if lists and natural is not None else natural))
    return None


def _cast_arrow(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    """Cast with Arrow. None when the pair is not known to be exact, or a value would change."""
    if values.type == target:
        return values
    source, kind = kind_of(values.type), kind_of(target)
    if source == "null":
        return pa.chunked_array([pa.nulls(len(values), target)], target)
    if (special := _SPECIAL.get((source, kind))) is not None:
        return special(values, target)
    return values.cast(target) if kind in _SAFE.get(source, ()) else None


def _timestamps(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Through UTC: what has no zone means UTC."""
    return values.cast(_TIMESTAMP, safe=values.type.unit != "ns").cast(target)


def _parse_timestamps(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    try:
        return values.cast(pa.timestamp("us")).cast(_TIMESTAMP).cast(target)
    except pa.ArrowInvalid:
        return values.cast(_TIMESTAMP).cast(target)


def _dates(values: pa.ChunkedArray, _: pa.DataType) -> pa.ChunkedArray | None:
    days = values.cast(pa.date32())
    return days if days.cast(values.type).equals(values) else None


def _decimals(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Arrow wants room for all digits of the type, whatever the values are."""
    return values.cast(pa.decimal128(38, target.scale)).cast(target)


def _parse_ints(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    hexadecimal = pc.any(pc.match_substring(values, "x", ignore_case=True)).as_py()
    return None if hexadecimal else values.cast(target)


def _floats(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    cast = values.cast(target)
    overflow = target == pa.float32() and pc.any(pc.and_(pc.is_inf(cast), pc.is_finite(values))).as_py()
    return None if overflow else cast


def _nested(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    same = storage_type(values.type) == target
    return values.cast(target, safe="[ns" not in str(values.type)) if same else None


# Pairs that Arrow casts exactly only with some care.
_SPECIAL: dict[tuple[str, str], Callable[[pa.ChunkedArray, pa.DataType], pa.ChunkedArray | None]] = {
    ("timestamp", "timestamp"): _timestamps,
    ("timestamp", "date"): _dates,
    ("string", "timestamp"): _parse_timestamps,
    ("string", "int"): _parse_ints,
    ("int", "decimal"): _decimals,
    ("float", "float"): _floats,
    ("list", "list"): _nested,
    ("struct", "struct"): _nested,
    ("map", "map"): _nested,
}


def _cast_each(values: Sequence[Any], target: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    converted: list[Any] = []
    problems: dict[int, str] = {}
    for position, value in enumerate(values):
        try:
            converted.append(convert(value, target))
        except BadValueError as error:
            problems[position] = str(error)
            converted.append(None)
    return chunked(pa.array(converted, target)), problems
