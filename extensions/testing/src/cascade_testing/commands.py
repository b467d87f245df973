"""`cascade test`: the project's tests, and the unit tests of its dbt models, in one run of pytest."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib

from cascade.config import load_settings
from cascade_cli.style import click

__all__ = ["test"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the project's tests with pytest, and the unit tests of its dbt models with them.

    ARGUMENTS are those of pytest: files, -k NAME, -x. No server and no network is needed. The exit code is that of
    pytest.
    """
    settings = load_settings()
    written = tomllib.loads((settings.project_dir / "pyproject.toml").read_text("utf-8")).get("tool", {})
    paths = written.get("pytest", {}).get("ini_options", {}).get("testpaths", ["tests"])
    paths = [*([paths] if isinstance(paths, str) else paths), str(settings.dbt_path)]
    command = [sys.executable, "-m", "pytest", "--override-ini", f"testpaths={shlex.join(paths)}", *arguments]
    sys.exit(subprocess.run(command, cwd=settings.project_dir, check=False).returncode)
