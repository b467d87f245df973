"""Cast a column of whatever came to the type of its target, and say which values cannot be."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import SchemaMismatchError
from cascade.iceberg.schema import grows, storage_type
from cascade.ingestion.text import python_value, snake_case
from cascade.ingestion.values import CANNOT_CAST, BadValueError, convert, in_utc, kind_of

__all__ = [
    "Values",
    "cast_column",
    "chunked",
    "compact",
    "grown",
    "infer_type",
    "python_values",
    "strange",
    "together",
    "widened",
]

#: The values of one column: as they came in Python, or as Arrow has them.
Values: TypeAlias = list[Any] | pa.ChunkedArray

_TIMESTAMP, _NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")
_OFFSET = re.compile(r"\d(Z|[+-]\d\d:?\d\d)$")
_NONE = type(None)

# Exact Python types of all values of a column, and the Arrow type that takes them over unchanged. Anything
# else goes value by value: Arrow itself would cut 1.5 to 1, a datetime to its date, and read True as 1.
_NATURAL: tuple[tuple[frozenset[type], pa.DataType | None], ...] = (
    (frozenset(), pa.null()),
    (frozenset({int}), pa.int64()),
    (frozenset({float, int}), pa.float64()),
    (frozenset({str}), pa.string()),
    (frozenset({bool}), pa.bool_()),
    (frozenset({datetime.datetime}), _TIMESTAMP),
    (frozenset({datetime.date}), pa.date32()),
    (frozenset({datetime.time}), pa.time64("us")),
    (frozenset({bytes}), pa.binary()),
    (frozenset({decimal.Decimal, int}), None),  # Arrow finds precision and scale
)
_UNKNOWN = object()
# The types whose values Arrow gives back as they came.
_ALIKE = frozenset().union(*(kinds for kinds, _ in _NATURAL if len(kinds) == 1))

# Iceberg's most digits; those after the point that undeclared decimals get, as with dlt and BigQuery; those of a long.
_PRECISION, _SCALE, _LONG_DIGITS = 38, 9, 19

# Extension types of Arrow whose values are known, and what holds them.
_EXTENSIONS = {"arrow.bool8": pa.bool_(), "arrow.json": pa.string(), "arrow.uuid": pa.string()}

# Kinds of Arrow types, and the kinds that a safe Arrow cast turns them into exactly. What is not here goes
# value by value.
_SAFE: dict[str, frozenset[str]] = {
    "int": frozenset({"int", "float", "string"}),
    "float": frozenset({"int"}),
    "decimal": frozenset({"decimal", "float", "int"}),
    "string": frozenset({"string", "date"}),
    "binary": frozenset({"binary"}),
    "date": frozenset({"date", "timestamp", "string"}),
}


def cast_column(values: Values, target: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """Cast the values of a column, exactly or not at all.

    Returns:
        The column, null where a value cannot be cast, and for each such position what is wrong with it.
    """
    try:
        natural = _arrow(values) if isinstance(values, list) else _plain(values)
        if natural is not None and (cast := _cast_arrow(natural, target)) is not None and _in_years(cast):
            return cast, {}
    except CANNOT_CAST:
        pass
    return _cast_each(values if isinstance(values, list) else python_values(values), target)


class _FarTime:
    """A date or a time of a year that Python does not have, and most databases neither."""

    def __init__(self, value: Any) -> None:
        self._described = f"{getattr(value, 'value', '?')} {value.type}"

    def __repr__(self) -> str:
        return f"{self._described}, not in the years 1 to 9999,"


# The days and the microseconds from 1970 to the first and the last moment of these years.
_YEARS = {"date": (-719_162, 2_932_896), "timestamp": (-62_135_596_800_000_000, 253_402_300_799_999_999)}


def _in_years(values: pa.ChunkedArray) -> bool:
    if (years := _YEARS.get(kind_of(values.type))) is None:
        return True
    low, high = (limit.value for limit in pc.min_max(values).values())
    return low is None or (years[0] <= low and high <= years[1])


def python_values(values: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column in Python."""
    try:
        found: list[Any] = values.to_pylist()
    except (OverflowError, ValueError):
        found = [_python(value) for value in values]
    return found


def _python(value: Any) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return _FarTime(value)


def compact(values: list[Any]) -> Values:
    """Take values over into Arrow where it gives back the very same ones: there they need little memory."""
    try:
        natural = _arrow(values, lossless=True)
    except CANNOT_CAST:
        natural = None
    return values if natural is None else natural


def together(parts: Sequence[Values]) -> Values:
    """Return the values of a column that came in parts as one; nulls join any kind."""
    arrow = [part for part in parts if not isinstance(part, list)]
    kinds = {part.type for part in arrow} - {pa.null()}
    if len(kinds) > 1 or len(arrow) < len(parts):
        return list(chain.from_iterable(part if isinstance(part, list) else python_values(part) for part in parts))
    kind = kinds.pop() if kinds else pa.null()
    chunks = chain.from_iterable(part.chunks if part.type == kind else [pa.nulls(len(part), kind)] for part in arrow)
    return chunked(pa.chunked_array(chunks, kind).combine_chunks())


def infer_type(values: Values) -> pa.DataType | None:
    """Return the type to store an undeclared column with; None when it has no value yet.

    Mappings, and values of more than one kind, become JSON text: a struct made from the first rows would
    lose the fields that come later.
    """
    natural = _natural_type(values)
    if pa.types.is_null(natural):
        return None
    try:
        return storage_type(_roomy(natural) if isinstance(values, list) else natural)
    except TypeError:
        return pa.string()


def widened(values: Values, target: pa.DataType) -> pa.DataType:
    """Return the type that an undeclared column has after these values: wider, where Iceberg can widen it."""
    if target not in (pa.int32(), pa.float32()) and not pa.types.is_decimal(target):
        return target
    natural = _natural_type(values)
    if not pa.types.is_decimal(target):
        return natural if grows(natural, target) else target
    before_point = natural.precision - natural.scale if pa.types.is_decimal(natural) else 0
    before_point = _LONG_DIGITS if natural == pa.int64() else before_point
    return pa.decimal128(min(_PRECISION, max(target.precision, before_point + target.scale)), target.scale)


def _natural_type(values: Values) -> pa.DataType:
    """The type that Arrow has for the values; text when there is none, null without values."""
    if not isinstance(values, list):
        kind = pa.null() if values.null_count == len(values) else values.type
        return _EXTENSIONS[kind.extension_name] if isinstance(kind, pa.BaseExtensionType) else kind
    try:
        present = [in_utc(plain) for value in values if (plain := python_value(value)) is not None]
        natural = _arrow(present)
    except CANNOT_CAST:
        return pa.string()
    if natural is not None and natural.type == _TIMESTAMP and any(value.tzinfo is None for value in present):
        return _NAIVE
    return pa.string() if natural is None else natural.type


def _roomy(arrow_type: pa.DataType) -> pa.DataType:
    """Decimals with more digits than the first rows need: Iceberg cannot give them more digits after the point."""
    if pa.types.is_list(arrow_type):
        return pa.list_(_roomy(arrow_type.value_type))
    if not pa.types.is_decimal128(arrow_type):
        return arrow_type
    room = _PRECISION - (arrow_type.precision - arrow_type.scale)
    return pa.decimal128(_PRECISION, max(arrow_type.scale, min(_SCALE, room)))


def strange(arrow_type: pa.DataType) -> pa.DataType | None:
    """Return the extension type in a type, if any, that only its own library can read: Arrow shows its storage."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return None if arrow_type.extension_name in _EXTENSIONS else arrow_type
    inner = (strange(arrow_type.field(i).type) for i in range(arrow_type.num_fields))
    return next(filter(None, inner), None)


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
        folded = name.lower()  # SQL knows no case
        if folded in sources:
            raise SchemaMismatchError(
                f"`{path}.{sources[folded]}` and `{path}.{source}` are both the field `{path}.{name}`.",
                fix="rename or leave out one of them before the rows are returned.",
            )
        sources[folded] = source
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
        return list(chain.from_iterable(value.values() for value in _mappings(values)))
    return list(chain.from_iterable(value for value in values if isinstance(value, list | tuple)))


def _mappings(values: list[Any]) -> list[Mapping[Any, Any]]:
    return [plain for value in values if isinstance(plain := python_value(value), Mapping)]


def _members(values: Values) -> Iterator[tuple[str, Values]]:
    """The fields of structs: their names, and the values of each."""
    if isinstance(values, list):
        rows = _mappings(values)
        for name in dict.fromkeys(chain.from_iterable(rows)):
            yield str(name), [row.get(name) for row in rows]
    else:
        for position, field in enumerate(values.type):
            yield field.name, chunked(pc.struct_field(values, [position]))


def chunked(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return an array as a chunked one."""
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace dictionaries and extension types by the values that they encode."""
    if values.type == pa.bool8():
        return values.cast(pa.bool_())
    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if pa.types.is_run_end_encoded(values.type):
        return pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], values.type.value_type)
    if pa.types.is_dictionary(values.type):
        return values.cast(values.type.value_type)
    return values


def _arrow(values: list[Any], *, lossless: bool = False) -> pa.ChunkedArray | None:
    """Take Python values over into Arrow. None when they are not all of one kind, or lists of one kind.

    Lossless: None, too, when Arrow would not give back the same values, of the same types.
    """
    types = set(map(type, values)) - {_NONE}
    if lossless and not (len(types) < 2 and types <= _ALIKE):
        return None
    items = values
    if lists := types == {list}:
        items = list(chain.from_iterable(value for value in values if value is not None))
        types = set(map(type, items)) - {_NONE}
    natural = next((natural for known, natural in _NATURAL if types <= known), _UNKNOWN)
    # Arrow drops the offset of a time; that of a datetime when PYARROW_IGNORE_TIMEZONE is set, which pandera does.
    if types and types <= {datetime.datetime, datetime.time}:
        zones = {item.tzinfo for item in items if item is not None}
        if zones == {None}:
            natural = _NAIVE if natural == _TIMESTAMP else natural
        elif natural != _TIMESTAMP or not zones <= {datetime.UTC, *(() if lossless else (None,))}:
            return None
    if natural is _UNKNOWN:
        return None
    return chunked(pa.array(values, pa.list_(natural) if lists and natural is not None else natural))


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
    """Through UTC: what has no zone means UTC. Nanoseconds are cut off, before 1970 too."""
    if values.type.unit == "ns":
        values = pc.floor_temporal(values.cast(pa.timestamp("ns", "UTC")), unit="microsecond")
    return values.cast(_TIMESTAMP).cast(target)


def _parse_timestamps(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """All with an offset from UTC, or all without one: as the first."""
    zoned = _OFFSET.search(pc.first(values).as_py())
    return values.cast(_TIMESTAMP if zoned else _NAIVE).cast(_TIMESTAMP).cast(target)


def _dates(values: pa.ChunkedArray, _: pa.DataType) -> pa.ChunkedArray | None:
    days = values.cast(pa.date32())
    return days if days.cast(values.type).equals(values) else None


def _parse_numbers(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    """Text with hexadecimal digits or leading zeros is not a number."""
    odd = pc.any(pc.match_substring_regex(values, r"x|X|^[+-]?0[0-9]")).as_py()
    return None if odd else values.cast(target)


def _floats(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    cast = values.cast(target)
    overflow = target == pa.float32() and pc.any(pc.and_(pc.is_inf(cast), pc.is_finite(values))).as_py()
    return None if overflow else cast


def _nested(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    same = storage_type(values.type) == target and "[ns" not in str(values.type)
    return values.cast(target) if same else None


# Pairs that Arrow casts exactly only with some care.
_SPECIAL: dict[tuple[str, str], Callable[[pa.ChunkedArray, pa.DataType], pa.ChunkedArray | None]] = {
    ("timestamp", "timestamp"): _timestamps,
    ("timestamp", "date"): _dates,
    ("string", "timestamp"): _parse_timestamps,
    ("string", "int"): _parse_numbers,
    ("string", "float"): _parse_numbers,
    ("time", "time"): lambda values, target: values.cast(target, safe=False),  # nanoseconds are cut off
    # Arrow needs enough digits for every value of the type, whatever the values are.
    ("int", "decimal"): lambda values, target: values.cast(pa.decimal128(38, target.scale)).cast(target),
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
