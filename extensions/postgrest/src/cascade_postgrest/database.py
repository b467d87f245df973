"""The schema `api` in PostgreSQL: its roles and views are made here, and described from the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import psycopg

from cascade.errors import ConfigurationError, ServiceError
from cascade.names import MARTS
from cascade_services.env import read_env

if TYPE_CHECKING:
    from cascade.config import Settings

__all__ = ["ApiColumn", "ApiView", "apply_api", "read_views"]

_SCRIPT = Path(__file__).with_name("files") / "api.sql"
_VIEWS = """
    SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname, format_type(a.atttypid, a.atttypmod),
        col_description(c.oid, a.attnum)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = 'api' AND c.relkind IN ('v', 'm', 'r', 'p')
    AND EXISTS (
        SELECT FROM pg_roles AS r
        WHERE r.rolname IN ('cascade_web_anon', 'cascade_web_user')
        AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
    )
    ORDER BY c.relname, a.attnum
"""
_KEYS = ("POSTGRES_PASSWORD", "POSTGREST_PASSWORD")


@dataclass(frozen=True)
class ApiColumn:
    """A column of a view.

    Attributes:
        name: Its name.
        type: Its type, as PostgreSQL writes it.
        comment: What it means; None when nobody said.
    """

    name: str
    type: str
    comment: str | None


@dataclass(frozen=True)
class ApiView:
    """A view that the API serves.

    Attributes:
        name: Its name in the schema `api`, which is its path.
        comment: What it shows; None when nobody said.
        columns: Those that a role of the API may read.
    """

    name: str
    comment: str | None
    columns: tuple[ApiColumn, ...]


def apply_api(settings: Settings) -> tuple[ApiView, ...]:
    """Make the roles and the views of the API, as the container `postgrest-roles` does; what exists stays.

    Args:
        settings: `marts_url` says where; its user is replaced by `postgres`, with POSTGRES_PASSWORD of `.env`.

    Returns:
        What the API serves then.

    Raises:
        ConfigurationError: Marts do not go to PostgreSQL, or `.env` lacks a password.
        ServiceError: PostgreSQL cannot be reached, or refuses.
    """
    url = _url(settings)
    values = read_env(settings.project_dir)
    if missing := [key for key in _KEYS if not values.get(key)]:
        raise ConfigurationError(
            f".env lacks {' and '.join(missing)}.",
            where=str(settings.project_dir / ".env"),
            fix="enable the service `postgrest` in cascade.yaml, and run `cascade services env`.",
        )
    given = urlsplit(url)
    host = given.netloc.rpartition("@")[2]
    admin = given._replace(netloc=f"postgres:{quote(values['POSTGRES_PASSWORD'], safe='')}@{host}").geturl()
    password = values["POSTGREST_PASSWORD"].replace("\\", "\\\\").replace(" ", "\\ ")
    _ask(admin, _SCRIPT.read_text("utf-8"), options=f"-c cascade.authenticator_password={password}")
    return read_views(settings)


def read_views(settings: Settings) -> tuple[ApiView, ...]:
    """Return what the API serves, by the catalog of PostgreSQL: what its roles may read in the schema `api`.

    Args:
        settings: `marts_url` says where.

    Raises:
        ConfigurationError: Marts do not go to PostgreSQL.
        ServiceError: PostgreSQL cannot be reached.
    """
    views: dict[str, tuple[str | None, list[ApiColumn]]] = {}
    for view, comment, *column in _ask(_url(settings), _VIEWS):
        views.setdefault(view, (comment, []))[1].append(ApiColumn(*column))
    return tuple(ApiView(name, comment, tuple(columns)) for name, (comment, columns) in views.items())


def _url(settings: Settings) -> str:
    if settings.marts_url is None:
        raise ConfigurationError(
            "The API serves marts that are published to PostgreSQL; here they go to a DuckDB file.",
            where="setting `marts_url`",
            fix="set CASCADE_MARTS_URL; see docs/how-to/use-postgresql.md.",
        )
    return settings.marts_url.get_secret_value()


def _ask(url: str, statement: str, **options: Any) -> Iterable[tuple[Any, ...]]:
    try:
        with psycopg.connect(url, **options) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else ()
    except psycopg.Error as error:
        raise ServiceError(
            f"The schema `api` cannot be used: {error}".rstrip(),
            where=f"PostgreSQL at {urlsplit(url).hostname}, database of the {MARTS}",
            fix="make databases and roles with services/postgres/roles.sql first, and compare the passwords with .env.",
        ) from error
