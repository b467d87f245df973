"""S3 is reached with the keys of the settings, or with those that the machine has for everybody."""

from pathlib import Path

import pytest

from cascade.catalog import MAIN, open_catalog
from cascade.config import Settings
from cascade.errors import ServiceError
from support.lakes import numbers, promoted, put, read
from support.servers.lakes import fresh_lake
from support.servers.stack import Stack

PLACE = ("warehouse", "s3_endpoint", "s3_region", "s3_path_style")


@pytest.fixture
def settings(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Files on S3, the catalog in a folder, and no keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no machine of Amazon's to ask
    found = fresh_lake(stack, "s3")
    return Settings(project_dir=tmp_path, **{name: found[f"CASCADE_{name.upper()}"] for name in PLACE})


def test_without_keys_in_the_settings_the_ambient_ones_are_used(
    settings: Settings, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stack.environment["CASCADE_S3_ACCESS_KEY"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stack.environment["CASCADE_S3_SECRET_KEY"])
    lake = open_catalog(settings)
    promoted(lake, "raw.a", numbers(1, 3))
    put(lake, "dev", "raw.a", numbers(3, 4), "merge", key=["id"])
    assert read(lake, MAIN, "raw.a") == numbers(1, 3)
    assert read(lake, "dev", "raw.a") == numbers(1, 4)


def test_without_any_keys_the_error_names_the_settings(settings: Settings) -> None:
    with pytest.raises(ServiceError, match="S3 cannot be used") as caught:
        open_catalog(settings)
    assert "s3_access_key" in str(caught.value)
