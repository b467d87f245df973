"""Make Superset ready: its own tables, the administrator, and the dashboards of files. Safe to run again."""

import os
import sys
from pathlib import Path
from typing import Any

import flask_migrate
from superset.app import create_app


def prepare(dashboards: Path, password: str) -> None:
    """Bring tables, roles, the administrator and the dashboards up to date; what people made themselves stays.

    Args:
        dashboards: Folder of exports; each folder in it with a `metadata.yaml` is one.
        password: Of the user `admin`; it becomes this one.

    Raises:
        SystemExit: Files are not what Superset imports; all of them are named, and nothing is imported.
    """
    with create_app().app_context():
        flask_migrate.upgrade()
        imports = _read(dashboards)
        # Superset's parts can be imported once an app is there.
        from superset import appbuilder, db, security_manager
        from superset.utils.core import override_user

        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        if admin := security_manager.find_user("admin"):
            security_manager.reset_password(admin.id, password)
        else:
            role = security_manager.find_role("Admin")
            admin = security_manager.add_user("admin", "Cascade", "Admin", "admin@localhost", role, password)
        db.session.commit()
        with override_user(admin):
            for folder, command in imports.items():
                print(f"Importing {folder}", flush=True)
                command.run()


def _read(dashboards: Path) -> dict[Path, Any]:
    """Return Superset's command for each export, all of them valid."""
    from superset.commands.exceptions import CommandInvalidError
    from superset.commands.importers.v1.assets import ImportAssetsCommand

    # `sparse`: what an export lacks may be there already, such as the database.
    folders = [file.parent for file in sorted(dashboards.rglob("metadata.yaml"))]
    commands = {folder: ImportAssetsCommand(_export(folder), sparse=True) for folder in folders}
    problems: list[str] = []
    for folder, command in commands.items():
        try:
            command.validate()
        except CommandInvalidError as error:
            problems += [f"  {folder}/{name}: {what}" for name, what in sorted(error.normalized_messages().items())]
    if problems:
        sys.exit("\n".join(["These files are not what Superset imports; nothing was imported:", *problems]))
    return commands


def _export(folder: Path) -> dict[str, str]:
    files = {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in folder.rglob("*.yaml")}
    # The pages export with the type `Dashboard`; this import takes the same files, and overwrites charts, too.
    return files | {"metadata.yaml": "version: 1.0.0\ntype: assets\n"}


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), os.environ["SUPERSET_ADMIN_PASSWORD"])
