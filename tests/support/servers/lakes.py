"""An empty lakehouse on running servers, for one test."""

import json
import secrets
import urllib.request
from collections.abc import Callable
from urllib.parse import quote

import psycopg
from psycopg import sql

from cascade_services.native.processes import direct

from .stack import Stack

__all__ = ["KINDS", "empty_nessie", "fresh_lake"]

# What Nessie calls the state before the first commit.
_NOTHING = "2e1cfa82b035c26cbbbdae632cea070514eb8b773f616aaeaf668e2f0be8f10d"

_S3 = ("S3_ENDPOINT", "S3_REGION", "S3_PATH_STYLE", "S3_ACCESS_KEY", "S3_SECRET_KEY")


def fresh_lake(stack: Stack, kind: str) -> dict[str, str]:
    """Return the settings, as environment variables, of a lakehouse with nothing in it.

    Args:
        stack: The servers.
        kind: One of `KINDS`.
    """
    return KINDS[kind](stack)


def empty_nessie(stack: Stack) -> None:
    """Drop every branch and tag, and put `main` back to before its first commit."""
    trees = f"{stack.environment['CASCADE_NESSIE__URL']}/trees"
    for reference in _call(f"{trees}?max-records=10000")["references"]:
        state, kind = f"{quote(reference['name'], safe='')}@{reference['hash']}", reference["type"].lower()
        if reference["name"] != "main":
            _call(f"{trees}/{state}?type={kind}", "DELETE")
        elif reference["hash"] != _NOTHING:
            _call(f"{trees}/{state}?type=branch", "PUT", {"type": "DETACHED", "hash": _NOTHING})


def _lakehouse(stack: Stack) -> dict[str, str]:
    """Nessie, Trino and S3: one repository on the server, so that it is emptied."""
    empty_nessie(stack)
    mine = {name: value for name, value in stack.environment.items() if name not in _OWN_DATABASES}
    return mine | {"CASCADE_WAREHOUSE": _own_place(stack)}


def _postgresql(stack: Stack) -> dict[str, str]:
    """The embedded catalog in a schema of its own, files in a folder. A database would take a second to make."""
    name = f"test_{secrets.token_hex(6)}"
    catalog = stack.environment["CASCADE_CATALOG_URL"]
    superuser = f"{stack.superuser_url.rpartition('/')[0]}/{catalog.rpartition('/')[2]}"
    with psycopg.connect(superuser, autocommit=True) as connection:
        for (old,) in connection.execute(r"select nspname from pg_namespace where nspname like 'test\_%'").fetchall():
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(old)))
        create = sql.SQL("create schema {} authorization cascade_catalog")
        connection.execute(create.format(sql.Identifier(name)))
    return {"CASCADE_CATALOG_URL": f"{catalog}?options=-csearch_path%3D{name}"}


def _s3(stack: Stack) -> dict[str, str]:
    """The embedded catalog in PostgreSQL, files on S3: what several machines share."""
    place = {f"CASCADE_{name}": stack.environment[f"CASCADE_{name}"] for name in _S3}
    return _postgresql(stack) | place | {"CASCADE_WAREHOUSE": _own_place(stack)}


#: How to make a lakehouse on the servers, by what differs from the one on a laptop.
KINDS: dict[str, Callable[[Stack], dict[str, str]]] = {
    "nessie": _lakehouse,
    "postgresql": _postgresql,
    "s3": _s3,
}

# A test of the lake keeps Dagster's records and its marts to itself.
_OWN_DATABASES = ("CASCADE_DAGSTER_URL", "CASCADE_MARTS_URL")


def _own_place(stack: Stack) -> str:
    return f"{stack.environment['CASCADE_WAREHOUSE']}/{secrets.token_hex(6)}"


def _call(url: str, method: str = "GET", body: object = None) -> dict[str, list[dict[str, str]]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with direct().open(request, timeout=60) as response:
        answer: dict[str, list[dict[str, str]]] = json.load(response)
        return answer
