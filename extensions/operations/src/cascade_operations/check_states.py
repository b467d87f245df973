"""Whether the checks of a table passed: their last results in Dagster's event log."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cascade.config import Settings
from cascade.names import BRANCH_METADATA, RUN_PROPERTY
from cascade_operations.events import Listener, NotLoaded
from cascade_operations.owners import Owner
from cascade_operations.table_records import CheckState

if TYPE_CHECKING:
    import dagster as dg
    from pyiceberg.table import Table

__all__ = ["check_states"]

# Results of a check that are looked at for the one on the current rows: the log mixes all branches.
_LOOKED_AT = 25


def check_states(
    settings: Settings, table: Table, name: str, owner: Owner, *, tell: Listener
) -> tuple[CheckState, ...]:
    """Return the last result of each check on a table; those that block a promotion first.

    Dagster is imported only where the table has checks and the project has records of Dagster.

    Args:
        settings: The project's settings.
        table: The table.
        name: Its name, `namespace.table`.
        owner: What makes it, with the names of its checks.
        tell: Told when Dagster's records cannot be read; the states are `unknown` then.
    """
    checks = [CheckState(one, blocking=True) for one in owner.checks]
    checks += [CheckState(one, blocking=False) for one in owner.warnings]
    recorded = "DAGSTER_HOME" in os.environ or settings.dagster_url or (settings.project_dir / ".dagster").exists()
    if not checks or not recorded:
        return tuple(checks)
    import dagster as dg

    from cascade.framework.instance import open_instance

    asset = dg.AssetKey(name.split("."))
    try:
        with open_instance(settings) as instance:
            records = instance.event_log_storage
            keys = [dg.AssetCheckKey(asset, one.check) for one in checks]
            latest = records.get_latest_asset_check_execution_by_key(keys)  # one question, and most are answered
            return tuple(
                (_state(one, table, [latest[key]]) if key in latest else one)
                or _state(one, table, records.get_asset_check_execution_history(key, _LOOKED_AT), past=True)
                or one
                for one, key in zip(checks, keys, strict=True)
            )
    except Exception as error:  # noqa: BLE001 a read-only folder, a server that is down: the rest is known without it
        reason = str(error).partition("\n")[0]
        tell(NotLoaded(f"results of checks, from Dagster's records: {reason}"))
        return tuple(CheckState(one.check, one.blocking, "unknown") for one in checks)


def _state(check: CheckState, table: Table, records: Sequence[Any], *, past: bool = False) -> CheckState | None:
    """Return what records of a check say of the current rows or, with `past`, of any; `None` when they say nothing."""
    import dagster as dg

    # A check that is only planned has no result yet.
    results = [
        (record.event, record.evaluation)
        for record in records
        if record.event is not None and isinstance(record.evaluation, dg.AssetCheckEvaluation)
    ]
    current = next((one for one in results if _is_current(one[1], one[0].run_id, table)), None)
    if not current and not (past and results):
        return None
    event, said = current or results[0]
    branch, error = said.metadata.get(BRANCH_METADATA), dg.AssetCheckSeverity.ERROR
    return CheckState(
        check.check,
        check.blocking,
        "passed" if said.passed else "failed" if check.blocking and said.severity is error else "warned",
        # Of the result: the record is as old as the plan of its run.
        dt.datetime.fromtimestamp(event.timestamp, dt.UTC),
        None if branch is None else str(branch.value),
        current is not None,
    )


def _is_current(said: dg.AssetCheckEvaluation, run_id: str, table: Table) -> bool:
    """Say whether a result is about the current rows: it names their snapshot, or none and its run wrote them."""
    from cascade.catalog import rows_of
    from cascade.evidence import is_about

    head = table.current_snapshot()
    about = {is_about(said.metadata, one) for one in (rows_of(table), head.snapshot_id if head else None)}
    if about != {None}:
        return True in about
    return (
        head is not None and head.summary is not None and head.summary.additional_properties.get(RUN_PROPERTY) == run_id
    )
