"""`cascade plugins new`: a package with one plugin, whose tests pass at once."""

from __future__ import annotations

from pathlib import Path

from cascade.errors import UsageError
from cascade_cli.output import say
from cascade_cli.style import click
from cascade_create.names import require_name

__all__ = ["KINDS", "new", "new_plugin"]

KINDS = ("source", "check", "transformation", "service")
_TEMPLATE = Path(__file__).with_name("plugin_template")


@click.command("new")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), default="plugins", help="Folder of the package's folder.")
def new(kind: str, name: str, into: Path) -> None:
    """Write a package with one plugin and its tests, which pass at once.

    NAME is what a workflow asks for; the package is called NAME-cascade.
    """
    folder = new_plugin(kind, name, into)
    say(f"Wrote {folder}: a {kind} `{name}`.")
    say(f"Next: `uv run pytest {folder}` tests it, `uv add --editable ./{folder}` installs it into this project.")


def new_plugin(kind: str, name: str, into: Path) -> Path:
    """Write a package with one plugin, and return its folder.

    Args:
        kind: One of `KINDS`.
        name: What a workflow asks for: small letters, digits and underscores.
        into: The folder that the package's folder is put into.

    Raises:
        UsageError: The name cannot be one, or the folder is there already.
    """
    import copier

    require_name(name, "plugin")
    folder = into / f"{name.replace('_', '-')}-cascade"
    if folder.exists():
        raise UsageError(
            f"{folder} is there already; nothing was written.", fix="choose another name, or another folder by --into."
        )
    copier.run_copy(str(_TEMPLATE), folder, data={"kind": kind, "name": name}, defaults=True, quiet=True)
    return folder
