"""Prometheus and Alertmanager of Debian, run for real: they ask the exporter, Trino and Nessie, and know every query.

Modules: `cascade_monitoring.exporter`, `cascade_monitoring.commands`.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest
import yaml

import cascade_monitoring
from cascade_services.native.downloads import cache_folder, fetch_once
from cascade_services.native.downloads import programs as programs_of_servers
from cascade_services.native.postgres import make_roles, url
from cascade_services.native.processes import Server, answers, direct, free_ports
from support.generated import BIN, Project, stranger
from support.projects import make_project
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

FILES = Path(cascade_monitoring.__file__).parent / "files"
_PACKAGES = ("prometheus", "prometheus-alertmanager")
_TARGETS = ("monitoring-exporter:9464", "trino:8080", "nessie:9000", "alertmanager:9093")
_WORKFLOW = '''\
"""Guests, and a rule for them; `guests.json` says who comes."""

import json
from pathlib import Path

from cascade.ingestion import cascade_ingestion, none
from cascade.quality import cascade_quality


@cascade_ingestion(unique_key="id", partitions=none(), max_retries=0, freshness_hours=(1, 2))
def guests():
    return json.loads(Path("guests.json").read_text())


@cascade_quality(asset="raw/guests")
def nobody_is_young(lakehouse):
    """Selects guests below 18."""
    return "SELECT * FROM raw.guests WHERE age < 18"
'''


@pytest.fixture(scope="module")
def programs() -> Path:
    """Prometheus, promtool, Alertmanager and amtool."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)

    def fetch(folder: Path, made: Path) -> None:
        subprocess.run(["apt-get", "download", *_PACKAGES], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, made], check=True)
        # Debian's reads its templates from where only root may put them: here from below its working folder.
        program = made / "usr/bin/prometheus-alertmanager"
        code, absolute = program.read_bytes(), b"/usr/share/prometheus/alertmanager"
        assert absolute in code
        program.write_bytes(code.replace(absolute, absolute[1:] + b"/"))

    fetch_once(cache / "prometheus-of-debian", fetch)
    return cache / "prometheus-of-debian/usr/bin"


@pytest.fixture(scope="module")
def shop(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on the servers: one run was promoted, and a check of the second one failed."""
    root = make_project(tmp_path_factory.mktemp("watched") / "shop", {"workflows/guests.py": _WORKFLOW})
    (root / "dagster.yaml").write_text((Path(__file__).parents[2] / "template/dagster.yaml").read_text())
    dagster = {"CASCADE_DAGSTER_URL": stack.environment["CASCADE_DAGSTER_URL"]}
    project = Project(root, stranger(tmp_path_factory.mktemp("home")) | fresh_lake(stack, "nessie") | dagster)
    for age, code in ((30, 0), (3, 1)):
        (root / "guests.json").write_text(json.dumps([{"id": 1, "age": age}]))
        done = project.cascade("run")
        assert done.returncode == code, done.stdout + done.stderr
    return project


@pytest.fixture(scope="module")
def prometheus(programs: Path, stack: Stack, shop: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of Prometheus, which asks the exporter, Trino and Nessie every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    own, alerts, exporter = free_ports(3)
    trino = stack.environment["CASCADE_TRINO__URL"].rpartition(":")[2]
    nessie = stack.servers["nessie"]._environment["NESSIE_MANAGEMENT_PORT"]
    text = (FILES / "prometheus/prometheus.yml").read_text().replace("30s", "1s").replace("20s", "1s")
    for target, port in zip(_TARGETS, (exporter, trino, nessie, alerts), strict=True):
        assert target in text
        text = text.replace(target, f"127.0.0.1:{port}")
    (folder / "prometheus.yml").write_text(text)
    (folder / "rules.yml").write_text((FILES / "prometheus/rules.yml").read_text())
    (folder / "alertmanager.yml").write_text((FILES / "alertmanager/alertmanager.yml").read_text())

    def server(name: str, port: int, path: str, *command: str | Path, **more: Any) -> Server:
        ready, log = answers(f"http://127.0.0.1:{port}{path}"), folder / f"{name}.log"
        options = {"environment": dict(os.environ), "folder": folder, **more}
        return Server(name, command, ready=ready, log=log, seconds=60, **options)

    make_roles(
        programs_of_servers().postgres,
        FILES / "database.sql",
        port=urlsplit(stack.superuser_url).port or 0,
        passwords={
            "POSTGRES_PASSWORD": urlsplit(stack.superuser_url).password or "",
            "POSTGRES_MONITOR_PASSWORD": "monitor",
        },
    )
    reads = {
        name: re.sub(r"//cascade_\w+:[^@]+@", "//cascade_monitor:monitor@", shop.environment[name])
        for name in ("CASCADE_CATALOG_URL", "CASCADE_DAGSTER_URL")
    }
    servers = [
        server(
            *("exporter", exporter, "/metrics", BIN / "cascade", "monitoring", "serve", "--port", str(exporter)),
            environment=shop.environment | reads,
            folder=shop.root,
        ),
        server(
            *("alertmanager", alerts, "/-/ready", programs / "prometheus-alertmanager"),
            *(f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts"),
            *("--cluster.listen-address=", f"--web.listen-address=127.0.0.1:{alerts}"),
            folder=programs.parents[1],
        ),
        server(
            *("prometheus", own, "/-/ready", programs / "prometheus", "--config.file=prometheus.yml"),
            *("--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{own}"),
        ),
    ]
    try:
        for one in servers:
            one.launch()
        for one in servers:
            one.wait()
        yield f"http://127.0.0.1:{own}"
    finally:
        for one in servers:
            one.kill()


def ask(prometheus: str, path: str, **parameters: str) -> Any:
    with direct().open(f"{prometheus}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]


def until(look: Callable[[], object], what: str) -> None:
    """Wait until something is so; the servers need a few of their seconds for it."""
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_the_exporter_reads_by_a_role_that_may_write_nothing(prometheus: str, stack: Stack) -> None:
    port = urlsplit(stack.superuser_url).port or 0
    for database, statement in (
        ("dagster", "DELETE FROM runs"),
        ("dagster", "CREATE TABLE t ()"),
        ("cascade", "CREATE TABLE t ()"),
    ):
        with psycopg.connect(url(port, "cascade_monitor", "monitor", database), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    for database in ("marts", "nessie"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(url(port, "cascade_monitor", "monitor", database))


def test_the_configurations_are_valid_and_each_rule_alerts_when_it_should(programs: Path) -> None:
    for command in (
        ["promtool", "check", "config", FILES / "prometheus/prometheus.yml"],
        ["promtool", "test", "rules", Path(__file__).with_name("alerts.yml")],
        ["amtool", "check-config", FILES / "alertmanager/alertmanager.yml"],
    ):
        done = subprocess.run([programs / command[0], *command[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case() -> None:
    def named(file: Path) -> set[str]:
        return set(re.findall(r"(?:alert|alertname): (\w+)", file.read_text()))

    assert named(Path(__file__).with_name("alerts.yml")) == named(FILES / "prometheus/rules.yml")


def test_prometheus_reads_the_exporter_trino_and_nessie(prometheus: str) -> None:
    def states() -> dict[str, tuple[str, str]]:
        targets = ask(prometheus, "targets")["activeTargets"]
        return {one["labels"]["job"]: (one["health"], one["lastError"]) for one in targets}

    until(lambda: all(state[0] != "unknown" for state in states().values()), "targets were asked")
    until(lambda: set(states().values()) == {("up", "")}, str(states()))
    assert set(states()) == {"cascade", "trino", "nessie"}


@pytest.mark.parametrize("dashboard", sorted(path.stem for path in (FILES / "dashboards").iterdir()))
def test_every_query_of_a_dashboard_has_an_answer(dashboard: str, prometheus: str) -> None:
    panels = json.loads((FILES / f"dashboards/{dashboard}.json").read_text())["panels"]
    queries = {target["expr"].replace("$__rate_interval", "10s") for panel in panels for target in panel["targets"]}
    assert len(queries) >= 8

    def silent() -> list[str]:
        return [query for query in queries if not ask(prometheus, "query", query=query)["result"]]

    # Nobody's request has failed yet, and nothing was refused.
    until(lambda: not silent(), f"no series: {silent()}")


def test_a_run_and_a_check_that_failed_reach_alertmanager(prometheus: str) -> None:
    place = ask(prometheus, "alertmanagers")["activeAlertmanagers"][0]["url"].replace("/alerts", "/alerts?active=true")

    def alerts() -> set[str]:
        with direct().open(place, timeout=10) as answer:
            return {one["labels"]["alertname"] for one in json.load(answer)}

    until(lambda: {"RunFailed", "CheckFailing"} <= alerts(), str(alerts()))
    firing = {one["labels"]["alertname"] for one in ask(prometheus, "alerts")["alerts"]}
    assert firing == {"RunFailed", "CheckFailing"}


def test_grafana_finds_the_dashboards_and_prometheus_where_compose_puts_them() -> None:
    service = yaml.safe_load((FILES.parent / "service.yaml").read_text())["compose"]["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in service["volumes"])
    (provider,) = yaml.safe_load((FILES / "grafana/dashboards/cascade.yaml").read_text())["providers"]
    assert provider["options"]["path"] == mounted["./files/dashboards"]
    assert service["environment"]["GF_PATHS_PROVISIONING"] == mounted["./files/grafana"]
    (source,) = yaml.safe_load((FILES / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["uid"] == "prometheus"
