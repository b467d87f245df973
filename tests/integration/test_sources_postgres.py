"""A table of PostgreSQL in one command: types as the database has them, its password in `.env` alone."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cascade.config import Settings
from cascade.testing import TemporaryLakehouse
from cascade_create.sources import Request
from cascade_create.workflow import create_workflow, look
from support.generated import generate, stranger
from support.postgres import Postgres

_TABLE = """
create table orders (
  order_id bigint primary key, "Total (EUR)" numeric(12, 2), changed timestamptz not null, day date, paid boolean,
  tags text[], extra jsonb, note text
)
"""


def test_a_table_is_loaded_and_then_what_is_new(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow that was written is run, as it is."""
    with postgres_server.connect() as database:
        database.execute(_TABLE)
        row = """insert into orders values
            (%s, 1.25 * %s, timestamptz '2026-01-01 00:00:00.5+02' + %s * interval '1 hour', '2026-01-05', true,
             array['a', 'b'], '{"a": {"b": 1}}', 'größe ☂')"""
        for number in range(1, 31):
            database.execute(row, (number, number, number))
        (tmp_path / "home").mkdir()
        root = generate(tmp_path / "my-project", stranger(tmp_path / "home"))
        monkeypatch.delenv("ORDERS_URL", raising=False)
        url = postgres_server.url().replace("postgresql://", "postgresql+psycopg://")
        request = Request(
            kind="database", name="orders", url=url, table="orders", cursor="changed", infer=True, folder=root
        )
        settings = Settings(project_dir=root)
        draft = look(settings, request)
        assert list(draft.key) == ["order_id"]
        create_workflow(settings, draft)
        assert f"ORDERS_URL='{url}'" in (root / ".env").read_text()
        password = url.partition("@")[0].rpartition(":")[2].encode()
        files = [file for file in root.rglob("*") if file.is_file() and file.name != ".env"]
        assert [file for file in files if password in file.read_bytes()] == []
        monkeypatch.syspath_prepend(str(root))
        for module in [module for module in sys.modules if module.partition(".")[0] == "workflows"]:
            monkeypatch.delitem(sys.modules, module)
        lake = TemporaryLakehouse(tmp_path / "lake", project_dir=root)
        workflow = import_module("workflows.ingestion.orders")
        assert lake.run(workflow.orders).success
        database.execute(row, (31, 31, 31))
        database.execute("update orders set note = 'new', changed = now() where order_id = 1")
        result = lake.run(workflow.orders)
        assert result.success, result.errors
    sql = "select count(*) n, count(distinct order_id) ids, sum(total_eur) eur, count(*) filter (note = 'new') new"
    (found,) = lake.query(f"{sql}, count(distinct _cascade_ingested_at) runs from raw.orders")
    assert {name: float(value) for name, value in found.items()} == {
        "n": 31,
        "ids": 31,
        "eur": 620,
        "new": 1,
        "runs": 2,
    }
    (first,) = lake.query("select extra, tags, changed from raw.orders where order_id = 2")
    assert json.loads(first["extra"]) == {"a": {"b": 1}}
    assert first["changed"].isoformat().startswith("2026-01-01T00:00:00.5")
