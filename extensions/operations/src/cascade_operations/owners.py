"""Who makes each table: what the definitions say, noted in a file, so that lists of tables need not load them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cascade.config import Settings
from cascade.names import QUARANTINE, TABLE_METADATA
from cascade_operations.events import Listener, Loading, ignore

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["ORPHAN", "Owner", "files_stamp", "find_owners", "note_owners", "orphans", "owner_of", "owners_of"]

#: Nothing of the project makes the table.
ORPHAN = "orphan"
_FILE = "owners.json"
# Files that definitions are made of, and folders without any.
_SUFFIXES = (".py", ".sql", ".yml", ".yaml", ".csv", ".toml", ".lock", ".env")
_SKIPPED = ("target", "logs", "node_modules", "__pycache__")


@dataclass(frozen=True)
class Owner:
    """What makes a table.

    Attributes:
        kind: `workflow`, `model`, `seed`, `snapshot` or `quarantine`; `orphan`: nothing of the project makes it;
            `unknown`: a file of the project cannot be used, and might.
        checks: Names of the checks on it; those that block a promotion.
        warnings: Names of the checks that only warn.
        readers: Assets that read it, as `namespace/table`.
    """

    kind: str
    checks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


def owners_of(definitions: dg.Definitions) -> dict[str, Owner]:
    """Return what makes each table that the definitions of a project make, by `namespace.table`."""
    import dagster as dg

    assets = [one for one in definitions.assets or () if isinstance(one, dg.AssetsDefinition)]
    readers: dict[dg.AssetKey, set[str]] = defaultdict(set)
    checks: dict[dg.AssetKey, dict[bool, set[str]]] = defaultdict(lambda: {True: set(), False: set()})
    for asset in assets:
        for key in asset.keys if asset.is_executable else ():
            for read in asset.asset_deps[key]:
                readers[read].add(key.to_user_string())
    for one in (*assets, *(definitions.asset_checks or ())):
        for spec in one.check_specs if isinstance(one, dg.AssetsDefinition) else ():
            checks[spec.asset_key][spec.blocking].add(spec.name)
    return {
        ".".join(spec.key.path): Owner(
            _kind(spec),
            tuple(sorted(checks[spec.key][True])),
            tuple(sorted(checks[spec.key][False])),
            tuple(sorted(name for name in readers[spec.key] if not name.startswith("cascade/"))),
        )
        for asset in assets
        if asset.is_executable
        for spec in asset.specs
        if len(spec.key.path) == 2 and spec.key.path[0] != "cascade"  # namespace and table
    }


def _kind(spec: dg.AssetSpec) -> str:
    if "dbt" not in spec.kinds or TABLE_METADATA in spec.metadata:
        return "workflow"
    return str(spec.metadata.get("dagster_dbt/unique_id", "model")).partition(".")[0]


def owner_of(owners: Mapping[str, Owner], table: str) -> Owner:
    """Return what makes a table of a branch, given what `find_owners` returned."""
    if table in owners:
        return owners[table]
    if table.startswith(f"{QUARANTINE}."):
        return Owner("quarantine")
    return owners.get("", Owner(ORPHAN))


def orphans(owners: Mapping[str, Owner], tables: Iterable[str]) -> tuple[str, ...]:
    """Return the tables that nothing of the project makes, such as those of deleted models and workflows, by name.

    Args:
        owners: What makes tables: of `owners_of` or `find_owners`.
        tables: Names of the tables that a branch has.
    """
    return tuple(sorted(table for table in tables if owner_of(owners, table).kind == ORPHAN))


def find_owners(settings: Settings, *, tell: Listener = ignore) -> dict[str, Owner]:
    """Return what makes each table; as it was noted, unless a file of the project has changed since.

    When a file cannot be used, the owner "" stands for all tables that nothing is known of.

    Args:
        settings: The project's settings.
        tell: Told when workflows and models have to be loaded.
    """
    stamp = files_stamp(settings)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = json.loads((settings.data_path / _FILE).read_text("utf-8"))
        if noted["stamp"] == stamp:
            return {
                table: Owner(one["kind"], *(tuple(one[part]) for part in ("checks", "warnings", "readers")))
                for table, one in noted["owners"].items()
            }
    tell(Loading("workflows and models"))
    from cascade.framework.definitions import build_definitions

    return note_owners(settings, stamp, build_definitions(settings))


def note_owners(settings: Settings, stamp: str, definitions: dg.Definitions) -> dict[str, Owner]:
    """Note who makes each table, for `find_owners`, and return it.

    Args:
        settings: The project's settings.
        stamp: What `files_stamp` returned before the definitions were loaded.
        definitions: The project's definitions.
    """
    from cascade.framework.definitions import problems_of

    owners = owners_of(definitions)
    if problems_of(definitions).broken:
        return {**owners, "": Owner("unknown")}
    # Who may only read the project loads its definitions each time.
    with contextlib.suppress(OSError):
        settings.data_path.mkdir(parents=True, exist_ok=True)
        fresh = settings.data_path / f"{_FILE}.new"
        fresh.write_text(json.dumps({"stamp": stamp, "owners": {t: asdict(one) for t, one in owners.items()}}))
        fresh.replace(settings.data_path / _FILE)
    return owners


def files_stamp(settings: Settings) -> str:
    """Name the state of the files that a project's definitions are made of: paths, sizes and times, not contents."""
    seen = hashlib.sha256(f"{sys.version} {settings.engine}".encode())
    roots = dict.fromkeys((settings.project_dir, settings.workflows_path, settings.dbt_path))
    for folder, inner, names in (each for root in roots for each in os.walk(root)):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(names):
            if name.endswith(_SUFFIXES):
                with contextlib.suppress(OSError):  # a link to nothing
                    stat = os.stat(os.path.join(folder, name))
                    seen.update(f"{folder}/{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()
