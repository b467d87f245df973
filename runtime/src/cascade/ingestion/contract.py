"""Check rows against the Pandera model that is their contract."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import ContractError, DefinitionError
from cascade.iceberg.schema import pandera_schema, schema_from_pandera
from cascade.ingestion.rows import Policy

__all__ = ["Contract"]

_LOG = logging.getLogger(__name__)

_POLICIES: dict[object, Policy] = {True: "strict", "filter": "drop_extra"}

_NOT_NULL = "must not be null"

#: Marks the column in which Pandera's polars API says whether a row passed.
_PASSED = "check_output"


class Contract:
    """The contract of a table: columns, what may happen to others, and the checks of rows.

    Types are not checked here. The rows that are checked are the rows that are written, cast to the schema
    that is derived from the model; so `coerce` changes nothing, and what would change rows is refused.

    Args:
        model: A `DataFrameModel` class or a `DataFrameSchema`, of the pandas or the polars API.

    Attributes:
        name: The name of the model.
        policy: What happens to columns that the model does not have, from `Config.strict`.
        schema: The Iceberg schema.
        unique: Groups of columns whose values are unique together; only the whole load can tell.

    Raises:
        DefinitionError: The model has columns without a type, or would change the rows.
    """

    def __init__(self, model: Any) -> None:
        self._pandera = pandera_schema(model)
        self._polars = type(self._pandera).__module__.startswith("pandera.api.polars")
        self.name = str(getattr(model, "__name__", None) or self._pandera.name or "DataFrameSchema")
        self.policy: Policy = _POLICIES.get(self._pandera.strict, "additive")
        self.schema = schema_from_pandera(model)
        together = self._pandera.unique or []
        self.unique: list[tuple[str, ...]] = [(n,) for n, column in self._pandera.columns.items() if column.unique]
        if together:
            self.unique.append((together,) if isinstance(together, str) else tuple(together))
        self._refuse_changes()

    def __repr__(self) -> str:
        return f"Contract({self.name})"

    def check(self, rows: pa.Table) -> dict[int, list[str]]:
        """Check all rows.

        Args:
            rows: Rows with all columns of the schema, cast to its types.

        Returns:
            The positions of the rows that break the contract, and how each does.

        Raises:
            ContractError: A check of all rows together failed, or a check cannot be run.
        """
        broken: dict[int, list[str]] = {}
        if rows.num_rows == 0:
            return broken
        for name, column in self._pandera.columns.items():
            values = rows.column(name)
            for passed, reason in _built_in(values, column, self._dtype(column)):
                for position in _positions(passed):
                    shown = "" if reason == _NOT_NULL else f"{_shown(values, position)} "
                    broken.setdefault(position, []).append(f"column `{name}`: {shown}{reason}")
        frame = self._frame(rows)
        for name, check in self._checks():
            for position in self._failures(frame, name, check, rows.num_rows):
                where, value = ("", "") if name is None else (f"column `{name}`: ", _shown(rows.column(name), position))
                value = value and f" for {value}"
                broken.setdefault(position, []).append(f"{where}check {_label(check)} failed{value}")
        return broken

    def _refuse_changes(self) -> None:
        changes = [f"`{name}` (default)" for name, c in self._pandera.columns.items() if c.default is not None]
        changes += [f"`{name}` (parser)" for name, c in self._pandera.columns.items() if getattr(c, "parsers", None)]
        changes += ["all columns (parser)"] if getattr(self._pandera, "parsers", None) else []
        if changes:
            raise DefinitionError(
                f"The model would change the rows that it checks: {', '.join(changes)}.",
                where=f"model `{self.name}`",
                fix="change rows in the fetch function or in a transform; a contract only checks them.",
            )

    def _checks(self) -> Iterator[tuple[str | None, Any]]:
        for name, column in self._pandera.columns.items():
            yield from ((name, check) for check in column.checks)
        yield from ((None, check) for check in self._pandera.checks)

    def _dtype(self, column: Any) -> Any:
        return column.dtype if self._pandera.dtype is None else self._pandera.dtype

    def _frame(self, rows: pa.Table) -> Any:
        """The columns that checks look at, with the types that the model gives them."""
        checks = list(self._checks())
        whole = any(name is None or getattr(check, "groupby", None) is not None for name, check in checks)
        names = [n for n in self._pandera.columns if whole or any(n == name for name, _ in checks)]
        dtypes = {name: getattr(self._dtype(self._pandera.columns[name]), "type", None) for name in names}
        return _polars_frame(rows.select(names), dtypes) if self._polars else _pandas_frame(rows.select(names), dtypes)

    def _failures(self, frame: Any, name: str | None, check: Any, height: int) -> list[int]:
        """The positions of the rows that fail a check."""
        try:
            result = check(frame, name)
            output = result.check_output.collect() if self._polars else result.check_output
            passed = _polars_passed(output) if self._polars else _pandas_passed(output, frame, height)
        except Exception as error:  # the function is the user's
            raise ContractError(
                f"Check {_label(check)} cannot be run: {type(error).__name__}: {error}",
                where=self._where(name),
                fix="make the check work for every row, missing values included.",
            ) from error
        if len(passed) != height and not pc.all(passed).as_py() and not check.raise_warning:
            raise ContractError(
                f"Check {_label(check)} failed for the {height:,} rows together.",
                where=self._where(name),
                fix="look at the fetched rows; a check that returns a value per row names them.",
            )
        failed = _positions(passed)
        if failed and check.raise_warning:
            _LOG.warning(
                "Check %s failed, as a warning (%s, %s rows).",
                _label(check),
                self._where(name),
                f"{height:,}",
            )
        return [] if check.raise_warning or len(passed) != height else failed

    def _where(self, name: str | None) -> str:
        return f"model `{self.name}`" + ("" if name is None else f", column `{name}`")


def _built_in(values: pa.ChunkedArray, column: Any, dtype: Any) -> Iterator[tuple[pa.ChunkedArray, str]]:
    """What the declaration of a column says beside its checks: which rows pass, and the rule as text."""
    if column.required and not column.nullable:  # an optional column that is absent is null in every row
        yield (
            pc.invert(values.is_null(nan_is_null=pa.types.is_floating(values.type))),
            _NOT_NULL,
        )  # as Pandera has it
    width = getattr(dtype, "bit_width", None)
    if width is not None and not pa.types.is_floating(values.type):
        signed = getattr(dtype, "signed", True)
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
        limits = pc.min_max(values)
        if limits["min"].is_valid and (limits["min"].as_py() < low or limits["max"].as_py() > high):
            wide = values.cast(pa.decimal128(38, 0))
            fits = pc.and_(pc.greater_equal(wide, _whole(low)), pc.less_equal(wide, _whole(high)))
            yield fits, f"does not fit `{dtype}`"
    categories = getattr(dtype, "categories", None)
    if categories is not None:
        known = pc.is_in(values, value_set=pa.array(list(categories), values.type))
        yield pc.or_(known, values.is_null()), f"is not one of {list(categories)}"


def _whole(number: int) -> pa.Scalar:
    return pa.scalar(Decimal(number), pa.decimal128(38, 0))


def _positions(passed: pa.ChunkedArray) -> list[int]:
    """Where it is false; null passes."""
    positions: list[int] = pc.indices_nonzero(pc.invert(passed).fill_null(False)).to_pylist()
    return positions


def _label(check: Any) -> str:
    return str(check.error or check.name or check)


def _shown(values: pa.ChunkedArray, position: int) -> str:
    text = repr(values[position].as_py())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _pandas_frame(rows: pa.Table, dtypes: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.DataFrame({name: _pandas_series(rows.column(name), dtypes[name]) for name in rows.column_names})


def _pandas_series(values: pa.ChunkedArray, dtype: Any) -> Any:
    """Convert a column to the dtype of the model, or to the one that can say null beside it."""
    import pandas as pd

    if isinstance(dtype, pd.ArrowDtype):
        return pd.Series(pd.arrays.ArrowExtensionArray(values))
    kind, nullable = getattr(dtype, "kind", "O"), isinstance(dtype, pd.api.extensions.ExtensionDtype)
    if pa.types.is_integer(values.type) and (nullable or values.null_count):
        dtype = pd.Int64Dtype()
    if kind == "b" and values.null_count:
        dtype = pd.BooleanDtype()
    if pa.types.is_decimal(values.type):
        return values.to_pandas()
    if isinstance(dtype, pd.CategoricalDtype):
        return values.to_pandas().astype(dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return values.to_pandas().dt.tz_convert(dtype.tz)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype):
        return values.to_pandas(types_mapper=lambda _: dtype)
    return values.to_pandas(date_as_object=True)


def _pandas_passed(output: Any, frame: Any, height: int) -> pa.Array:
    """One truth per row, or a single one for a check of all rows together."""
    import pandas as pd

    if isinstance(output, pd.DataFrame):
        output = output.all(axis="columns")
    if not isinstance(output, pd.Series):
        return pa.array([bool(output)])
    if output.index.equals(frame.index):
        return pa.array(output.astype("boolean"), from_pandas=True)
    if not output.index.isin(frame.index).all():  # grouped: the rows are not known any more
        return pa.array([bool(output.all())])
    # Missing values were left out of the check; they pass.
    return pa.array(output.astype("boolean").reindex(frame.index, fill_value=True), from_pandas=True)


def _polars_frame(rows: pa.Table, dtypes: dict[str, Any]) -> Any:
    import polars as pl

    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    kinds = (pl.Categorical, pl.Enum, pl.Array)
    same: dict[str, Any] = {name: dtype for name, dtype in dtypes.items() if any(dtype == kind for kind in kinds)}
    return frame.cast(same, strict=False).lazy()  # type: ignore[arg-type]  # the model's own dtypes


def _polars_passed(output: Any) -> pa.Array:
    passed: pa.Array = output.get_column(_PASSED).to_arrow()
    return passed
