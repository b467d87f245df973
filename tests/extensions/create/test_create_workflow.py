"""From nothing to promoted tables: four commands, no edit; everything that was written is green at once.

Modules: `cascade_create.sources.database`, `cascade_create.sources.files`, `cascade_create.sources.python`,
`cascade_create.render`, `cascade_create.sample`, `cascade_create.commands`
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.api import ticket
from support.generated import BIN, Project, run

_NEW_LATER = "2026-03-01T00:00:00Z"


def _orders(root: Path, first: int, last: int) -> None:
    with sqlite3.connect(root / "shop.db") as database:
        database.execute(
            'create table if not exists orders (order_id integer primary key, "Total (EUR)" numeric(10, 2), '
            "changed timestamp, paid boolean, day date, customer text)"
        )
        rows = [
            (i, i * 1.25, f"2026-01-{1 + i % 28:02d} 10:00:00", i % 2, "2026-01-05", f"c{i}")
            for i in range(first, last + 1)
        ]
        database.executemany("insert into orders values (?, ?, ?, ?, ?, ?)", rows)
    database.close()


def _drop(root: Path, name: str, *lines: str) -> None:
    (root / "data/drops").mkdir(parents=True, exist_ok=True)
    header = "Order ID;Total (EUR);#;Placed;class;Zip;Hours"
    (root / "data/drops" / name).write_text("\n".join([header, *lines, ""]), "utf-8-sig")


def _book(root: Path) -> None:
    (root / "data/books").mkdir()
    frame = pl.DataFrame({"Item No.": [1, 2], "Größe (cm)": [1.5, None], "Order": ["a", "b ☂"]})
    frame.write_excel(root / "data/books/a.xlsx")


@pytest.fixture(scope="module")
def project(fresh: Project, served: Any, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after the commands, word for word, and one run."""
    root = fresh.root
    _orders(root, 1, 40)
    _drop(root, "a.csv", "1;1.5;x;2026-01-01;x;01234;1.5", '2;2.5;"y ""z""";2026-01-02;y;90210;NA')
    _drop(root, "b.csv", "3;3.5;größe;2026-01-03;;01234;2.5")
    _book(root)
    url = f"{served.url}/next"
    for words in (
        ["rest", "tickets", "--url", url, "--key", "id", "--cursor", "updated_at", "--infer", "--yes"],
        [
            "database",
            "orders",
            "--url",
            "sqlite:///shop.db",
            "--table",
            "orders",
            "--key",
            "order_id",
            "--infer",
            "--yes",
        ],
        ["file", "drops", "--path", "data/drops/*.csv", "--key", "Order ID", "--infer", "--yes"],
        ["file", "books", "--path", "data/books/*.xlsx", "--key", "Item No.", "--infer", "--yes"],
        ["python", "numbers"],
    ):
        done = fresh.cascade("create-workflow", *words)
        assert done.returncode == 0, done.stderr
    model = fresh.cascade("create-model", "gold.paid_orders", "--from", "bronze.orders", "--key", "order_id")
    assert model.returncode == 2, "there is no layer gold in this project"
    (root / "transforms/dbt/models/gold").mkdir()
    for words in (
        ["create-model", "gold.paid_orders", "--from", "bronze.orders", "--key", "order_id"],
        [
            "create-check",
            "orders_have_totals",
            "--asset",
            "raw.orders",
            "--rule",
            "in_range",
            "--column",
            "total_eur",
            "--min",
            "0",
            "--max",
            "1000",
        ],
        [
            "create-check",
            "drops_have_zips",
            "--asset",
            "bronze.drops",
            "--rule",
            "sql",
            "--sql",
            "select * from bronze.drops where zip is null",
        ],
    ):
        done = fresh.cascade(*words)
        assert done.returncode == 0, done.stderr
    done = fresh.cascade("run")
    assert done.returncode == 0, done.stderr
    return fresh


def test_what_was_written_is_formatted_and_has_no_finding(project: Project) -> None:
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([BIN / "ruff", *words], cwd=project.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_validate_and_dg_find_nothing(project: Project) -> None:
    found = project.json("validate", "--all-engines")
    assert (found["problems"], found["sql"]) == ([], [])
    assert {"raw/tickets", "bronze/tickets", "raw/orders", "bronze/drops", "gold/paid_orders"} <= set(found["assets"])
    done = run(BIN / "dg", "check", "defs", cwd=project.root, environment=project.environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_that_were_written_pass_without_the_sources(project: Project, served: Any) -> None:
    asked = len(served.asked)
    done = run(BIN / "pytest", "-q", cwd=project.root, environment=project.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(served.asked) == asked


def test_raw_and_bronze_have_what_the_sources_have(project: Project) -> None:
    def rows(sql: str) -> Any:
        return project.json("query", sql)

    assert rows("select count(*) n, sum(id) ids, sum(total_eur) eur, max(score) top from bronze.tickets") == [
        {"n": 80, "ids": 3240, "eur": 4860.0, "top": 80.5}
    ]
    assert rows("select requester, tags, custom_fields, class from raw.tickets where id = 1") == [
        {
            "requester": '{"languages": ["de", "en"], "name": "Ann"}',
            "tags": ["a", "b"],
            "custom_fields": '[{"name": "plan", "value": 1}]',
            "class": "first",
        }
    ]
    assert rows("select order_id, total_eur, changed, paid, day from bronze.orders where order_id = 2") == [
        {"order_id": 2, "total_eur": 2.5, "changed": "2026-01-03T10:00:00", "paid": False, "day": "2026-01-05"}
    ]
    assert rows("select * exclude _cascade_ingested_at from bronze.drops order by order_id") == [
        {"order_id": i, "total_eur": i + 0.5, "column_3": what, "placed": f"2026-01-0{i}", "class": word, "zip": code}
        | {"hours": hours}
        for i, what, word, code, hours in [
            (1, "x", "x", "01234", 1.5),
            (2, 'y "z"', "y", "90210", None),
            (3, "größe", None, "01234", 2.5),
        ]
    ]
    assert rows('select item_no, "größe_cm", "order" from bronze.books order by item_no') == [
        {"item_no": 1, "größe_cm": 1.5, "order": "a"},
        {"item_no": 2, "größe_cm": None, "order": "b ☂"},
    ]
    assert rows("select count(*) n from gold.paid_orders") == [{"n": 40}]


def test_a_second_run_loads_what_is_new_and_nothing_twice(project: Project, served: Any) -> None:
    """Tickets by their cursor; orders and files have none and are merged by their key, also a file with an old time."""
    served.rows = [*served.rows, ticket(81, _NEW_LATER)]
    _drop(project.root, "c.csv", "4;4.5;x;2026-01-04;x;01234;1")
    os.utime(project.root / "data/drops/c.csv", (0, 0))
    _orders(project.root, 41, 41)
    report = project.json("run")
    loaded = {step["asset"]: step["load"]["extracted"] for step in report["assets"] if step["load"]}
    assert loaded == {"raw/tickets": 1, "raw/orders": 41, "raw/drops": 4, "raw/books": 2, "raw/numbers": 2}
    counts = {
        name: project.json("query", f"select count(*) n from bronze.{name}")[0]["n"]
        for name in ("tickets", "orders", "drops", "books", "numbers")
    }
    assert counts == {"tickets": 81, "orders": 41, "drops": 4, "books": 2, "numbers": 2}


def test_comments_of_yaml_files_are_kept(project: Project) -> None:
    text = (project.root / "transforms/dbt/models/sources/raw.yml").read_text()
    assert text.startswith(
        "version: 2 # of dbt\n\nsources:\n  # What workflows load.\n  - name: 'raw'\n    schema: raw\n"
    )
