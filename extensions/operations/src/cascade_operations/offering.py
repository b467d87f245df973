"""The packages that can be installed, whether they are or not: a registry file, and a search in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from cascade.errors import ConfigurationError

__all__ = ["REGISTRY", "Offer", "search_plugins"]

#: The offering of this release: every package of it.
REGISTRY = Path(__file__).with_name("registry.json")


@dataclass(frozen=True)
class Offer:
    """A package that can be installed.

    Attributes:
        package: Its name.
        description: What it is, in one sentence.
        brings: What it brings: the names of its entry points, by group.
        installed: The version that is installed; `None` when none is.
    """

    package: str
    description: str
    brings: dict[str, list[str]] = field(default_factory=dict)
    installed: str | None = None


def search_plugins(words: Sequence[str] = (), *, registry: Path | None = None) -> list[Offer]:
    """Return the packages whose name, description or plugins have all of some words, installed ones or not.

    Args:
        words: Parts of words, in small letters or capitals; without any all packages are returned.
        registry: A registry file of your own, such as the packages of a team; by default that of this release.

    Raises:
        ConfigurationError: The file cannot be read, or does not fit the schema.
    """
    offers = _read(registry or REGISTRY)
    texts = [f"{one.package} {one.description} {json.dumps(one.brings)}".lower() for one in offers]
    return [one for one, text in zip(offers, texts, strict=True) if all(word.lower() in text for word in words)]


def _read(file: Path) -> list[Offer]:
    from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

    class Entry(BaseModel):
        model_config = ConfigDict(extra="forbid")
        package: str
        description: str
        brings: dict[str, list[str]] = {}

    try:
        entries = TypeAdapter(list[Entry]).validate_json(file.read_bytes())
    except OSError as error:
        problems = [error.strerror or str(error)]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()]
    else:
        versions = {found.name: found.version for found in metadata.distributions()}
        return [Offer(**entry.model_dump(), installed=versions.get(entry.package)) for entry in entries]
    raise ConfigurationError(
        f"The registry of plugins cannot be read: {'; '.join(problems)}.",
        where=str(file),
        fix="write a JSON list of objects with `package`, `description` and `brings` (names by group).",
    )
