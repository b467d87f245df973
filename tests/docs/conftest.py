"""Where the commands of a page run: an empty folder, and the environment of a stranger."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No settings of ours, no configuration of git; copier and uv are found."""
    (tmp_path / "gitconfig").write_text("[user]\nname = T\nemail = t@example.com\n[init]\ndefaultBranch = main\n")
    hidden = (
        "CASCADE_",
        "DAGSTER_",
        "DBT_",
        "COPIER_",
        "GIT_CONFIG",
        "GIT_DIR",
        "PYTEST_",
        "UV_PROJECT",
        "VIRTUAL_ENV",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    path = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])
    return clean | {
        "PATH": path,
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "COPIER_SETTINGS_PATH": str(tmp_path / "no-settings.yml"),
        "UV_NO_PROGRESS": "1",
        "COLUMNS": "120",
    }
