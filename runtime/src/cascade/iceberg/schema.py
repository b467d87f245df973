"""Derive Iceberg schemas from Arrow schemas, and compare types."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg import types as t
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema, assign_fresh_schema_ids

from cascade.errors import SchemaMismatchError

__all__ = ["arrow_schema", "grows", "iceberg_type", "schema_from_arrow", "storage_type"]

# Arrow types without parameters, and what Iceberg keeps them as: the smallest type that holds every value.
_HELD_BY: tuple[tuple[t.IcebergType, list[pa.DataType]], ...] = (
    (t.BooleanType(), [pa.bool_()]),
    (t.IntegerType(), [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16()]),
    (t.LongType(), [pa.int64(), pa.uint32()]),
    (t.DecimalType(20, 0), [pa.uint64()]),
    (t.FloatType(), [pa.float16(), pa.float32()]),
    (t.DoubleType(), [pa.float64()]),
    (t.StringType(), [pa.string(), pa.large_string(), pa.string_view()]),
    (t.BinaryType(), [pa.binary(), pa.large_binary(), pa.binary_view()]),
    (t.DateType(), [pa.date32(), pa.date64()]),
    (t.TimeType(), [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
)
_PRIMITIVES = {arrow_type: iceberg_type for iceberg_type, arrow_types in _HELD_BY for arrow_type in arrow_types}

_WIDER = {(pa.int32(), pa.int64()), (pa.float32(), pa.float64())}

_CANNOT_CONVERT = (TypeError, ValueError, KeyError, pa.ArrowException)


def schema_from_arrow(schema: pa.Schema) -> Schema:
    """Derive an Iceberg schema from an Arrow one: fresh ids, every column optional.

    Nanoseconds become microseconds, unsigned 64-bit integers `decimal(20, 0)`, dictionaries their values.

    Raises:
        SchemaMismatchError: Columns that Iceberg has no type for, or that have none yet (all values null).
    """
    fields: list[t.NestedField] = []
    problems: list[str] = []
    for field in schema:
        doc = (field.metadata or {}).get(b"doc")
        try:
            column_type = iceberg_type(field.type)
        except _CANNOT_CONVERT:
            problems.append(f"`{field.name}` ({field.type})")
            continue
        fields.append(t.NestedField(-1, field.name, column_type, required=False, doc=doc.decode() if doc else None))
    if problems:
        raise SchemaMismatchError(
            f"Iceberg has no type for these columns: {', '.join(problems)}.",
            where=f"columns {schema.names}",
            fix="convert them before they are returned, or declare them; a column of type null has no value "
            "yet: leave it out until it has one.",
        )
    return assign_fresh_schema_ids(Schema(*fields))


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema that rows are cast to before they are written, field ids included."""
    return pa.schema([_small_field(field) for field in schema_to_pyarrow(schema)])


def storage_type(arrow_type: pa.DataType) -> pa.DataType:
    """Return the Arrow type that a column of this Arrow type has once it is in an Iceberg table.

    Raises:
        TypeError: Iceberg has no such type.
    """
    return _small(schema_to_pyarrow(iceberg_type(arrow_type), include_field_ids=False))


def grows(arrow_type: pa.DataType, held: pa.DataType) -> bool:
    """Return whether a column must change before it holds values of a type: Iceberg widens it, or adds fields."""
    if pa.types.is_decimal(arrow_type) and pa.types.is_decimal(held):
        return bool(arrow_type.scale == held.scale and arrow_type.precision > held.precision)
    if pa.types.is_struct(arrow_type) and pa.types.is_struct(held):
        fields = {f.name: f.type for f in held}
        return any(f.name not in fields or grows(f.type, fields[f.name]) for f in arrow_type)
    inner = ([kind.field(i).type for i in range(kind.num_fields)] for kind in (arrow_type, held))
    return (held, arrow_type) in _WIDER or any(map(grows, *inner))


def iceberg_type(arrow_type: pa.DataType) -> t.IcebergType:  # noqa: PLR0911  one line per kind of type
    """Return the Iceberg type that holds every value of an Arrow type. Nested ids are not assigned.

    Raises:
        TypeError: Iceberg has no such type.
    """
    if (primitive := _PRIMITIVES.get(arrow_type)) is not None:
        return primitive
    if pa.types.is_timestamp(arrow_type):
        return t.TimestampType() if arrow_type.tz is None else t.TimestamptzType()
    if pa.types.is_decimal(arrow_type) and 0 <= arrow_type.scale <= arrow_type.precision <= 38:
        return t.DecimalType(arrow_type.precision, arrow_type.scale)
    if pa.types.is_dictionary(arrow_type) or pa.types.is_run_end_encoded(arrow_type):
        return iceberg_type(arrow_type.value_type)
    if pa.types.is_map(arrow_type):
        key, value = iceberg_type(arrow_type.key_type), iceberg_type(arrow_type.item_type)
        return t.MapType(-1, key, -1, value, value_required=False)
    if pa.types.is_struct(arrow_type) and arrow_type.num_fields:
        return t.StructType(*(t.NestedField(-1, f.name, iceberg_type(f.type), required=False) for f in arrow_type))
    if pa.types.is_fixed_size_binary(arrow_type):
        return t.BinaryType()
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    if any(is_list(arrow_type) for is_list in lists):
        return t.ListType(-1, iceberg_type(arrow_type.value_type), element_required=False)
    raise TypeError(f"Iceberg has no type for {arrow_type}")


def _small_field(field: pa.Field) -> pa.Field:
    return field.with_type(_small(field.type))


# PyIceberg asks for large strings and lists. Parquet knows no difference; plain ones have half the offsets.
def _small(arrow_type: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(arrow_type):
        return pa.list_(_small_field(arrow_type.value_field))
    if pa.types.is_struct(arrow_type):
        return pa.struct([_small_field(field) for field in arrow_type])
    if pa.types.is_map(arrow_type):
        return pa.map_(_small_field(arrow_type.key_field), _small_field(arrow_type.item_field))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(arrow_type, arrow_type)
