"""What `service.yaml` may say, and that a broken one costs itself: also the core services, against compose.yaml.

Modules: `cascade_services.schema`, `cascade_services.known`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import check_jsonschema
import pytest
import yaml

from cascade.errors import ConfigurationError
from cascade_services.known import core_services, find_services
from cascade_services.schema import COMPOSE_KEYS, read_service
from support.generated import REPOSITORY
from support.packages import install

AddService = Callable[..., None]

GOOD = """
name: cache
title: Cache
description: Remembers.
category: api
needs: [postgres]
ports: {CACHE_PORT: {default: 6379, meaning: Its pages}}
settings: {CACHE_KEY: {secret: true, description: Opens it.}}
compose: {x-service: {init: true}, services: {cache: {image: "cache:1"}}}
"""


def test_every_problem_is_told_with_its_key_and_the_nearest_one() -> None:
    said = {
        "name": "My Cache",
        "titel": "Cache",
        "category": "caches",
        "ports": {"CACHE_PORT": {"default": 0, "meaning": "x", "meening": "y"}},
        "settings": {"CACHE_KEY": {"default": ["geheim"], "description": "x"}},
        "compose": {"volums": {}, "services": {"cache": {"image": "cache:1", "prots": []}, "other": None}},
    }
    with pytest.raises(ConfigurationError) as caught:
        read_service(said, where="there/service.yaml")
    for part in (
        "`name`: ",
        "`titel`: there is no such key (is it `title`?)",
        "`description`: Field required",
        "`category`: Input should be 'orchestration'",
        "`ports.CACHE_PORT.default`: ",
        "`ports.CACHE_PORT.meening`: there is no such key (is it `meaning`?)",
        "`compose.volums`: there is no such key (is it `volumes`?)",
        "`compose.services.cache.prots`: there is no such key (is it `ports`?)",
        "`compose.services.other`: it must be a mapping",
        "there/service.yaml",
    ):
        assert part in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("said", [None, [], "x", {}, {"compose": {"services": {}}}])
def test_what_is_no_service_at_all_is_refused(said: object) -> None:
    with pytest.raises(ConfigurationError):
        read_service(said, where="service.yaml")


def test_the_keys_are_those_of_the_compose_specification() -> None:
    file = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    parts = json.loads(file.read_text("utf-8"))["$defs"]
    theirs = {key for part in ("service", "container_spec", "workload_spec") for key in parts[part]["properties"]}
    assert theirs == COMPOSE_KEYS


def test_a_broken_service_costs_itself_and_says_why(tmp_path: Path, add_service: AddService) -> None:
    def named(name: str, needs: str = "") -> str:
        return GOOD.replace("name: cache", f"name: {name}", 1).replace("[postgres]", f"[{needs}]")

    services = {
        "cache": GOOD,
        "broken": "name: [",
        "wrong": GOOD + "prots: {}\n",
        "other": GOOD,
        "trino": named("trino"),
        "lonely": named("lonely", "nothing"),
        "chick": named("chick", "egg"),
        "egg": named("egg", "chick"),
        "hungry": named("hungry", "egg"),
    }
    for name, said in services.items():
        add_service(name, said)
    found = find_services()
    ours = "cascade-"  # packages that this environment has besides
    good = {name for name, known in found.items() if known.service and not known.origin.startswith(ours)}
    assert good == {"cache", "dagster", "nessie", "postgres", "s3", "trino"}
    assert (found["cache"].folder, found["cache"].origin) == (tmp_path / "packages/cache", "cache-pack 1.0")
    problems = {name: known.problem for name, known in found.items() if known.problem}
    assert str(tmp_path / "packages/broken") in problems["broken"]
    assert "`prots`: there is no such key (is it `ports`?)" in problems["wrong"]
    assert "`name`: it is cache, but its entry point is other" in problems["other"]
    assert problems["trino of trino-pack 1.0"] == "a service of compose.yaml has this name"
    assert problems["lonely"] == "it needs nothing, which is not there"
    assert "in a circle: " in problems["chick"] == problems["egg"]
    assert problems["hungry"] == "it needs egg, which is not there"


def test_two_packages_of_one_name_are_refused_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        entry = f"[cascade.plugins.services]\ncache = {folder}_pack:Found\n"
        install(tmp_path / folder, monkeypatch, {f"{folder}-pack": (entry, "")})
    assert "brings one of this name, too" in find_services()["cache"].problem


def test_what_the_core_services_say_is_what_the_project_has() -> None:
    """Ports and settings are the keys of env.example, needs are what containers depend on: one source for each."""
    services = core_services()
    template = REPOSITORY / "template"
    lines = (template / "services/env.example").read_text("utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    ports = {key: str(port.default) for service in services.values() for key, port in service.ports.items()}
    settings = {key: setting for service in services.values() for key, setting in service.settings.items()}
    assert {key: value for key, value in example.items() if key.endswith("_PORT")} == ports
    assert set(example) == ports.keys() | settings.keys()
    secret = {key for key, setting in settings.items() if setting.secret}
    assert secret == {key for key, value in example.items() if value == "<generated>"}

    whole = (template / "compose.yaml.jinja").read_text("utf-8")
    source = re.sub(r"\{%- if.*?\{%- endif %\}", "", whole, flags=re.DOTALL)
    containers = yaml.safe_load(source)["services"]
    owner = {container: name for name, service in services.items() for container in service.containers}
    assert owner.keys() == containers.keys()
    needs: dict[str, set[str]] = {name: set() for name in services}
    published: dict[str, set[str]] = {name: set() for name in services}
    for container, said in containers.items():
        needs[owner[container]] |= {owner[other] for other in said.get("depends_on", {})} - {owner[container]}
        published[owner[container]] |= {re.findall(r"\{(\w+):-", port)[0] for port in said.get("ports", [])}
    assert needs == {name: set(service.needs) for name, service in services.items()}
    assert published == {name: set(service.ports) for name, service in services.items()}
