"""dagster-dbt as it is without dbt: loading the definitions would import all of dbt, which takes a second.

dagster-dbt makes assets of a manifest without dbt, and starts it as a process of its own. Other code that uses
dagster-dbt finds the version of dbt that is installed, and what needs dbt itself imports it then.
"""

import contextlib
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging import version

__all__ = [
    "DBT_VERSION",
    "DagsterDbtTranslator",
    "DagsterDbtTranslatorSettings",
    "DbtCliResource",
    "dbt_assets",
    "without_dbt",
]

#: The version of dbt that is installed.
DBT_VERSION = version.parse(metadata.version("dbt-core"))

_blocked = not sys.modules.keys() & {"dagster_dbt", "dbt.version"}
if _blocked:
    sys.modules["dbt.version"] = None  # type: ignore[assignment]  # importing it says that it is not there
try:
    from dagster_dbt import (
        DagsterDbtTranslator,
        DagsterDbtTranslatorSettings,
        DbtCliResource,
        compat,
        dbt_assets,
        utils,
    )
    from dagster_dbt.core import resource
finally:
    if _blocked:
        del sys.modules["dbt.version"]


def _say(installed: Any) -> None:
    for module in (compat, utils, resource):
        setattr(module, "DBT_PYTHON_VERSION", installed)  # noqa: B010  # typed as what it was at its import


@contextlib.contextmanager
def without_dbt() -> Iterator[None]:
    """Let dagster-dbt take dbt for not installed: it then finds all models of a manifest by itself."""
    _say(None)
    try:
        yield
    finally:
        _say(DBT_VERSION)


_say(DBT_VERSION)
