"""The OpenAPI document of the views: what clients and their generators need to know of the API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cascade_postgrest.database import ApiColumn, ApiView

__all__ = ["document"]

#: JSON Schema of what PostgREST answers for a type of PostgreSQL; all others are texts.
_TYPES: dict[str, dict[str, Any]] = {
    "smallint": {"type": "integer", "format": "int32"},
    "integer": {"type": "integer", "format": "int32"},
    "bigint": {"type": "integer", "format": "int64"},
    "real": {"type": "number", "format": "float"},
    "double precision": {"type": "number", "format": "double"},
    "numeric": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "timestamp with time zone": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "json": {},
    "jsonb": {},
}
_QUERY = {
    "select": ("string", "Columns, separated by commas; all by default."),
    "order": ("string", "Columns with `.asc` or `.desc`, separated by commas."),
    "limit": ("integer", "The most rows; the server has a limit of its own."),
    "offset": ("integer", "Rows to pass over."),
}
_ANSWERS = {
    "400": "A filter or a column is wrong.",
    "401": "A token is missing or wrong.",
    "404": "No such view.",
}


def document(views: Iterable[ApiView], *, title: str, version: str, server: str) -> dict[str, Any]:
    """Return an OpenAPI 3.1 document.

    Args:
        views: What the API serves.
        title: Of the document: the project.
        version: Of the document.
        server: Address of the API.
    """
    views = tuple(views)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": "The marts, read through PostgREST."},
        "servers": [{"url": server}],
        "security": [{}, {"token": []}],
        "paths": {f"/{view.name}": {"get": _operation(view)} for view in views},
        "components": {
            "schemas": {view.name: _rows(view) for view in views},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(view: ApiView) -> dict[str, Any]:
    reserved = [_parameter(name, kind, said) for name, (kind, said) in _QUERY.items()]
    filters = [
        _parameter(column.name, "string", f"A filter, such as `eq.VALUE`; the column is `{column.type}`.")
        for column in view.columns
        if column.name not in _QUERY
    ]
    rows = {"type": "array", "items": {"$ref": f"#/components/schemas/{view.name}"}}
    return {
        "operationId": f"read_{view.name}",
        "summary": view.comment or f"Rows of the mart {view.name}",
        "parameters": [*reserved, *filters],
        "responses": {
            "200": {"description": "Rows.", "content": {"application/json": {"schema": rows}}},
            **{code: {"description": said} for code, said in _ANSWERS.items()},
        },
    }


def _parameter(name: str, kind: str, said: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": said, "schema": {"type": kind}}


def _rows(view: ApiView) -> dict[str, Any]:
    said = {"description": view.comment} if view.comment else {}
    return {"type": "object", **said, "properties": {column.name: _schema(column) for column in view.columns}}


def _schema(column: ApiColumn) -> dict[str, Any]:
    """Return the schema of a column; a view does not know which of its columns have no null."""
    schema = dict(_TYPES.get(column.type.partition("(")[0], {"type": "string"}))
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return {**schema, "description": column.comment or f"PostgreSQL: {column.type}"}
