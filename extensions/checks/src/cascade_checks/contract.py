"""Check rows against the Pandera model that is their contract."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cascade.errors import ContractError, DefinitionError
from cascade.ingestion.options import Policy
from cascade.ingestion.text import shown
from cascade_checks.schema import pandera_schema, schema_from_pandera

__all__ = ["PanderaContract"]

_LOG = logging.getLogger(__name__)

_POLICIES: dict[object, Policy] = {True: "strict", "filter": "drop_extra"}
_NOT_NULL = "must not be null"


class PanderaContract:
    """The contract of a table: columns, what may happen to others, and the checks of rows.

    Types are not checked here. The rows that are checked are the rows that are written, cast to the schema
    that is derived from the model; so `coerce` changes nothing, and what would change rows is refused.

    Args:
        model: A `DataFrameModel` class or a `DataFrameSchema`, of the pandas or the polars API.

    Raises:
        DefinitionError: The model has columns without a type, or would change the rows.
    """

    def __init__(self, model: Any) -> None:
        pandera = pandera_schema(model)
        self._polars = type(pandera).__module__.startswith("pandera.api.polars")
        self._columns: dict[str, Any] = pandera.columns
        self._dtypes = {n: c.dtype if pandera.dtype is None else pandera.dtype for n, c in self._columns.items()}
        own = [(n, check) for n, c in self._columns.items() for check in c.checks]
        self._checks = [*own, *((None, check) for check in pandera.checks)]
        self.name = str(getattr(model, "__name__", None) or pandera.name or "DataFrameSchema")
        #: What happens to columns that the model does not have, from `Config.strict`.
        self.policy: Policy = _POLICIES.get(pandera.strict, "additive")
        self.schema = schema_from_pandera(model)
        self._together: set[int] = set()  # checks that gave one answer for all rows
        #: The columns that a source has to bring.
        self.required = {n for n, c in self._columns.items() if c.required}
        #: Groups of columns whose values are unique together; only the whole load can tell.
        self.unique: list[tuple[str, ...]] = [(n,) for n, c in self._columns.items() if c.unique]
        if together := pandera.unique:
            self.unique.append((together,) if isinstance(together, str) else tuple(together))
        changes = [f"`{n}` (default)" for n, c in self._columns.items() if c.default is not None]
        changes += [f"`{n}` (parser)" for n, c in self._columns.items() if getattr(c, "parsers", None)]
        changes += ["all columns (parser)"] if getattr(pandera, "parsers", None) else []
        if changes:
            raise DefinitionError(
                f"The model would change the rows that it checks: {', '.join(changes)}.",
                where=f"model `{self.name}`",
                fix="change rows in the fetch function or in a transform; a contract only checks them.",
            )

    def check(self, rows: pa.Table) -> dict[int, list[str]]:
        """Check rows one by one, see `Contract.check`. Checks of all rows together are left to `check_together`."""
        broken: dict[int, list[str]] = {}
        if rows.num_rows == 0:
            return broken
        for name, column in self._columns.items():
            values = rows[name]
            for passed, reason in _built_in(values, column, self._dtypes[name]):
                for position in _positions(passed):
                    value = "" if reason == _NOT_NULL else f"{shown(values[position].as_py())} "
                    broken.setdefault(position, []).append(f"column `{name}`: {value}{reason}")
        frame = self._frame(rows)
        for number, (where, check) in enumerate(self._checks):
            if number in self._together:
                continue
            passed = self._passed(frame, where, check)
            if len(passed) != rows.num_rows or (rows.num_rows == 1 and self._is_together(rows, where, check)):
                self._together.add(number)
                continue
            failed = _positions(passed)
            if check.raise_warning:
                self._warn(check, where, len(failed))
                continue
            for position in failed:
                reason = f"check {_label(check)} failed"
                if where is not None:
                    reason = f"column `{where}`: {reason} for {shown(rows[where][position].as_py())}"
                broken.setdefault(position, []).append(reason)
        return broken

    def _is_together(self, row: pa.Table, where: str | None, check: Any) -> bool:
        """Whether a check gives one answer for all rows: one row alone does not tell, two do."""
        return len(self._passed(self._frame(pa.concat_tables([row, row])), where, check)) == 1

    def check_together(self, read: Callable[[], pa.Table], *, nothing_came: bool) -> None:
        """Run the checks that give one answer for all rows, such as `is_unique` or a number of rows.

        They need all rows of the load in memory at once, and only models that have such checks pay for that. Without
        rows it is not known yet which checks these are. See `Contract.check_together`.
        """
        if not self._together and not (nothing_came and self._checks):
            return
        rows = read()
        frame = self._frame(rows)
        for number, (where, check) in enumerate(self._checks):
            if not nothing_came and number not in self._together:
                continue
            try:
                passed = self._passed(frame, where, check)
            except ContractError:
                if nothing_came:
                    continue  # a check of single rows need not work for none
                raise
            if len(passed) and not pc.all(passed).as_py():
                if check.raise_warning:
                    self._warn(check, where, rows.num_rows)
                    continue
                raise ContractError(
                    f"Check {_label(check)} failed for the {rows.num_rows:,} rows together; nothing was written.",
                    where=self._where(where),
                    fix="look at the fetched rows; a check that returns a value per row names them.",
                )

    def _frame(self, rows: pa.Table) -> Any:
        """The columns that checks look at, with the types that the model gives them."""
        whole = any(name is None or getattr(check, "groupby", None) is not None for name, check in self._checks)
        checked = {name for name, _ in self._checks}
        dtypes = {n: getattr(dtype, "type", None) for n, dtype in self._dtypes.items() if whole or n in checked}
        if self._polars:
            return _polars_frame(rows, dtypes)
        import pandas as pd

        return pd.DataFrame({name: _pandas_series(rows[name], dtype) for name, dtype in dtypes.items()})

    def _passed(self, frame: Any, name: str | None, check: Any) -> pa.ChunkedArray | pa.Array:
        """Return what a check says: a truth for each row, or one for all of them."""
        try:
            output = check(frame, name).check_output
            if self._polars:
                return output.collect().get_column("check_output").to_arrow()
            return _pandas_passed(output, frame)
        except Exception as error:  # the function is the user's
            raise ContractError(
                f"Check {_label(check)} cannot be run: {type(error).__name__}: {error}",
                where=self._where(name),
                fix="make the check work for every row, missing values included.",
            ) from error

    def _warn(self, check: Any, name: str | None, failed: int) -> None:
        if failed:
            _LOG.warning(
                "Check %s failed, as a warning (%s, %s rows).", _label(check), self._where(name), f"{failed:,}"
            )

    def _where(self, name: str | None) -> str:
        return f"model `{self.name}`" + ("" if name is None else f", column `{name}`")


def _built_in(values: pa.ChunkedArray, column: Any, dtype: Any) -> Iterator[tuple[pa.ChunkedArray, str]]:
    """What the declaration of a column says beside its checks: which rows pass, and the rule as text."""
    if column.required and not column.nullable:  # an optional column that a row lacks is null in it
        nan_is_null = pa.types.is_floating(values.type)  # as Pandera has it
        yield pc.invert(values.is_null(nan_is_null=nan_is_null)), _NOT_NULL
    width = getattr(dtype, "bit_width", None)
    if width is not None and not pa.types.is_floating(values.type):
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if getattr(dtype, "signed", True) else (0, 2**width - 1)
        limits = pc.min_max(values).as_py()
        if limits["min"] is not None and (limits["min"] < low or limits["max"] > high):
            fits = [value is None or low <= value <= high for value in values.to_pylist()]
            yield pa.chunked_array([fits]), f"does not fit `{dtype}`"
    categories = getattr(dtype, "categories", None)
    if categories is not None:
        known = pc.is_in(values, value_set=pa.array(list(categories), values.type))
        yield pc.or_(known, values.is_null()), f"is not one of {list(categories)}"


def _positions(passed: pa.ChunkedArray) -> list[int]:
    """Where it is false; null passes."""
    positions: list[int] = pc.indices_nonzero(pc.invert(passed).fill_null(False)).to_pylist()
    return positions


def _label(check: Any) -> str:
    return str(check.error or check.name or check)


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


def _pandas_passed(output: Any, frame: Any) -> pa.Array:
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

    kinds = (pl.Categorical, pl.Enum, pl.Array)  # Arrow has them as what they are made of
    own: Any = {name: dtype for name, dtype in dtypes.items() if any(dtype == kind for kind in kinds)}
    return pl.DataFrame(rows.select(list(dtypes))).cast(own, strict=False).lazy()
