"""The promises of `cascade.config`: where settings come from, which wins, and what a wrong one is answered with."""

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from pydantic import ValidationError

from cascade.config import Settings, find_project_dir, load_settings, setting_sources
from cascade.errors import ConfigurationError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project without settings, and the working folder; the environment ends as it began."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    monkeypatch.chdir(root)
    with mock.patch.dict(os.environ):
        yield root


# --- the project ------------------------------------------------------------------------------------------


def test_a_project_is_found_from_any_folder_in_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / "workflows" / "ingestion"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert find_project_dir() == project


def test_the_nearest_project_wins(project: Path) -> None:
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[tool.cascade]\n")
    assert find_project_dir(inner) == inner


def test_a_package_without_our_table_is_no_project(project: Path) -> None:
    package = project / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert find_project_dir(package) == project


def test_the_variable_names_the_project_from_anywhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    monkeypatch.setenv("CASCADE_PROJECT_DIR", "project")
    assert load_settings().project_dir == project


def test_a_variable_that_names_no_folder_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_PROJECT_DIR", str(project / "gone"))
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        find_project_dir()
    assert "unset CASCADE_PROJECT_DIR" in caught.value.fix


def test_outside_of_a_project_one_is_told_how_to_get_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a Cascade project") as caught:
        find_project_dir(tmp_path)
    assert (caught.value.where, "copier copy" in caught.value.fix) == (str(tmp_path), True)


# --- values -----------------------------------------------------------------------------------------------


def test_without_settings_all_have_their_default(project: Path) -> None:
    settings = load_settings()
    assert settings == Settings(project_dir=project)
    assert set(setting_sources(settings).values()) == {"default", "found"}


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


SOURCES = ["environment", ".env", "cascade.yaml", "cascade_config.py", "pyproject.toml"]


def _set_branch(project: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = source.replace(".", "_").strip("_")
    if source == "environment":
        monkeypatch.setenv("CASCADE_BRANCH", name)
        return
    text = {
        ".env": f"CASCADE_BRANCH={name}\nPOSTGRES_PASSWORD=x\n",
        "cascade.yaml": f"branch: {name}\n",
        "cascade_config.py": f"import os\nbranch = {name!r}\n",
        "pyproject.toml": f'[tool.cascade]\nbranch = "{name}"\n',
    }
    (project / source).write_text(text[source])


@pytest.mark.parametrize("winner", SOURCES)
def test_the_strongest_source_wins_and_is_named(project: Path, winner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in SOURCES[SOURCES.index(winner) :]:
        _set_branch(project, source, monkeypatch)
    settings = load_settings()
    assert settings.branch == winner.replace(".", "_").strip("_")
    assert setting_sources(settings)["branch"] == winner


def test_sources_complete_each_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "cascade.yaml").write_text("timezone: Europe/Amsterdam\npartitions_start: 2020-02-01\n")
    monkeypatch.setenv("CASCADE_BRANCH", "mine")
    settings = load_settings()
    assert (settings.branch, settings.timezone, settings.partitions_start) == (
        "mine",
        "Europe/Amsterdam",
        dt.date(2020, 2, 1),
    )


def test_paths_are_relative_to_the_project_and_absolute_in_use(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "cascade.yaml").write_text("data_dir: ../data\ndbt_dir: dbt\n")
    monkeypatch.chdir("/")
    settings = load_settings(project)
    assert settings.data_path == project.parent / "data"
    assert (settings.dbt_path, settings.workflows_path) == (project / "dbt", project / "workflows")
    assert settings.marts_path.parent == settings.data_path


def test_home_is_understood_in_a_path(project: Path) -> None:
    (project / "cascade.yaml").write_text("data_dir: ~/data\n")
    assert load_settings().data_path == Path.home() / "data"


def test_settings_never_change(project: Path) -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.branch = "other"  # type: ignore[misc]


def test_names_of_others_in_dotenv_are_in_the_environment_which_wins(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow that reads an API key finds it in every command, as under `dagster dev`."""
    (project / ".env").write_text("SHOP_KEY=theirs\nSHOP_HOST=a\nSHOP_URL=http://${SHOP_HOST}\nCASCADE_BRANCH=mine\n")
    monkeypatch.setenv("SHOP_KEY", "mine")
    settings = load_settings()
    assert (os.environ["SHOP_KEY"], os.environ["SHOP_URL"]) == ("mine", "http://a")
    assert setting_sources(settings)["branch"] == ".env"


def test_a_dictionary_of_settings_in_python_is_taken(project: Path) -> None:
    (project / "cascade_config.py").write_text('CASCADE_CONFIG = {"branch": "x", "timezone": "Asia/Tokyo"}\n')
    settings = load_settings()
    assert (settings.branch, settings.timezone) == ("x", "Asia/Tokyo")
    assert setting_sources(settings)["branch"] == "cascade_config.py"


@pytest.mark.parametrize(
    "name",
    [
        "CASCADE_RUN_BRANCH",
        "CASCADE_DBT_MACROS",
        # Kubernetes tells every container of services that are called cascade, or cascade-trino, in this way.
        "CASCADE_PORT",
        "CASCADE_SERVICE_HOST",
        "CASCADE_SERVICE_PORT_HTTP",
        "CASCADE_TRINO_PORT_8080_TCP_ADDR",
    ],
)
def test_variables_that_are_no_settings_are_left_alone(
    project: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    assert load_settings().branch == "dev"


# --- what is wrong ----------------------------------------------------------------------------------------

WRONG = {
    "misspelt_dotenv": (".env", "CASCADE_BRANHC=x\n", "`branhc` is not a setting"),
    "misspelt_yaml": ("cascade.yaml", "brnch: x\n", "`brnch` is not a setting"),
    "misspelt_toml": ("pyproject.toml", '[tool.cascade]\nbrnch = "x"\n', "`brnch` is not a setting"),
    "timezone": ("cascade.yaml", "timezone: Mars/North\n", "'Mars/North' is not a time zone.*Europe/Amsterdam"),
    "timezone_path": ("cascade.yaml", "timezone: ../../etc\n", "is not a time zone"),
    "day": ("cascade.yaml", "partitions_start: soon\n", "`partitions_start`"),
    "line_dotenv": (".env", "A=1\nMY KEY=2\n", "Line 2 of .env is not NAME=value"),
    "binary_dotenv": (".env", b"\xff\xfe\x00", ".env cannot be read"),
    "branch": ("cascade.yaml", "branch: a b\n", "'a b' is not a name for a branch: begin with a letter"),
    "main": ("cascade.yaml", "branch: main\n", "`main` is never written directly"),
    "broken_yaml": ("cascade.yaml", "a: [\n", "cascade.yaml cannot be read"),
    "list_yaml": ("cascade.yaml", "- a\n", "must hold settings as"),
    "broken_toml": ("pyproject.toml", "[tool.cascade\n", "pyproject.toml cannot be read"),
    "broken_python": ("cascade_config.py", "branch = 1 / 0\n", "cascade_config.py fails: ZeroDivisionError"),
    "misspelt_python": ("cascade_config.py", "CASCADE_CONFIG = {'brnch': 'x'}\n", "`brnch` is not a setting"),
    "list_python": ("cascade_config.py", "CASCADE_CONFIG = ['x']\n", "CASCADE_CONFIG .* must be a dictionary"),
    "binary": ("cascade.yaml", b"\xff\xfe\x00", "cascade.yaml cannot be read"),
}


@pytest.mark.parametrize(("file", "text", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_a_configuration_error_with_a_way_out(
    project: Path, file: str, text: str | bytes, said: str
) -> None:
    (project / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings(project)
    assert caught.value.fix
    assert caught.value.exit_code == 2


def test_a_misspelt_variable_is_refused_as_in_dotenv(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_BRANHC", "x")
    with pytest.raises(ConfigurationError, match="`branhc` is not a setting"):
        load_settings(project)


def test_all_wrong_settings_are_named_together_beside_those_that_exist(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "cascade.yaml").write_text("brnch: x\ntimezone: Mars\n")
    monkeypatch.setenv("CASCADE_PARTITIONS_START", "soon")
    with pytest.raises(ConfigurationError, match=r"`brnch`.*`timezone`|`timezone`.*`brnch`") as caught:
        load_settings()
    assert "partitions_start" in caught.value.what
    assert "branch, ca_file" in caught.value.fix
