"""Nothing of the developer's machine reaches the tests of the extensions."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith(("CASCADE_", "DAGSTER_", "DBT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
