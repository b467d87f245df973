"""The promises of `cascade.config`: where settings come from, which wins, and what a wrong one is answered with.

Modules: `cascade.config.files`, `cascade.config.settings`, `cascade.config.sources`.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from pydantic import ValidationError

from cascade.catalog import open_catalog
from cascade.config import Settings, build_settings, find_project_dir, hand_on, load_settings
from cascade.engine import engine_of
from cascade.errors import ConfigurationError
from cascade_operations.configuration import list_settings
from cascade_servers.settings import TrinoSettings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project without settings, and the working folder; the environment ends as it began."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.cascade]\n")
    monkeypatch.chdir(root)
    with mock.patch.dict(os.environ):
        yield root


def sources_of(settings: Settings) -> dict[str, str]:
    return {row.name: row.source for row in list_settings(settings)}


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
    assert set(sources_of(settings).values()) == {"default", "found"}
    assert settings.plugins == {}


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
    assert sources_of(settings)["branch"] == winner


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
    assert sources_of(settings)["branch"] == ".env"


def test_a_dictionary_of_settings_in_python_is_taken_and_the_file_is_executed_once(project: Path) -> None:
    count = "with open('times', 'a') as file:\n    file.write('x')\n"
    (project / "cascade_config.py").write_text(count + 'CASCADE_CONFIG = {"branch": "x", "timezone": "Asia/Tokyo"}\n')
    settings = load_settings()
    list_settings(settings)
    assert (project / "times").read_text() == "x"
    assert (settings.branch, settings.timezone) == ("x", "Asia/Tokyo")
    assert sources_of(settings)["branch"] == "cascade_config.py"


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
    "misspelt_dotenv": (".env", "CASCADE_BRANHC=x\n", "`branhc` is not a setting \\(is it `branch`\\?"),
    "misspelt_plugin": (".env", "CASCADE_TRINNO__URL=x\n", "`trinno` is not a setting.* \\(is it `trino`\\?"),
    "former_python": (
        "cascade_config.py",
        "CASCADE_CONFIG = {'dbt_project_dir': 'x', 'workflows_path': 'y'}\n",
        "`dbt_project_dir` is not a setting; it is called `dbt_dir`.*`workflows_path` .* called `workflows_dir`",
    ),
    "former_variable": ("cascade_config.py", "workflows_path = 'x'\n", "it is called `workflows_dir`"),
    "former_toml": ("pyproject.toml", '[tool.cascade]\niceberg_warehouse = "x"\n', "it is called `warehouse`"),
    "former_dotenv": (".env", "CASCADE_WORKFLOWS_PATH=x\n", "CASCADE_WORKFLOWS_DIR in the environment"),
    "undeclared": ("cascade.yaml", "project: {region: eu}\n", "declare a class ProjectSettings in cascade_config.py"),
    "no_model": ("cascade_config.py", "class ProjectSettings: pass\n", "is no class of pydantic's BaseModel"),
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
    "unknown_tag": ("cascade.yaml", "marts_url: !secret x\n", "cascade.yaml cannot be read"),
    "list_yaml": ("cascade.yaml", "- a\n", "cascade.yaml must be a dictionary"),
    "broken_toml": ("pyproject.toml", "[tool.cascade\n", "pyproject.toml cannot be read"),
    "broken_python": ("cascade_config.py", "branch = 1 / 0\n", "cascade_config.py fails: ZeroDivisionError"),
    "misspelt_python": ("cascade_config.py", "CASCADE_CONFIG = {'brnch': 'x'}\n", "`brnch` is not a setting"),
    "list_python": ("cascade_config.py", "CASCADE_CONFIG = ['x']\n", "CASCADE_CONFIG .* must be a dictionary"),
    "engine": ("cascade.yaml", "engine: spark\n", "'spark' is not an installed engine; there is embedded, trino"),
    "project": ("cascade.yaml", "project_dir: /\n", "`project_dir` is not a setting"),
    "plugins": ("cascade.yaml", "plugins: {}\nengine: spark\n", "`engine`"),
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
    with pytest.raises(ConfigurationError, match=r"`branhc` is not a setting \(is it `branch`\?"):
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


# --- settings of plugins ----------------------------------------------------------------------------------

PLUGIN = """
from pydantic import BaseModel, Field, SecretStr
class Settings(BaseModel):
    token: SecretStr = Field(description="Key of the API.")
    port: int = 10
    lists: list[str] = ["all"]
class Other:
    pass
"""


@pytest.fixture
def install(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package that brings something for a group of entry points."""
    packages = project.parent / "packages"
    packages.mkdir()
    (packages / "crm_plugin.py").write_text(PLUGIN)

    def add(package: str, entry: str, *, group: str = "cascade.settings") -> None:
        info = packages / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")

    # A folder that was never on the path: what is installed is read once for each path.
    monkeypatch.syspath_prepend(packages)
    return add


@pytest.fixture
def crm(project: Path, install: Callable[..., None]) -> Path:
    """A project with a plugin called crm, which has settings of its own."""
    install("crm", "crm = crm_plugin:Settings")
    return project


PLACES = {
    ".env": 'CASCADE_CRM__PORT=3\nCASCADE_CRM__LISTS=\'["a", "b"]\'\n',
    "cascade.yaml": "crm: {port: 3, lists: [a, b]}\n",
    "cascade_config.py": "crm = {'port': 3, 'lists': ['a', 'b']}\n",
    "pyproject.toml": '[tool.cascade.crm]\nport = 3\nlists = ["a", "b"]\n',
}


@pytest.mark.parametrize("place", ["environment", *PLACES])
def test_a_plugin_has_settings_of_its_own_in_every_place(
    crm: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also one called port, which Kubernetes might have set."""
    monkeypatch.setenv("CASCADE_CRM__TOKEN", "t0ps")
    if place == "environment":
        monkeypatch.setenv("CASCADE_CRM__PORT", "3")
        monkeypatch.setenv("CASCADE_CRM__LISTS", '["a", "b"]')
    else:
        (crm / place).write_text(PLACES[place])
    settings = load_settings()
    own = settings.plugins["crm"]
    assert (own.port, own.lists, own.token.get_secret_value()) == (3, ["a", "b"], "t0ps")
    assert sources_of(settings)["crm.port"] == place
    assert "t0ps" not in repr(settings)
    rows = {row.name: row for row in list_settings(settings)}
    assert (rows["crm.port"].value, rows["crm.port"].source) == ("3", place)
    assert (rows["crm.token"].value, rows["crm.token"].description) == ("**********", "Key of the API.")


def test_a_plugin_may_take_every_name_and_tags_of_others_are_passed_over(
    project: Path,
) -> None:
    """The table `services` is for the compose client, which knows `!override`."""
    (project / "cascade.yaml").write_text("services: {web: {ports: !override ['1:1'], cpus: 2}, db: !reset null}\n")
    settings = load_settings()
    assert dict(settings.plugins["services"]) == {"web": {"ports": None, "cpus": 2}, "db": None}
    assert settings.sources["services.db"] == "cascade.yaml"
    handed_on = build_settings(project, json.loads(hand_on(settings)))
    assert dict(handed_on.plugins["services"]) == dict(settings.plugins["services"])


def test_settings_of_plugins_that_were_not_set_are_listed_too(crm: Path) -> None:
    rows = {row.name: row for row in list_settings(load_settings())}
    assert (rows["crm.port"].value, rows["crm.port"].source) == ("10", "default")
    assert (rows["crm.token"].value, rows["crm.token"].source) == ("", "not set")
    assert rows["trino.url"].value == "http://127.0.0.1:8080"


def test_places_complete_each_other_setting_by_setting(crm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (crm / "cascade.yaml").write_text("crm: {port: 3, token: x}\ntrino: {url: 'http://a/', user: ada}\n")
    monkeypatch.setenv("CASCADE_TRINO__USER", "ben")
    settings = load_settings()
    assert settings.plugin("trino", TrinoSettings) == TrinoSettings(url="http://a", user="ben")
    assert settings.plugins["crm"].port == 3


WRONG_OF_PLUGINS = {
    "CASCADE_CRM__TOKN": "`crm.tokn` is not a setting; those of crm are lists, port, token; `crm.token`: Field",
    "CASCADE_CRN__TOKEN": "`crn` is not a setting, and no installed plugin is called so",
    "CASCADE_CRM__PORT": "`crm.token`: Field required; `crm.port`: Input should be a valid integer",
    "CASCADE_CRM__LISTS": "`crm.token`: Field required; `crm.lists`: Input should be a valid list",
    "CASCADE_CRM_TOKEN": "`crm_token` is not a setting; `token` of crm is CASCADE_CRM__TOKEN, or token in a table crm",
    "CASCADE_CRM": "`crm` is not a setting; write the settings of crm in a table crm",
    "CASCADE_TRINO__URL": "`trino.url`: it must begin with http:// or https://",
    "CASCADE_NESSIE__CLIENT_ID": "`nessie.client_id` and `nessie.client_secret` belong together",
}


@pytest.mark.parametrize("name", WRONG_OF_PLUGINS)
def test_a_wrong_setting_of_a_plugin_is_named_beside_those_of_cascade(
    crm: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("CASCADE_TIMEZONE", "Mars")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert WRONG_OF_PLUGINS[name] in str(caught.value)
    assert "`timezone`: 'Mars' is not a time zone" in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"one": "crm_plugin:Settings", "two": "crm_plugin:Settings"}, "brings one of this name, too"),
        ({"one": "crm_plugin:Gone"}, "AttributeError"),
        ({"one": "crm_plugin:Other"}, "has no `model_fields`"),
    ],
    ids=["doubly-named", "broken", "no-model"],
)
def test_a_plugin_whose_settings_cannot_be_read_costs_itself(
    project: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, entries: dict[str, str], said: str
) -> None:
    """Nothing fails as long as nothing is set for it; then it is named with its package."""
    for package, value in entries.items():
        install(package, f"crm = {value}")
    rows = [row for row in list_settings(load_settings()) if row.name.startswith("crm.")]
    assert (rows[0].name, said in rows[0].description) == ("crm.*", True)
    monkeypatch.setenv("CASCADE_CRM__TOKEN", "s3cret")
    with pytest.raises(ConfigurationError, match=f"settings of crm cannot be checked.*{said}") as caught:
        load_settings()
    assert "package one" in str(caught.value)


# --- settings of the project itself ---------------------------------------------------------------------------

OWN = """
from pydantic import BaseModel, Field, SecretStr

class ProjectSettings(BaseModel):
    \"\"\"What the workflows of this project need.\"\"\"

    region: str = Field("eu", description="Whose customers are loaded.")
    days: int = 7
    key: SecretStr
"""


@pytest.fixture
def own(project: Path) -> Path:
    """A project that declares settings of its own."""
    (project / "cascade_config.py").write_text(OWN)
    return project


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (".env", "CASCADE_PROJECT__DAYS=3\nCASCADE_PROJECT__KEY=t0ps\n"),
        ("cascade.yaml", "project: {days: 3, key: t0ps}\n"),
        ("cascade_config.py", OWN + "\nproject = {'days': 3, 'key': 't0ps'}\n"),
        ("pyproject.toml", '[tool.cascade.project]\ndays = 3\nkey = "t0ps"\n'),
    ],
)
def test_a_project_declares_settings_of_its_own_which_have_types(own: Path, place: str, text: str) -> None:
    (own / place).write_text(text)
    settings = load_settings()
    assert (settings.project.region, settings.project.days) == ("eu", 3)
    assert settings.project.key.get_secret_value() == "t0ps"
    assert "t0ps" not in repr(settings)
    rows = {row.name: row for row in list_settings(settings)}
    assert (rows["project.days"].value, rows["project.days"].source) == ("3", place)
    assert (rows["project.region"].value, rows["project.region"].source) == ("eu", "default")
    assert rows["project.key"].value == "**********"


def test_wrong_settings_of_the_project_are_named_together(own: Path) -> None:
    (own / ".env").write_text("CASCADE_PROJECT__DAYS=soon\nCASCADE_PROJECT__REGON=us\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "`project.regon` is not a setting; those of project are days, key, region" in caught.value.what
    assert "`project.days`: Input should be a valid integer" in caught.value.what
    assert "`project.key`: Field required" in caught.value.what


# --- engines ----------------------------------------------------------------------------------------------

ENGINE = """
class Engine:
    name, label, default_warehouse = "spark", "Spark", "s3://sparkling/"
    def setting_problems(self, settings): return ["it rains"] if settings.branch == "rain" else []
    def open_catalog(self, settings): return f"catalog in {settings.warehouse_location}"
    def query(self, catalog, ref, sql, at, parameters): ...
    def regexp_match(self, column, pattern): return f"{column} RLIKE {pattern}"
    def await_ready(self, settings, tell): ...
    def forget(self, catalog, ref): ...
    def drop_leftovers(self, catalog): return []
ENGINE = Engine()
"""


def test_an_engine_that_the_runtime_never_heard_of_is_found_as_ours_are(
    project: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sparkling", "spark = spark_engine:ENGINE", group="cascade.engines")
    (project.parent / "packages" / "spark_engine.py").write_text(ENGINE)
    (project / "cascade.yaml").write_text("engine: spark\n")
    settings = load_settings()
    assert settings.warehouse_location == "s3://sparkling"
    assert open_catalog(settings) == "catalog in s3://sparkling"
    assert engine_of(settings).regexp_match("a", "'b'") == "a RLIKE 'b'"
    monkeypatch.setenv("CASCADE_BRANCH", "rain")
    with pytest.raises(ConfigurationError, match="it rains"):
        load_settings()


@pytest.mark.parametrize(
    ("engine", "label", "warehouse"),
    [("embedded", "DuckDB", ".cascade/warehouse"), ("trino", "Trino", "s3://warehouse")],
)
def test_one_setting_is_enough_to_switch_the_engine(project: Path, engine: str, label: str, warehouse: str) -> None:
    (project / "cascade.yaml").write_text(f"engine: {engine}\n")
    settings = load_settings()
    assert (engine_of(settings).name, engine_of(settings).label) == (engine, label)
    assert settings.warehouse_location in (warehouse, str(project / warehouse))


def test_a_folder_is_no_warehouse_of_servers(project: Path) -> None:
    (project / "cascade.yaml").write_text("engine: trino\nwarehouse: here\n")
    with pytest.raises(ConfigurationError, match="`warehouse` must be s3://"):
        load_settings()


_HEAVY = """
import sys
from cascade.config import load_settings
from cascade_operations.configuration import list_settings
list_settings(load_settings())
print(sorted({"dagster", "duckdb", "pyiceberg", "requests", "sqlalchemy", "trino"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("engine", ["embedded", "trino"])
def test_to_read_settings_imports_nothing_heavy(project: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setenv("CASCADE_ENGINE", engine)
    done = subprocess.run([sys.executable, "-c", _HEAVY], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
