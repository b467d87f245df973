"""What is found out about a source: pages, columns, key and cursor; and what is said when it cannot be looked at.

Modules: `cascade_create.sources.base`, `cascade_create.sources.pages`, `cascade_create.sources.rest`
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cascade.config import Settings
from cascade.errors import UsageError
from cascade_create.sources import Request
from cascade_create.workflow import Draft, create_workflow, look
from support.api import SIZE, Api


def looked_at(root: Path, kind: str = "rest", name: str = "tickets", **given: Any) -> Draft:
    return look(Settings(project_dir=root), Request(kind=kind, name=name, infer=True, folder=root, **given))


WAYS = {
    "/link": {"type": "header_link"},
    "/next": {"type": "json_link", "next_url_path": "next"},
    "/halcyon": {"type": "json_link", "next_url_path": "_links.next.href"},
    "/numbers": {"type": "page_number", "page_param": "page", "base_page": 1, "total_path": "meta.total_pages"},
    "/zero": {"type": "page_number", "page_param": "pageNumber", "base_page": 0, "total_path": None},
    "/plain": {"type": "page_number", "page_param": "page", "base_page": 1, "total_path": None},
    "/more": {
        "type": "page_number",
        "page_param": "page",
        "base_page": 1,
        "total_path": None,
        "has_more_path": "has_more",
    },
    "/offset": {
        "type": "offset",
        "limit": SIZE,
        "offset_param": "offset",
        "limit_param": "limit",
        "total_path": None,
    },
    "/cursor": {"type": "cursor", "cursor_path": "next_page_token", "cursor_param": "page_token"},
    "/odata": {"type": "json_link", "next_url_path": "['@odata.nextLink']"},
    "/all": {"type": "single_page"},
}


@pytest.mark.parametrize("path", WAYS)
def test_all_pages_of_an_api_are_found(path: str, api: Api, root: Path) -> None:
    """However it hands them out: the sample is drawn by the code that is written, and has every row once."""
    draft = looked_at(root, url=api.url + path)
    assert draft.sample
    assert sorted(draft.sample.values("id")) == list(range(1, 81))
    assert vars(draft.source)["paginator"] == WAYS[path]


@pytest.mark.parametrize("path", ["/next", "/numbers", "/more", "/plain"])
def test_a_source_with_one_page_today_is_asked_for_more_tomorrow(path: str, api: Api, root: Path) -> None:
    """Else rows would be missing without a word once there is a second page."""
    api.rows = api.rows[:5]
    draft = looked_at(root, url=api.url + path)
    assert vars(draft.source)["paginator"]["type"] == WAYS[path]["type"]


def test_columns_are_those_of_the_runtime(api: Api, root: Path) -> None:
    draft = looked_at(root, url=f"{api.url}/next")
    assert draft.sample
    assert {column.name: str(column.type) for column in draft.sample.columns} == {
        "id": "int64",
        "subject": "string",
        "updated_at": "string",
        "score": "double",
        "requester": "string",
        "tags": "list<element: string>",
        "custom_fields": "string",
        "total_eur": "double",
        "class": "string",
    }


def test_key_and_cursor_are_guessed_from_the_sample_and_said_to_be_guesses(api: Api, root: Path) -> None:
    """A wrong cursor would leave rows out, so it is suggested and not taken."""
    draft = looked_at(root, url=f"{api.url}/next")
    assert (list(draft.key), draft.cursor, draft.guessed_cursor) == (["id"], "", "updated_at")
    assert any("`id` is a guess, unique in 80 rows" in note for note in draft.guesses)
    assert any("updated_at may be one, a guess" in note for note in draft.guesses)


def test_errors_that_pass_are_waited_for(api: Api, root: Path) -> None:
    api.stumbles = [429, 500]
    assert looked_at(root, url=f"{api.url}/all").sample


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody there": ({"url": "http://127.0.0.1:9/tickets"}, "cannot be reached", "--url"),
    "no such page": ({"url": "{api}/nothing"}, "answers 404", "--url"),
    "empty": ({"url": "{api}/empty"}, "has no rows", "--infer"),
    "no objects": ({"url": "{api}/words"}, "has no rows at `$`", "--rows-at"),
    "more, but how": ({"url": "{api}/stuck"}, "more rows than the first page", "--paginator"),
    "no url": ({"url": "tickets"}, "not the URL of a REST API", "https://"),
    "nothing": ({}, "needs --url", "--url https://"),
    "secret": ({"url": "{api}/all?api_key=abc"}, "has a secret in it (api_key)", ".env"),
    "password": ({"url": "http://u:abc@127.0.0.1/x"}, "has a secret in it", ".env"),
    "no such key": ({"url": "{api}/all", "key": ["nr"]}, "no column 'nr'", "`id`, `subject`"),
    "no such cursor": ({"url": "{api}/all", "cursor": "when"}, "no column 'when'", "`updated_at`"),
    "key with nulls": ({"url": "{api}/all", "key": ["score"]}, "no value in some rows", "every row"),
    "auth": ({"url": "{api}/all", "auth": "bearer:abc-def"}, "--auth does not say", "bearer:VARIABLE"),
    "no variable": ({"url": "{api}/all", "auth": "bearer:NOT_THERE"}, "NOT_THERE is not set", ".env"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_source_that_cannot_be_looked_at_is_told_and_nothing_is_written(case: str, api: Api, root: Path) -> None:
    """A sentence with what, where and remedy, and no secret in it."""
    given, what, fix = REFUSED[case]
    before = sorted(root.rglob("*"))
    with pytest.raises(UsageError) as refused:
        looked_at(root, **{**given, **({"url": given["url"].format(api=api.url)} if "url" in given else {})})
    assert what in refused.value.what
    assert "Nothing was written" in refused.value.what
    assert fix in refused.value.fix
    assert "abc" not in str(refused.value).replace("abc-def", "")
    assert sorted(root.rglob("*")) == before


def test_a_token_is_read_from_dotenv_and_written_nowhere(api: Api, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says the name of the variable."""
    monkeypatch.delenv("TICKETS_TOKEN", raising=False)
    api.token = "s3cr3t"
    (root / ".env").write_text("TICKETS_TOKEN=s3cr3t\n")
    draft = looked_at(root, url=f"{api.url}/all", auth="bearer:TICKETS_TOKEN")
    created = create_workflow(Settings(project_dir=root), draft)
    assert 'os.environ["TICKETS_TOKEN"]' in created.texts["workflows/ingestion/tickets.py"]
    assert [file for file in created.new + created.changed if b"s3cr3t" in (root / file).read_bytes()] == []


@pytest.fixture
def shop(root: Path) -> Path:
    with sqlite3.connect(root / "shop.db") as database:
        database.execute("create table orders (order_id integer primary key, customer text)")
        database.execute("insert into orders values (1, 'Ann')")
    database.close()
    return root


DATABASES: dict[str, tuple[dict[str, str], str, str]] = {
    "no file": ({"url": "sqlite:///shup.db", "table": "orders"}, "no such SQLite file", "--url"),
    "no table": ({"url": "sqlite:///shop.db", "table": "order"}, "no table 'order'", "`orders`"),
    "no url": ({"url": "shop", "table": "orders"}, "not the URL of a database", "sqlite:///"),
    "no driver": ({"url": "oracle+oracledb://u:abc@h/x", "table": "t"}, "not installed", "uv add"),
    "unknown": ({"url": "nosuch://u:abc@h/x", "table": "t"}, "knows no database", "correct the URL"),
    "nobody there": ({"url": "postgresql+psycopg://u:abc@127.0.0.1:9/x", "table": "t"}, "cannot be read", "password"),
}


@pytest.mark.parametrize("case", DATABASES)
def test_a_database_that_cannot_be_read_is_told_without_its_password(case: str, shop: Path) -> None:
    given, what, fix = DATABASES[case]
    with pytest.raises(UsageError) as refused:
        looked_at(shop, "database", "orders", **given)
    assert what in refused.value.what
    assert fix in refused.value.fix
    assert "abc" not in str(refused.value)


def test_the_primary_key_of_a_table_is_known(shop: Path) -> None:
    draft = looked_at(shop, "database", "orders", url="sqlite:///shop.db", table="orders")
    assert list(draft.key) == ["order_id"]
    assert any("as the source says" in note for note in draft.guesses)


def test_the_password_of_a_database_goes_to_dotenv_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --infer nothing is asked; what is written names the variable."""
    monkeypatch.delenv("ORDERS_URL", raising=False)
    url = "postgresql://shop:s3cr3t@db.example.com/shop"
    request = Request(kind="database", name="orders", url=url, table="sales.orders", key=["id"], cursor="changed")
    created = create_workflow(settings := Settings(project_dir=root), look(settings, request))
    assert f"ORDERS_URL='{url}'" in (root / ".env").read_text()
    others = [file for file in root.rglob("*") if file.is_file() and file.name != ".env"]
    assert [file for file in others if b"s3cr3t" in file.read_bytes()] == []
    assert "s3cr3t" not in str(created)
    code = created.texts["workflows/ingestion/orders.py"]
    assert 'os.environ["ORDERS_URL"]' in code
    assert 'schema="sales"' in code
