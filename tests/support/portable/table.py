"""Hold the table of differences against an engine: an example that should fail fails, a remedy gives the same value."""

from typing import Any

from cascade_project.portability.differences import Difference, differences
from support.portable.running import DuckDB, Trino

__all__ = ["ENTRIES", "REMEDIES", "attempt", "check_entry"]

ENTRIES = {f"{i}_{(e.functions or (e.rule or e.engine,))[0]}": e for i, e in enumerate(differences())}
#: The remedies by the name of their entry, with Jinja.
REMEDIES = {name: entry.good for name, entry in ENTRIES.items() if entry.good}


def attempt(engine: DuckDB | Trino, statement: str) -> list[tuple[Any, ...]] | None:
    """Run a statement; `None` when the engine refuses it."""
    try:
        return engine.run(statement)
    except Exception:  # noqa: BLE001  # each engine has errors of its own
        return None


def check_entry(engine: DuckDB | Trino, entry: Difference, remedy: str) -> None:
    """Compare what an entry says with what an engine does."""
    bad = attempt(engine, entry.bad)
    if entry.engine == engine.dialect:
        assert bad is None, f"{engine.dialect} runs it: {entry.bad}"
    elif entry.engine != "both" and not entry.fails:
        assert bad is not None, f"{engine.dialect} refuses it: {entry.bad}"
    if not entry.good:
        return
    good = engine.run(remedy)
    if entry.values and entry.engine not in (engine.dialect, "both"):
        assert repr(good) == repr(bad)
