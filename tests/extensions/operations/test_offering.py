"""The packages that can be installed: the registry is that of the release, and its file is checked.

Modules: `cascade_operations.offering`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade.errors import ConfigurationError
from cascade_operations.offering import REGISTRY, search_plugins

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_registry_is_the_whole_offering_and_says_what_is_installed() -> None:
    """Its text is compared by the test of the reference, which is generated from the same manifests."""
    offers = search_plugins()
    folders = {folder.parent.name for folder in REPOSITORY.glob("extensions/*/pyproject.toml")}
    assert {offer.package for offer in offers} == {f"cascade-{name}" for name in folders}
    assert {offer.installed for offer in offers} == {"0.1.0"}


@pytest.mark.parametrize(
    ("words", "found"),
    [(["DLT", "sources"], ["cascade-dlt"]), (["polars.LazyFrame"], ["cascade-forms"]), (["no!"], [])],
)
def test_packages_are_found_by_all_words(words: list[str], found: list[str]) -> None:
    assert [offer.package for offer in search_plugins(words)] == found


def test_a_team_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "team.json"
    file.write_text(json.dumps([{"package": "team-crm", "description": "Our CRM."}]))
    (offer,) = search_plugins(["crm"], registry=file)
    assert (offer.package, offer.installed) == ("team-crm", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "Invalid JSON"),
        ("{}", "valid array"),
        ('[{"package": "a"}]', "0.description: Field required"),
        ('[{"package": "a", "description": "b", "groups": {}}]', "0.groups: Extra inputs are not permitted"),
        ('[{"package": "a", "description": "b", "brings": {"g": "x"}}]', "0.brings.g: Input should be a valid array"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_place(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "team.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        search_plugins(registry=file)
    assert said in str(caught.value)
    assert str(file) in caught.value.where
    assert REGISTRY.exists()
