"""What dbt needs to write through Trino: a target of its profile, the branch's catalog, macros."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cascade_servers.names import TRINO_CATALOG_VARIABLE
from cascade_servers.settings import TrinoSettings

if TYPE_CHECKING:
    from cascade.catalog import BranchingCatalog
    from cascade.config import Settings

__all__ = ["TARGET"]

_PASSWORD_VARIABLE = "DBT_ENV_SECRET_TRINO_PASSWORD"  # dbt keeps what begins so out of its logs


class _TrinoTarget:
    """See `cascade_dbt.targets.DbtTarget`."""

    macros = (Path(__file__).parent / "trino" / "macros",)
    keeps_tables = True

    def target(self, settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
        own = settings.plugin("trino", TrinoSettings)
        url = urlsplit(own.url)
        target = {
            "type": "trino",
            "method": "none",
            "host": url.hostname,
            "port": url.port or (443 if url.scheme == "https" else 80),
            "http_scheme": url.scheme,
            "user": own.user,
            # No catalog of the server: `trino/macros/models.sql` puts that of the run's branch in its place.
            "database": "cascade_branch",
            "schema": "main",
            "threads": 4,
            "cert": str(settings.ca_path) if settings.ca_path else True,
            "timezone": "UTC",
            "retries": 5,
        }
        if own.password is None:
            return target, {}
        del target["http_scheme"]
        login = {"method": "ldap", "password": f"{{{{ env_var('{_PASSWORD_VARIABLE}') }}}}"}
        return target | login, {_PASSWORD_VARIABLE: own.password.get_secret_value()}

    def prepare(self, catalog: BranchingCatalog, branch: str, namespaces: Iterable[str]) -> dict[str, str]:
        from cascade_servers.trino import ensure_catalog

        # Not left to Trino: it creates a namespace in the state of the branch that it saw last, which may be gone.
        reference = catalog.open(branch)
        for name in sorted(set(namespaces) - {".".join(known) for known in reference.list_namespaces()}):
            reference.create_namespace_if_not_exists(name)
        return {TRINO_CATALOG_VARIABLE: ensure_catalog(catalog.settings, branch)}


#: What the entry point names.
TARGET = _TrinoTarget()
