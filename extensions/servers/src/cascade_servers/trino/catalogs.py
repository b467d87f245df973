"""Trino's catalogs: one for each branch, since a session cannot choose a branch of Nessie."""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import suppress

from cascade.catalog import MAIN, BranchingCatalog
from cascade.config import Settings
from cascade.errors import QueryError, ServiceError
from cascade_servers.names import TRINO_CATALOG_PREFIX
from cascade_servers.settings import NessieSettings, TrinoSettings
from cascade_servers.trino.server import Refused, server_of

__all__ = ["catalog_name", "drop_catalog", "drop_leftover_catalogs", "ensure_catalog"]

#: The branches whose catalogs the server's own files define (`services/trino/catalog` of a project).
_STATIC = (MAIN, "dev")
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_HASHED = re.compile(r".*_[0-9a-f]{10}")

_log = logging.getLogger(__name__)


def catalog_name(ref: str) -> str:
    """Return the name of a branch's or tag's catalog; two never share one.

    Names of catalogs are lower case letters, digits and underscores. A name that must be changed for that, or
    looks as if it had been, ends with a hash.

    Args:
        ref: Branch or tag.
    """
    if ref in _STATIC:
        return ref
    if _PLAIN.fullmatch(ref) and not _HASHED.fullmatch(ref):
        return f"{TRINO_CATALOG_PREFIX}{ref}"
    plain = re.sub(r"[^a-z0-9]", "_", ref.lower())
    return f"{TRINO_CATALOG_PREFIX}{plain}_{hashlib.sha256(ref.encode()).hexdigest()[:10]}"


def ensure_catalog(settings: Settings, ref: str) -> str:
    """Make the catalog of a branch or tag unless the server has it, and return its name.

    Args:
        settings: The project's settings.
        ref: Branch or tag; it need not exist yet.

    Raises:
        QueryError: The server does not let catalogs be made.
        ServiceError: The server cannot be used.
    """
    name = catalog_name(ref)
    options = ", ".join(f"\"{key}\" = '{value}'" for key, value in _properties(settings, ref).items())
    try:
        server_of(settings).read(f"CREATE CATALOG IF NOT EXISTS {name} USING iceberg WITH ({options})")
    except Refused as error:
        if error.name != "ALREADY_EXISTS":  # another process was first
            raise QueryError(
                f"Trino does not make a catalog for branch `{ref}`: {error}",
                where=f"setting `trino.url`: {settings.plugin('trino', TrinoSettings).url}, catalog {name}",
                fix="the server needs `catalog.management=dynamic` and, in its environment, the variables that "
                "`services/trino/catalog/main.properties` of the project names; its user must be allowed to do it.",
            ) from None
    return name


def drop_catalog(settings: Settings, ref: str) -> None:
    """Drop the catalog of a branch or tag that was deleted. `drop_leftover_catalogs` finds what could not be dropped.

    Args:
        settings: The project's settings.
        ref: Branch or tag.
    """
    if ref in _STATIC:
        return
    try:
        _drop(settings, catalog_name(ref))
    except (Refused, ServiceError) as error:
        _log.warning("Trino keeps catalog %s of branch %s, which is gone: %s", catalog_name(ref), ref, error)


def drop_leftover_catalogs(catalog: BranchingCatalog) -> list[str]:
    """Drop the catalogs of branches and tags that were deleted, and return their names.

    Args:
        catalog: The catalog.

    Raises:
        ServiceError: The server cannot be used.
    """
    server = server_of(catalog.settings)
    # Catalogs first: a branch that is created in between is then seen.
    found = [row[0] for row in server.read("SELECT catalog_name FROM system.metadata.catalogs").rows]
    needed = {catalog_name(branch.name) for branch in catalog.branches()}
    dropped = []
    for name in sorted(set(found) - needed):
        if name.startswith(TRINO_CATALOG_PREFIX):
            with suppress(Refused):  # another process was first, or may and we may not
                _drop(catalog.settings, name)
                dropped.append(name)
    return dropped


def _drop(settings: Settings, name: str) -> None:
    server_of(settings).read(f"DROP CATALOG IF EXISTS {name}")


def _properties(settings: Settings, ref: str) -> dict[str, str]:
    """Return what defines a catalog. What is secret, or differs between machines, the server has in its environment."""
    properties = {
        "iceberg.catalog.type": "nessie",
        "iceberg.nessie-catalog.uri": _environment("NESSIE__URL"),
        "iceberg.nessie-catalog.ref": ref,
        "iceberg.nessie-catalog.default-warehouse-dir": settings.warehouse_location,
        "fs.native-s3.enabled": "true",
        "s3.region": _environment("S3_REGION"),
        "s3.path-style-access": _environment("S3_PATH_STYLE"),
    }
    if ref == MAIN:
        properties["iceberg.security"] = "READ_ONLY"  # as in the server's own file: only a promotion moves it
    nessie = settings.plugin("nessie", NessieSettings)
    if nessie.token or nessie.client_secret:
        properties["iceberg.nessie-catalog.authentication.type"] = "BEARER"
        properties["iceberg.nessie-catalog.authentication.token"] = _environment("NESSIE__TOKEN")
    if settings.s3_endpoint:
        properties["s3.endpoint"] = _environment("S3_ENDPOINT")
    if settings.s3_access_key:
        properties["s3.aws-access-key"] = _environment("S3_ACCESS_KEY")
        properties["s3.aws-secret-key"] = _environment("S3_SECRET_KEY")
    return {key: value.replace("'", "''") for key, value in properties.items()}


def _environment(name: str) -> str:
    return f"${{ENV:CASCADE_{name}}}"
