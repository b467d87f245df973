"""`.env` is completed: nothing that is there changes, secrets are random and private.

Modules: `cascade_services.env`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.config import load_settings
from cascade.errors import ConfigurationError
from cascade_services.env import complete_env

EXAMPLE = """\
# What this file is for.

# Ports.
POSTGRES_PORT=5432

# Passwords.
POSTGRES_DAGSTER_PASSWORD=<generated>
CASCADE_DAGSTER_URL=postgresql://dagster:${POSTGRES_DAGSTER_PASSWORD}@127.0.0.1:${POSTGRES_PORT}/dagster
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "services").mkdir()
    (tmp_path / "services/env.example").write_text(EXAMPLE)
    (tmp_path / "pyproject.toml").write_text("[tool.cascade]\n")
    return tmp_path


def test_a_new_file_holds_every_key_with_its_comment(project: Path) -> None:
    found = complete_env(project)
    assert found.written == ("POSTGRES_PORT", "POSTGRES_DAGSTER_PASSWORD", "CASCADE_DAGSTER_URL")
    text = (project / ".env").read_text()
    assert text.startswith("# Ports.\nPOSTGRES_PORT=5432\n\n# Passwords.\nPOSTGRES_DAGSTER_PASSWORD=")
    assert "<generated>" not in text
    assert "What this file is for" not in text


def test_only_the_owner_can_read_it(project: Path) -> None:
    (project / ".env").write_text("MINE=1\n")
    (project / ".env").chmod(0o644)
    complete_env(project)
    assert (project / ".env").stat().st_mode & 0o777 == 0o600


def test_what_is_there_stays(project: Path) -> None:
    """Whatever its order, case, or a missing end of line."""
    before = "# Mine.\nexport POSTGRES_PORT = 6000\nMINE='a b'\ncascade_dagster_url=postgresql://mine@there/x"
    (project / ".env").write_text(before)
    found = complete_env(project)
    assert found.kept == ("POSTGRES_PORT", "CASCADE_DAGSTER_URL")
    assert found.written == ("POSTGRES_DAGSTER_PASSWORD",)
    assert (project / ".env").read_text().startswith(before + "\n\n# Passwords.\nPOSTGRES_DAGSTER_PASSWORD=")


def test_a_second_call_changes_nothing(project: Path) -> None:
    complete_env(project)
    before = (project / ".env").read_bytes()
    assert complete_env(project).written == ()
    assert (project / ".env").read_bytes() == before


def test_a_key_that_an_update_brings_is_added(project: Path) -> None:
    complete_env(project)
    before = (project / ".env").read_text()
    (project / "services/env.example").write_text(EXAMPLE + "\n# Later.\nTRINO_PORT=8080\n")
    assert complete_env(project).written == ("TRINO_PORT",)
    assert (project / ".env").read_text() == before + "\n# Later.\nTRINO_PORT=8080\n"


def test_settings_take_the_passwords_in(project: Path) -> None:
    """One password, named once: addresses refer to it."""
    complete_env(project)
    line = next(line for line in (project / ".env").read_text().splitlines() if line.startswith("POSTGRES_DAGSTER"))
    password = line.partition("=")[2]
    url = load_settings(project).dagster_url
    assert url is not None
    assert url.get_secret_value() == f"postgresql://dagster:{password}@127.0.0.1:5432/dagster"


def test_every_project_has_its_own_secrets(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "services").mkdir()
    (other / "services/env.example").write_text(EXAMPLE)
    complete_env(project)
    complete_env(other)
    assert (project / ".env").read_text() != (other / ".env").read_text()


def test_a_link_stays_a_link(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = tmp_path_factory.mktemp("kept") / "env"
    (project / ".env").symlink_to(kept)
    complete_env(project)
    assert (project / ".env").is_symlink()
    assert "POSTGRES_PORT=5432" in kept.read_text()


def test_a_project_from_before_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="copier update"):
        complete_env(tmp_path)
