"""Every task of this repository. `nox` runs all checks that need no server, `nox -l` lists the tasks."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "ratios", "tests", "minimal"]
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True

HERE = Path(__file__).resolve().parent
DEMO = HERE / "demo" / "my-project"

# Beside the oldest that we support, which runs all other checks. uv finds them, or fetches them.
PYTHONS = ("3.12", "3.13")
# What a generated project installs of this repository.
_EXTENSIONS = sorted(path.parent.name for path in (HERE / "extensions").glob("*/pyproject.toml"))
PACKAGES = ("runtime", *(f"extensions/{name}" for name in _EXTENSIONS))


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style, import directions, formatting, the keys of copier.yml, and that each module has its test."""
    run = _environment(session)
    run("ruff", "check")
    run("ruff", "format", "--check")
    for package in PACKAGES:
        with session.chdir(package):
            run("lint-imports", "--no-cache")
    run("pytest", "-q", "tests/template/test_questions.py", "tests/test_layout.py")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    run = _environment(session)
    run("mypy", *(f"{package}/src" for package in PACKAGES))


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Test everything that needs no server; with files or folders of tests: those."""
    named = [argument for argument in session.posargs if argument.startswith("tests/")]
    _test(session, *(() if named else WITHOUT_SERVERS))


@nox.session(venv_backend="none")
def minimal(session: nox.Session) -> None:
    """Test the runtime with nothing but the command line: a project of Python alone, and what it stands on."""
    run = _environment(session, name="minimal", packages="minimal")
    run("pytest", *WITHOUT_EXTENSIONS, *_TWO_AT_A_TIME, *session.posargs)


@nox.session(venv_backend="none")
@nox.parametrize("python", PYTHONS)
def pythons(session: nox.Session, python: str) -> None:
    """Run the example, and test the runtime and the extensions, on other versions of Python; `-- demo`: the first."""
    run = _environment(session, name=f"python-{python}", python=_python(python))
    suites = session.posargs or ["demo", *ON_EVERY_PYTHON]
    if "demo" in suites:
        project = Path(session.create_tmp()) / f"my-project-{python}"
        shutil.rmtree(project, ignore_errors=True)
        run("copier", "copy", *_AS_IT_IS, str(HERE), str(project))
        with session.chdir(project):
            run("cascade", "run")
            run("cascade", "query", _GOLD)
    if tested := [suite for suite in suites if suite != "demo"]:
        run("pytest", *tested, *_TWO_AT_A_TIME)


@nox.session(venv_backend="none")
def cli(session: nox.Session) -> None:
    """Call every command in a generated project, with good input and bad."""
    _test(session, "tests/cli")


@nox.session(venv_backend="none")
def triggers(session: nox.Session) -> None:
    """Start runs in every way there is, Dagster's UI included, and look at which branch they write."""
    _test(session, "tests/triggers")


@nox.session(venv_backend="none")
def template(session: nox.Session) -> None:
    """Generate projects, test them, and update them from one release to the next."""
    _test(session, "tests/template")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Follow the tutorial command by command, and check every link."""
    _test(session, "tests/docs")


@nox.session(venv_backend="none")
def reference(session: nox.Session) -> None:
    """Write docs/reference from the code; a test compares."""
    _environment(session)("python", "docs/reference/generate.py")


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Look at a project in Dagster's UI, with headless Chromium."""
    _test(session, "tests/browser")


@nox.session(venv_backend="none")
def integration(session: nox.Session) -> None:
    """Test on the real servers: PostgreSQL, S3, Nessie and Trino, started natively."""
    run = _environment(session, "servers")
    suites = (*ON_SERVERS, "--on-servers")
    run("pytest", *suites, *_TWO_AT_A_TIME, *session.posargs)  # each of the two has servers of its own


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Test the same with all kills, restarts and writers, on every mixture of catalog and storage: an hour or two."""
    run = _environment(session, "servers")
    run("pytest", "tests/faults", "--whole", *_TWO_AT_A_TIME, *session.posargs)  # what needs no server
    suites = (*ON_SERVERS, "--on-servers", "--whole")
    run("pytest", *suites, *_TWO_AT_A_TIME, *session.posargs)


@nox.session(venv_backend="none")
def stack(session: nox.Session) -> None:
    """Start the real servers and keep them until Ctrl+C, to look around."""
    run = _environment(session, "servers")
    with session.chdir("tests"):
        run("python", "-m", "support.servers")


@nox.session(venv_backend="none")
def ratios(session: nox.Session) -> None:
    """Fail when work costs half as much again, beside its bare path in the same run, as is recorded; a minute."""
    _environment(session)("python", "-W", "ignore", "tests/bench/ratios.py", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure Cascade beside its peers: `-- --quick`, `-- --cases merge`, `-- --list`; all of it takes 40 minutes."""
    _environment(session, "bench")("python", "tests/bench/bench.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Generate a project from this checkout into demo/, run it on real data, show the result."""
    session.install("-q", "copier>=9.19,<10")
    nox_own = ("VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")  # nox's environment is not the project's
    ours = (name for name in os.environ if name.startswith(("CASCADE_", "DAGSTER_", "DBT_")))
    clean = dict.fromkeys([*nox_own, *ours])
    shown = os.path.relpath(DEMO, Path.cwd())
    times: list[tuple[float, str]] = []

    def step(title: str, command: str, *arguments: str) -> None:
        print(f"\n=== {title}\n$ {shlex.join([Path(command).name, *arguments])}", flush=True)
        begin = time.monotonic()
        session.run(command, *arguments, external=True, log=False, env=clean)
        times.append((time.monotonic() - begin, title))

    shutil.rmtree(DEMO, ignore_errors=True)
    step("Generate a project from this checkout", "copier", "copy", *_AS_IT_IS, str(HERE), str(DEMO))
    with session.chdir(DEMO):
        cascade = str(DEMO / ".venv" / "bin" / "cascade")
        step("Install it", "uv", "sync", "--quiet", "--compile-bytecode")
        step("Run its pipeline: a year of hourly weather", cascade, "run")
        step("Look at the gold table", cascade, "query", _GOLD)
        step("Look at what was promoted", cascade, "branch", "log")

    print("\n=== Done")
    for seconds, title in times:
        print(f"  {seconds:6.1f} s  {title}")
    print(f"""
The project is in {shown}:
  {shown}/workflows        Python that loads rows, and the checks on them
  {shown}/transforms/dbt   SQL that transforms them
  {shown}/.cascade         the lakehouse: catalog, Iceberg tables, marts

Open the UI with
  cd {shown} && .venv/bin/cascade dev
and then http://127.0.0.1:3000 in a browser.""")


# Longest first: what is short fills the gaps at the end, so that both processors are busy until then.
WITHOUT_SERVERS = tuple(
    f"tests/{suite}" for suite in ("triggers", "template", "docs", "browser", "cli", "extensions", "runtime", "faults")
)
ON_SERVERS = ("tests/integration", "tests/faults", "tests/extensions", "tests/runtime")

# Of copier, for a project of this checkout; and what to look at in it.
_AS_IT_IS = ("--quiet", "--defaults", "--vcs-ref", "HEAD")
_GOLD = "select * from gold.weather_daily order by station, date limit 10"

# Files of tests, two at a time: a machine has two processors at least.
_TWO_AT_A_TIME = ("-n2", "--dist=loadfile", "--no-loadscope-reorder")


# What may depend on the language.
ON_EVERY_PYTHON = ("tests/cli", "tests/extensions", "tests/runtime")
# What a project needs that has no extension, quick enough to run again without them.
WITHOUT_EXTENSIONS = ("tests/minimal", "tests/runtime/catalog", "tests/runtime/engine", "tests/runtime/publish")


def _test(session: nox.Session, *suites: str) -> None:
    _environment(session)("pytest", *suites, *_TWO_AT_A_TIME, *session.posargs)


def _environment(
    session: nox.Session, *more: str, name: str = "shared", packages: str = "packages", python: str = sys.executable
) -> Callable[..., None]:
    """Make or refresh an environment as `uv.lock` has it, and return a function that runs a command in it.

    Args:
        session: That asks.
        more: Groups of dependencies beside `dev`.
        name: Of the environment, in `.nox`.
        packages: The group of those of ours that are installed; all of them by default.
        python: A version, or where Python is.
    """
    place = HERE / ".nox" / name
    groups = [option for group in (packages, "dev", *more) for option in ("--only-group", group)]
    # Inexact: what another session needs stays.
    sync = (_uv(), "sync", "--quiet", "--locked", "--inexact", "--python", python)
    session.run(*sync, *groups, external=True, env={"UV_PROJECT_ENVIRONMENT": str(place), "VIRTUAL_ENV": None})
    path = os.pathsep.join([str(place / "bin"), str(Path(_uv()).parent), os.environ.get("PATH", "")])

    def run(command: str, *arguments: str) -> None:
        tool = str(place / "bin" / command)
        # After Ctrl+C a command gets the time to end its servers.
        session.run(tool, *arguments, external=True, env={"PATH": path, "VIRTUAL_ENV": None}, interrupt_timeout=30)

    return run


def _python(version: str) -> str:
    """Return where pyenv has a version of Python; else the version, which uv finds or fetches."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(pyenv[-1]) if pyenv else version


def _uv() -> str:
    """The uv that was installed together with nox."""
    try:
        from uv import find_uv_bin
    except ImportError:
        return shutil.which("uv") or sys.exit('uv is missing: python3 -m pip install "nox[uv]"')
    return find_uv_bin()
