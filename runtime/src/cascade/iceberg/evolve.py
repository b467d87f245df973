"""Change the columns of an Iceberg table to those that are wanted, without touching its rows."""

from __future__ import annotations

from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.table import Transaction
from pyiceberg.types import IcebergType, StructType

from cascade.duck.sql import alike
from cascade.errors import SchemaMismatchError

__all__ = ["evolve", "require_distinct"]


def evolve(
    transaction: Transaction, table: str, current: Schema, schema: Schema, *, exact: bool = False, drop: bool = False
) -> bool:
    """Add the columns of a schema that the table lacks, and widen types where Iceberg allows it.

    Args:
        transaction: The transaction that the changes become part of.
        table: `namespace.table`, for messages.
        current: The columns that the table has in the transaction.
        schema: The wanted columns.
        exact: Whether the columns that the schema lacks are removed, and those whose type it changes are replaced.
        drop: Whether the columns that the schema lacks are removed.

    Returns:
        Whether anything changed.

    Raises:
        SchemaMismatchError: A type cannot become the wanted one, or two names differ only in case.
    """
    wanted = {f.name: f.field_type for f in schema.fields}
    have = {f.name: f.field_type for f in current.fields}
    same = {name for name, kind in have.items() if name in wanted and _same(kind, wanted[name])}
    gone = have.keys() - (same if exact else wanted.keys() if drop else have.keys())
    if gone:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in gone:
                update.delete_column(name)
                del have[name]
    optional = {f.name for f in schema.fields if not f.required}
    if loose := [f.name for f in current.fields if f.required and f.name in optional - gone]:
        with transaction.update_schema() as update:
            for name in loose:
                update.make_column_optional(name)
    if same >= wanted.keys():
        return bool(gone or loose)
    # A column whose own type already holds the declared one stays as it is, such as int in a long.
    wider = {("int", "long"), ("float", "double")}
    fields = [f for f in schema.fields if (str(f.field_type), str(have.get(f.name))) not in wider]
    try:
        with transaction.update_schema() as update:
            update.union_by_name(Schema(*fields))
    except Exception as error:
        raise SchemaMismatchError(
            f"The table's columns cannot become those that are declared: {error}",
            where=f"table {table}",
            fix="declare the type that the table has, or let `cascade schema plan` say how to change the table.",
        ) from error
    require_distinct(table, transaction.table_metadata.schema().as_struct())
    return True


def require_distinct(table: str, columns: StructType) -> None:
    """Refuse names that differ only in case, of columns or of the fields of a struct, and empty ones.

    Raises:
        SchemaMismatchError: There are such names; all are named.
    """
    nested = (f.field_type for f in index_by_id(columns).values())
    structs = [columns, *(kind for kind in nested if isinstance(kind, StructType))]
    if nameless := [str(struct) for struct in structs if not all(f.name for f in struct.fields)]:
        what = f"A column, or a field inside one, has no name: {', '.join(nameless)}."
        raise SchemaMismatchError(what, where=f"table {table}", fix="give it one.")
    if same := "; ".join(filter(None, (alike(f.name for f in struct.fields) for struct in structs))):
        raise SchemaMismatchError(
            f"SQL, which knows no capital letters, cannot tell these columns apart: {same}.",
            where=f"table {table}",
            fix="give one of them another name, or write it as the table has it.",
        )


def _same(one: IcebergType, other: IcebergType) -> bool:
    """Compare types without the ids that nested ones carry."""
    if one.is_primitive or other.is_primitive:
        return one == other
    return bool(schema_to_pyarrow(one, include_field_ids=False) == schema_to_pyarrow(other, include_field_ids=False))
