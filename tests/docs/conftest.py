"""Where the commands of a page run: the environment of a stranger."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.generated import stranger


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of ours is set, and nothing is activated."""
    return stranger(tmp_path) | {"UV_NO_PROGRESS": "1"}
