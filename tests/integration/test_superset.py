"""Superset, run for real by the files of its container, on the example's marts in a real PostgreSQL.

Modules: `cascade_superset.files.prepare`, `cascade_superset.files.superset_config`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import APIResponse, Page, Response, expect

from cascade_services.native.processes import Server, free_ports
from support.browser import take_picture
from support.generated import Project, generate, stranger
from support.postgres import HOMES, Postgres, running_postgres
from support.superset import FILES, SECRETS, composed, native, running_superset

NUMBERS = {
    "Days observed": "to_char(sum(days), 'FM9,999')",
    "Wet days": "to_char(sum(wet_days), 'FM9,999')",
    "Warmest hour (°F)": "to_char(max(temperature_max_f), 'FM990.0')",
    "Coldest hour (°F)": "to_char(min(temperature_min_f), 'FM990.0')",
}
#: What the lines and the bars are drawn from: their chart, and the column of the mart.
DRAWN = {
    "echarts_timeseries_line": ("Mean temperature by month (°F)", "temperature_mean_f"),
    "echarts_timeseries_bar": ("Precipitation by month (inches)", "precipitation_total_in"),
}


@dataclass
class Superset:
    """Superset, and the databases below it."""

    server: Server
    port: int
    postgres: Postgres
    services: dict[str, Any]
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self, sql: str, role: str = "cascade_reader", database: str = "marts") -> list[tuple[Any, ...]]:
        with self.postgres.connect(role, database) as connection:
            return connection.execute(sql.encode()).fetchall()

    def log_in(self, page: Page, password: str = SECRETS["SUPERSET_ADMIN_PASSWORD"]) -> None:
        page.context.clear_cookies()
        page.goto(f"{self.url}/login/")
        page.get_by_label("Username").fill("admin")
        page.locator("input[type=password]").fill(password)
        with page.expect_navigation():
            page.get_by_role("button", name="Sign in").click()

    def call(self, page: Page, method: str, path: str, body: Any = None) -> APIResponse:
        """Call the API as whoever is logged in."""
        token = page.request.get(f"{self.url}/api/v1/security/csrf_token/").json()["result"]
        headers = {"X-CSRFToken": token, "Referer": self.url}
        return page.request.fetch(f"{self.url}/api/v1/{path}", method=method, headers=headers, data=body)


def _make_database(postgres: Postgres, services: dict[str, Any], folder: Path) -> None:
    """Run what the one-shot container runs."""
    (command, environment) = native(services["superset-database"], folder, port=0, dashboards=folder)
    done = subprocess.run(
        [postgres.programs / "bin" / command[0], *command[1:]], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def superset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Superset]:
    """Superset starts while the example loads and publishes: it needs no mart to be there."""
    folder = tmp_path_factory.mktemp("superset")
    main = folder / "compose.yaml"
    main.write_text("services: {postgres: {image: postgres}}\nnetworks: {state: {}}\n")
    (port,) = free_ports(1)
    with running_postgres() as postgres:
        at = {"POSTGRES_INSIDE": f"127.0.0.1:{postgres.port}", "SUPERSET_PORT": str(port)}
        services = composed(main, folder, {**postgres.passwords, **SECRETS, **at})
        for _ in range(2):  # what is there stays
            _make_database(postgres, services, folder)
        with running_superset(services["superset"], folder, port=port, dashboards=FILES / "example") as server:
            home = stranger(tmp_path_factory.mktemp("home")) | {"CASCADE_MARTS_URL": postgres.url("cascade_publisher")}
            project = Project(generate(folder / "example", home), home)
            done = project.cascade("run")
            assert done.returncode == 0, done.stdout + done.stderr
            server.wait()
            yield Superset(server, port, postgres, services, folder)


def test_the_dashboard_shows_the_numbers_of_the_marts(superset: Superset, page: Page, tmp_path: Path) -> None:
    """Of all stations, and of one that is chosen; and the pages load nothing from elsewhere."""
    went_out: list[str] = []
    page.on("requestfinished", lambda request: went_out.append(request.url))
    page.set_viewport_size({"width": 1440, "height": 920})
    superset.log_in(page)
    drawn: dict[str, list[dict[str, Any]]] = {}
    page.on("response", lambda answer: _keep(answer, drawn))
    page.goto(f"{superset.url}/superset/dashboard/weather/")
    for name, sql in NUMBERS.items():
        ((number,),) = superset.rows(f"SELECT {sql} FROM weather_monthly")
        expect(_chart(page, name).locator(".header-line")).to_have_text(number)
    expect(_chart(page, "Stations").locator("tbody tr")).to_have_count(3)
    shown = [tuple(row.inner_text().split()) for row in _chart(page, "Stations").locator("tbody tr").all()]
    assert shown == superset.rows("""
        SELECT station, sum(days)::text, to_char(sum(temperature_mean_f * days) / sum(days), 'FM990.0'),
            to_char(min(temperature_min_f), 'FM990.0'), to_char(max(temperature_max_f), 'FM990.0'),
            to_char(sum(precipitation_total_in), 'FM990.00'), sum(wet_days)::text
        FROM weather_monthly GROUP BY station ORDER BY sum(temperature_mean_f * days) / sum(days) DESC
    """)
    for kind, (name, column) in DRAWN.items():
        expect(_chart(page, name).locator("canvas")).to_be_visible()
        values = superset.rows(
            f"SELECT extract(epoch FROM month)::bigint * 1000, station, {column} FROM weather_monthly"
        )
        got = {(row["month"], at): row[at] for row in drawn[kind] for at in row.keys() - {"month"}}
        assert got == pytest.approx({(month, station): value for month, station, value in values})
    take_picture(page, tmp_path / "superset.png")
    page.get_by_role("combobox", name="Station").click()
    page.get_by_title("JFK", exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Apply filters").click()
    for name, sql in NUMBERS.items():
        ((number,),) = superset.rows(f"SELECT {sql} FROM weather_monthly WHERE station = 'JFK'")
        expect(_chart(page, name).locator(".header-line")).to_have_text(number)
    assert [url for url in went_out if not url.startswith((superset.url, "data:", "blob:"))] == []


def test_nobody_comes_in_without_the_password(superset: Superset, page: Page) -> None:
    dashboard = f"{superset.url}/superset/dashboard/weather/"
    page.goto(dashboard)
    assert page.url.startswith(f"{superset.url}/login/")
    superset.log_in(page, "wrong")
    for path in ("api/v1/dashboard/", "api/v1/dataset/", "api/v1/database/"):
        assert page.request.get(f"{superset.url}/{path}").status == 401


def test_it_cannot_write_the_marts(superset: Superset, page: Page) -> None:
    """Not even where its administrator allows it: the database does not."""
    superset.log_in(page)
    (database,) = superset.call(page, "GET", "database/").json()["result"]
    run = {"database_id": database["id"], "schema": "marts", "runAsync": False}
    asked = {"data": "SELECT count(*) FROM weather_monthly", "DML_NOT_ALLOWED": "DELETE FROM weather_monthly"}
    for said, sql in asked.items():
        assert said in superset.call(page, "POST", "sqllab/execute/", run | {"sql": sql}).text()
    assert superset.call(page, "PUT", f"database/{database['id']}", {"allow_dml": True}).ok
    more = "COMMIT; SET default_transaction_read_only = off; COMMIT; "
    for sql, said in {
        "DELETE FROM weather_monthly": "read-only transaction",
        more + "DELETE FROM weather_monthly": "permission denied for table",
        more + "CREATE TABLE marts.own (i int)": "permission denied for schema",
    }.items():
        assert said in superset.call(page, "POST", "sqllab/execute/", run | {"sql": sql}).text()
    assert superset.rows("SELECT count(*) FROM weather_monthly") == [(36,)]


def test_its_roles_can_do_their_work_and_nothing_else(superset: Superset) -> None:
    own = f"postgresql://cascade_superset:{SECRETS['POSTGRES_SUPERSET_PASSWORD']}@127.0.0.1:{superset.postgres.port}"
    for database in {*HOMES.values(), "postgres"}:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(f"{own}/{database}")
    for role in HOMES:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            superset.postgres.connect(role, "superset")
    with psycopg.connect(f"{own}/superset", autocommit=True) as connection:
        for sql in ("DROP DATABASE superset", "CREATE DATABASE own", "CREATE ROLE own", "CREATE SCHEMA own"):
            with pytest.raises(psycopg.Error):
                connection.execute(sql)
        # No password of the marts is among its tables, and none of any kind in its log.
        assert connection.execute("SELECT sqlalchemy_uri, password FROM dbs").fetchall() == [
            ("postgresql+psycopg2://cascade_reader@marts/marts", None)
        ]
    log = superset.server.log.read_text("utf-8")
    assert not [name for name, secret in (SECRETS | superset.postgres.passwords).items() if secret in log]


def test_what_people_made_survives_a_start_and_files_win(superset: Superset, page: Page) -> None:
    """An export is a folder of files that the next start imports; the administrator's password is that of `.env`."""
    superset.log_in(page)
    assert superset.call(page, "POST", "dashboard/", {"dashboard_title": "Made in the pages"}).ok
    own = superset.folder / "own"
    exported = page.request.get(f"{superset.url}/api/v1/dashboard/export/?q=!(1)").body()
    zipfile.ZipFile(io.BytesIO(exported)).extractall(own)
    (file,) = own.glob("*/dashboards/*.yaml")
    file.write_text(
        file.read_text("utf-8").replace("dashboard_title: Weather", "dashboard_title: Fine weather"), "utf-8"
    )
    superset.server.kill()
    service = dict(superset.services["superset"])
    service["environment"] = service["environment"] | {"SUPERSET_ADMIN_PASSWORD": "another"}
    with running_superset(service, superset.folder, port=superset.port, dashboards=own) as server:
        server.wait()
        superset.log_in(page, "another")
        expect(page.get_by_text("Settings")).to_be_visible()
        titles = {found["dashboard_title"] for found in superset.call(page, "GET", "dashboard/").json()["result"]}
        assert titles == {"Made in the pages", "Fine weather of New York's airports"}
        page.goto(f"{superset.url}/superset/dashboard/weather/")
        expect(_chart(page, "Days observed").locator(".header-line")).to_have_text("1,092")


def test_a_broken_file_stops_the_start_and_is_named(superset: Superset) -> None:
    broken = superset.folder / "broken"
    shutil.copytree(FILES / "example", broken)
    for name in ("stations", "wet_days"):
        chart = broken / f"charts/{name}.yaml"
        chart.write_text(chart.read_text("utf-8").replace("slice_name", "description"), "utf-8")
    command, environment = native(superset.services["superset"], superset.folder, port=0, dashboards=broken)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    *_, told = done.stderr.partition("These files are not what Superset imports; nothing was imported:\n")
    assert told.splitlines() == [
        f"  {broken}/charts/{name}.yaml: {{'slice_name': ['Missing data for required field.']}}"
        for name in ("stations", "wet_days")
    ]


def _keep(answer: Response, drawn: dict[str, list[dict[str, Any]]]) -> None:
    """Keep the rows that a chart of the dashboard is drawn from, by its kind."""
    if "/chart/data" in answer.url and answer.ok:
        drawn[answer.request.post_data_json["form_data"]["viz_type"]] = answer.json()["result"][0]["data"]


def _chart(page: Page, name: str) -> Any:
    return page.locator(f'[data-test-chart-name="{name}"]')
