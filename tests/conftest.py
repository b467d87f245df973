"""What every folder of tests has: the options `--on-servers` and `--whole`, and the real servers."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# A run starts a thousand processes. Where the machine says that none may keep its bytecode, each of them compiles all
# its imports again, which takes longer than all else that most of them do.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Nessie and Trino live for some minutes, of which Java's second compiler, made for days, takes half the processor.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

if TYPE_CHECKING:
    from support.servers.stack import Stack

HERE = Path(__file__).resolve().parent
#: Folders whose tests run without servers, and again on servers where these can change the answer.
ON_BOTH = ("runtime", "extensions", "faults")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-servers",
        action="store_true",
        help="of tests/runtime, extensions and faults, run what can differ on PostgreSQL, S3 and Nessie, on these",
    )
    parser.addoption(
        "--whole",
        action="store_true",
        help="every step of the long loops of kills and restarts, and every mixture of catalog and storage",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_servers(*kinds, shared=False): implementations that the promises hold for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With servers, leave out what does not need them and has run without; without, what starts servers itself."""
    with_servers = config.getoption("--on-servers")
    out = []
    for item in items:
        if item.path.relative_to(HERE).parts[0] in ON_BOTH:
            fixtures: list[str] = item.fixturenames  # type: ignore[attr-defined]
            needs_servers = "stack" in fixtures or (
                with_servers and _kinds_of(item.iter_markers, fixtures, item.path, config)
            )
            if bool(needs_servers) != with_servers:
                out.append(item)
    if out:
        left_out = set(out)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("--on-servers"):
        definition = metafunc.definition
        kinds = _kinds_of(definition.iter_markers, metafunc.fixturenames, definition.path, metafunc.config)
        if kinds:
            metafunc.parametrize("lake_kind", kinds, scope="module")


def _kinds_of(
    markers: Callable[[str], Iterator[pytest.Mark]], fixtures: list[str], file: Path, config: pytest.Config
) -> list[str]:
    """Return the implementations on servers that a test runs on."""
    from support.servers.lakes import KINDS

    named = next(markers("on_servers"), None)
    if named:
        return list(named.args)
    if "open_lake" not in fixtures:
        return []
    if config.getoption("--whole"):
        return sorted(KINDS)
    # Catalogs differ by their database, all else by where files are; each mixture of both is for `--whole`.
    return ["nessie", "postgresql" if file.stem.startswith("test_catalog") else "s3"]


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether loops of kills, restarts and writers go all their way; else a fixed part of it."""
    return bool(request.config.getoption("--whole"))


@pytest.fixture(scope="session")
def stack() -> "Iterator[Stack]":
    """PostgreSQL, S3, Nessie and Trino, started once for all tests that ask for them."""
    from support.servers.stack import Stack

    with Stack() as servers:
        yield servers
