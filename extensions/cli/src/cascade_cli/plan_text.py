"""What people read of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cascade.errors import count

if TYPE_CHECKING:
    from cascade_operations.planned import ColumnChange, Plan, PlannedAsset

__all__ = ["plan_lines"]

# Names in a line; further ones are counted.
_SHOWN = 3
_SIGNS = {"add": "+", "drop": "-", "retype": "~", "refuse": "!"}


def plan_lines(plan: Plan, *, short: bool = False) -> Iterator[str]:
    """Return a plan as people read it.

    Args:
        plan: The plan.
        short: Whether checks are counted, and only the first assets are shown.
    """
    limit = 12 if short else len(plan.assets)
    if not plan.assets:
        yield "Nothing to do: all partitions are loaded, and nothing has changed for any model."
    else:
        yield f"Would run {count(len(plan.assets), 'asset')}{_took(plan.seconds)}:"
    # What breaks is never among the assets that are only counted.
    shown = sorted(range(len(plan.assets)), key=lambda i: not plan.assets[i].breaking)[:limit]
    for position in sorted(shown):
        yield from _asset_lines(plan.assets[position], short=short)
    if len(plan.assets) > limit:
        yield f"  … and {len(plan.assets) - limit} more; `cascade plan` shows them"
    checks = [check.blocking for asset in plan.assets for check in asset.checks]
    if checks:
        yield f"Checks: {len(checks)}, {sum(checks)} of them blocking"
    if plan.up_to_date:
        yield f"Left alone: {_some(plan.up_to_date)}: every partition is loaded"
    if plan.left_out:
        since = f"{max(plan.left_out.values()):%Y-%m-%d %H:%M:%S} UTC"
        yield f"Left alone: {_some(tuple(plan.left_out))}: nothing has changed since {since}"
    if plan.orphans:
        yield f"Orphans: nothing of the project makes {_some(plan.orphans)}; `cascade table drop --orphans` drops them"
    for name in plan.conflicts:
        yield f"Branch {name} has changed tables that are loaded from the start: it cannot be promoted any more."
    if plan.breaking:
        yield f"BREAKING: {count(plan.breaking, 'asset')}; see the lines with BREAKING."


def _asset_lines(asset: PlannedAsset, *, short: bool) -> Iterator[str]:
    yield f"  {asset.asset}{_took(asset.seconds)}"
    if asset.missing:
        yield f"      {count(asset.missing, 'partition')}: {_some(asset.partitions)}; {asset.why[0]}"
    else:
        yield f"      {_some(asset.why)}"
    if asset.problem:
        word = "BREAKING" if asset.columns_known else "columns unknown"
        yield f"      {word}: {asset.problem}"
    # In short, what breaks comes first.
    changes = sorted(asset.columns, key=lambda change: not change.breaking)[:_SHOWN] if short else asset.columns
    for change in changes:
        yield f"      {_column_text(change)}"
    if len(asset.columns) > len(changes):
        yield f"      and {count(len(asset.columns) - len(changes), 'more column')}"
    if asset.checks and not short:
        blocking = [check.name for check in asset.checks if check.blocking]
        warning = [check.name for check in asset.checks if not check.blocking]
        words = [f"{', '.join(blocking)}"] if blocking else []
        words += [f"only warning: {', '.join(warning)}"] if warning else []
        yield f"      checks: {'; '.join(words)}"


def _column_text(change: ColumnChange) -> str:
    kind = change.after if change.before is None else change.before if change.after is None else None
    text = f"{_SIGNS[change.action]} {change.column} {kind or f'{change.before} -> {change.after}'}"
    if change.note:
        text += f" ({change.note})"
    if change.breaking:
        text += "  BREAKING" + (f" for {', '.join(change.consumers)}" if change.consumers else "")
        text += f"; from it come {_some(change.reaches)}" if change.reaches else ""
    return text


def _some(words: tuple[str, ...]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _took(seconds: float | None) -> str:
    return f"  ({seconds:.1f} s last time)" if seconds else ""
