"""`services:` in cascade.yaml: what it says is merged by the real compose client, and refused where it makes no sense.

Modules: `cascade_services.chosen`, `cascade_services.settings`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cascade.config import load_settings
from cascade.errors import CascadeError, ConfigurationError
from cascade_services.chosen import choose, compose_files, containers_of, env_lines
from cascade_services.containers import ask_compose
from cascade_services.env import complete_env, read_env
from support.packages import install

AddService = Callable[..., None]

DASHBOARDS = """
name: dashboards
title: Dashboards
description: Dashboards over the marts.
category: dashboards
needs: [postgres]
ports: {DASHBOARDS_PORT: {default: 8088, meaning: The pages}}
settings:
  DASHBOARDS_KEY: {secret: true, description: Signs cookies.}
  DASHBOARDS_ROWS: {type: integer, default: 10000, description: How many rows at most.}
  DASHBOARDS_TITLE: {default: "it's ours, #1", description: Above each page.}
  DASHBOARDS_MAIL: {type: url, description: Where it sends mail.}
compose:
  x-own: &own {init: true}
  services:
    dashboards:
      <<: *own
      image: dashboards:6.1
      ports: ["127.0.0.1:${DASHBOARDS_PORT:?is not in .env; run cascade services env}:8088"]
      environment: {KEY: "${DASHBOARDS_KEY:?is not in .env; run cascade services env}"}
      networks: [state]
      volumes: ["./files:/app/files:ro", "dashboards:/data"]
      depends_on: {postgres: {condition: service_healthy}}
    dashboards-worker: {image: "dashboards:6.1", networks: [state]}
  volumes: {dashboards: {}}
"""


def write(project: Path, services: str) -> None:
    (project / "cascade.yaml").write_text("services:\n" + "".join(f"  {line}\n" for line in services.splitlines()))


def merged(project: Path) -> dict[str, Any]:
    """What the real client makes of all files."""
    settings = load_settings(project)
    files = compose_files(choose(project, settings.sources), settings)
    whole: dict[str, Any] = json.loads(ask_compose(project, "config", "--format", "json", files=files))
    return whole


def test_without_a_word_nothing_is_written(project: Path, add_service: AddService) -> None:
    """The client finds compose.yaml by itself, also that of podman."""
    add_service("dashboards", DASHBOARDS)
    chosen = choose(project)
    assert [one.name for one in chosen.enabled] == ["dagster", "nessie", "postgres", "s3", "trino"]
    assert chosen.services["dashboards"].reason == "off unless cascade.yaml enables it"
    assert compose_files(chosen, load_settings(project)) == ()
    assert not (project / ".cascade/services").exists()


def test_a_package_joins_the_project_and_the_owner_has_the_last_word(project: Path, add_service: AddService) -> None:
    add_service("dashboards", DASHBOARDS)
    (project / "compose.override.yaml").write_text("services: {trino: {cpus: 3}}\n")
    write(
        project,
        """\
dashboards:
  enabled: true
  ports: !override ["127.0.0.1:9000:8088"]
  environment: {THEME: dark}
  volumes: ["./mine:/mine:ro"]
  mem_limit: 2g
  profiles: !reset null
dashboards-worker: {enabled: false}
web: {healthcheck: !reset null}
mail:
  type: inline
  image: mail:1
  depends_on: [postgres]
""",
    )
    complete_env(project, env_lines(choose(project)))
    services = merged(project)["services"]
    assert {"postgres", "trino", "mail", "dashboards"} < services.keys()
    assert "dashboards-worker" not in services
    found = services["dashboards"]
    assert [port["published"] for port in found["ports"]] == ["9000"]
    assert found["environment"] == {"KEY": read_env(project)["DASHBOARDS_KEY"], "THEME": "dark"}
    assert found["mem_limit"] == str(2 * 2**30)
    assert [mount["source"] for mount in found["volumes"]] == [
        str(project.parent / "packages/dashboards/files"),
        "dashboards",
        str(project / "mine"),
    ]
    assert found["init"] is True
    assert "healthcheck" not in services["web"]
    assert services["trino"]["cpus"] == 3
    assert load_settings(project).plugins["services"]  # and no other command minds the tags


def test_env_gets_what_enabled_packages_want(project: Path, add_service: AddService) -> None:
    add_service("dashboards", DASHBOARDS)
    assert env_lines(choose(project)) == []
    write(project, "dashboards: {enabled: true}")
    complete_env(project, env_lines(choose(project)))
    values = read_env(project)
    assert (values["DASHBOARDS_PORT"], values["DASHBOARDS_ROWS"]) == ("8088", "10000")
    assert values["DASHBOARDS_TITLE"] == "it's ours, #1"
    assert len(values["DASHBOARDS_KEY"]) == 48
    assert "DASHBOARDS_MAIL" not in values  # nobody can know it: start and doctor ask for it
    before = (project / ".env").read_text()
    assert complete_env(project, env_lines(choose(project))).written == ()
    assert (project / ".env").read_text() == before


def test_services_of_compose_yaml_can_be_switched_off(project: Path) -> None:
    complete_env(project)
    write(project, "dagster: {enabled: false}\ntrino: {enabled: false}\nnessie: {enabled: false, mem_limit: 1g}")
    assert merged(project)["services"].keys() == {"postgres", "s3", "bucket"}
    write(project, "daemon: {enabled: false}")
    assert merged(project)["services"].keys() == {"web", "code", "postgres", "s3", "bucket", "nessie", "trino"}
    write(project, "web: {}")
    assert len(merged(project)["services"]) == 8
    assert not list((project / ".cascade/services").iterdir())  # nothing of before is left


def test_servers_of_ones_own_stay(project: Path) -> None:
    """`COMPOSE_FILE` in `.env` names the files, as without any package."""
    complete_env(project)
    with (project / ".env").open("a") as env:
        env.write("COMPOSE_FILE=compose.yaml:services/own-s3.yaml\nS3_INSIDE=https://s3.example.org\n")
    write(project, "mail: {type: inline, image: 'mail:1'}")
    assert merged(project)["services"].keys() == {"web", "daemon", "code", "postgres", "nessie", "trino", "mail"}


def test_services_that_were_added_to_the_projects_own_files_are_services_too(project: Path) -> None:
    complete_env(project)
    (project / "compose.override.yaml").write_text("services: {crm: {image: 'crm:7'}, trino: {cpus: 1}}\n")
    found = choose(project).services["crm"]
    assert (found.origin, found.images, found.enabled) == ("compose.yaml", ("crm:7",), True)
    assert containers_of(choose(project), ["crm"]) == ("crm",)
    write(project, "crm: {mem_limit: 1g}")
    assert merged(project)["services"]["crm"]["mem_limit"] == str(2**30)
    write(project, "crm: {enabled: false}")
    assert "crm" not in merged(project)["services"]
    write(project, "crm: {type: inline, image: 'crm:8'}")
    with pytest.raises(ConfigurationError, match=r"is inline, but the service compose\.yaml brings one of this name"):
        choose(project)


def test_a_project_without_containers_has_no_core(project: Path, add_service: AddService) -> None:
    add_service("dashboards", DASHBOARDS)
    text = (project / "compose.yaml").read_text("utf-8")
    (project / "compose.yaml").write_text(text.replace("\n  trino:\n", "\n  sql:\n"))
    assert [one.name for one in choose(project).enabled] == ["dagster", "nessie", "postgres", "s3", "sql"]
    (project / "compose.yaml").unlink()
    chosen = choose(project)
    assert chosen.enabled == ()
    assert chosen.services["trino"].reason == "compose.yaml does not have it"
    write(project, "dashboards: {enabled: true}")
    with pytest.raises(ConfigurationError, match="`dashboards` needs `postgres`, which is not enabled"):
        choose(project)


def test_services_and_containers_are_named(project: Path) -> None:
    chosen = choose(project)
    assert containers_of(chosen, ["dagster", "s3", "web"]) == ("web", "daemon", "code", "s3", "bucket")
    assert containers_of(chosen, []) == ()
    with pytest.raises(CascadeError, match=r"no service trno \(is it `trino`\?\)"):
        containers_of(chosen, ["trno"])
    write(project, "dagster: {enabled: false}")
    with pytest.raises(CascadeError, match="dagster is not enabled: switched off"):
        containers_of(choose(project), ["dagster"])


@pytest.mark.parametrize(
    ("services", "said"),
    [
        (
            "postgres: {enabled: false}",
            "`nessie` needs `postgres`, which is not enabled: enable `postgres`, or disable `nessie`",
        ),
        ("trino: {enabled: false}", "`dagster` needs `trino`"),
        ("dashboards: {enabled: true}\ndagster: {enabled: false}\nnessie: {enabled: false}", "`trino` needs `nessie`"),
        ("trnio: {enabled: false}", "has one (is it `trino`?)"),
        ("mail: {image: 'mail:1'}", "`uv sync --extra mail`), or say `type: inline`"),
        ("trino: {prots: []}", "`services.trino.prots`: there is no such key (is it `ports`?)"),
        ("trino: {enabled: maybe}", "`services.trino.enabled` must be true or false"),
        ("trino: [ports]", "`services.trino` must be a mapping"),
        ("mail: {type: outline, image: x}", "`services.mail.type` can be `inline` alone"),
        ("trino: {type: inline, image: x}", "`services.trino` is inline, but core brings one of this name"),
        ("web: {type: inline, image: x}", "`services.web` is inline, but the service dagster brings one of this name"),
        ("dashboards: {type: inline, image: x}", "is inline, but dashboards-pack 1.0 brings one of this name"),
        ("dagster: {mem_limit: 1g}", "has no container of that name: write it for one of web, daemon, code"),
        ("dashboards: {enabled: true}\nother: {enabled: true}", "both have a container `dashboards`"),
        (
            "broken: {enabled: true}",
            "`broken` cannot be used: `name`: Field required; `nam`: there is no such key (is it `name`?)",
        ),
    ],
    ids=range(15),
)
def test_what_makes_no_sense_is_refused(project: Path, add_service: AddService, services: str, said: str) -> None:
    add_service("dashboards", DASHBOARDS)
    add_service("other", DASHBOARDS.replace("name: dashboards", "name: other", 1))
    add_service("broken", DASHBOARDS.replace("name: dashboards", "nam: broken", 1))
    write(project, services)
    with pytest.raises(ConfigurationError) as caught:
        choose(project)
    assert said in str(caught.value)
    assert "cascade.yaml" in caught.value.where


def test_all_problems_are_told_together(project: Path) -> None:
    write(project, "trnio: {enabled: true}\ns3: {enabled: false, prots: []}")
    with pytest.raises(ConfigurationError) as caught:
        choose(project)
    for part in ("`services.trnio`", "`services.s3.prots`", "`trino` needs `s3`"):
        assert part in str(caught.value)


def test_two_packages_of_one_name_are_refused(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        entry = f"[cascade.plugins.services]\ncache = {name}_pack:Found\n"
        install(tmp_path / name, monkeypatch, {f"{name}-pack": (entry, "")})
    write(project, "cache: {enabled: true}")
    with pytest.raises(ConfigurationError, match=r"`cache` cannot be used: .*two-pack brings one of this name, too"):
        choose(project)


def test_what_depends_on_a_container_that_is_gone_is_named_by_the_client(project: Path) -> None:
    """Its rules are not repeated: also circles, and values of a wrong type."""
    complete_env(project)
    for services, said in (
        ("code: {enabled: false}", r'service "\w+" depends on undefined service "code"'),
        ("trino: {depends_on: {code: {condition: service_started}}}", "dependency cycle detected"),
        ("trino: {mem_limit: [1]}", "mem_limit"),
    ):
        write(project, services)
        with pytest.raises(ConfigurationError, match=said):
            merged(project)


def test_a_place_that_nobody_reads_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_SERVICES__TRINO", '{"enabled": false}')
    with pytest.raises(ConfigurationError, match=r"`services\.trino` is in environment: services are read from"):
        choose(project, load_settings(project).sources)
