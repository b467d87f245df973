"""Write the reference pages from the code: `nox -s reference`. A test compares."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asked
import click
import points
import written

PAGES = Path(__file__).resolve().parent
NEXT = "\n## Where to go next\n\n- [All pages](../README.md)\n"


def pages() -> dict[str, str]:
    """Return every reference page: file name to text."""
    return {
        "cli.md": _cli(),
        "settings.md": _settings(),
        "ingestion.md": _ingestion(),
        "transform.md": _transform(),
        "quality.md": _quality(),
        "sql.md": _sql(),
        "operations.md": "".join(asked.page()) + NEXT,
        "names.md": "".join(written.page()) + NEXT,
        "extension-points.md": "".join(points.page()) + NEXT,
        "../../extensions/operations/src/cascade_operations/registry.json": _registry(),
        "../../extensions/services/src/cascade_services/service.schema.json": _service_schema(),
    }


def _service_schema() -> str:
    """Return the JSON Schema of `service.yaml`, which is shipped."""
    from cascade_services.schema import json_schema

    return json_schema()


def _registry() -> str:
    """Return the registry of the release's packages, which is shipped: what their manifests say."""
    entries = []
    for manifest in sorted((PAGES.parents[1] / "extensions").glob("*/pyproject.toml")):
        project = tomllib.loads(manifest.read_text("utf-8"))["project"]
        groups = {g: sorted(e) for g, e in sorted(project.get("entry-points", {}).items()) if g.startswith("cascade.")}
        entries.append({"package": project["name"], "description": project["description"], "brings": groups})
    return json.dumps(entries, indent=2) + "\n"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Return every command, with its options."""
    for path, command in _commands():
        yield path, [option for parameter in command.params for option in parameter.opts]


def _commands() -> Iterator[tuple[str, click.Command]]:
    from cascade_cli.app import _cli

    context = click.Context(_cli)
    for name in _cli.list_commands(context):
        command = _cli.resolve_command(context, [name])[1]
        assert command is not None
        yield from _leaves(name, command)


def _cli() -> str:
    from cascade_cli.app import _cli

    parts = ["# Command line\n", inspect.getdoc(_cli.callback) or "", ""]
    for path, leaf in _commands():
        parts += [f"## cascade {path}\n", *_describe(path, leaf), ""]
    return "\n".join(parts).rstrip() + "\n" + NEXT


def _leaves(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            yield from _leaves(f"{path} {name}", sub)
    else:
        yield path, command


def _describe(path: str, command: click.Command) -> Iterator[str]:
    words = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    yield "```text\n" + " ".join(["cascade", path, *words, "[OPTIONS]"]) + "\n```\n"
    yield inspect.cleandoc(command.help or "")
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        yield "\n| option | meaning |\n|---|---|"
    for option in options:
        metavar = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
        default = f" Default: {option.default}." if option.show_default and not option.is_flag else ""
        yield f"| `{', '.join(option.opts)}{metavar}` | {option.help}{default} |"


def _settings() -> str:
    from cascade.config import Settings, SettingsModel
    from cascade.engine import Engine
    from cascade.plugins import load_all

    lines = [
        "# Settings\n",
        inspect.getdoc(Settings) or "",
        "",
        *_setting_rows(Settings, "CASCADE_"),
        "\n## Engines\n",
        "Values of `engine`, which installed packages bring (entry point `cascade.engines`).\n",
        "| engine | SQL | `warehouse` by default | package |",
        "|---|---|---|---|",
    ]
    for record in load_all("cascade.engines", Engine):
        engine, package = record.object, record.package.partition(" ")[0]
        warehouse = engine.default_warehouse or "warehouse in data_dir"
        lines.append(f"| `{engine.name}` | {engine.label} | {warehouse} | {package} |")
    for record in load_all("cascade.settings", SettingsModel):
        lines += [
            f"\n## Settings of {record.name}\n",
            f"{inspect.getdoc(record.object)}",
            f"Package {record.package.partition(' ')[0]}; in a file they are in a table `{record.name}`.\n",
            *(_setting_rows(record.object, f"CASCADE_{record.name.upper()}__") if record.object.model_fields else ()),
        ]
    return "\n".join(lines) + "\n" + NEXT


_SETTING_TYPES = {"SecretStr": "secret text", "str": "text", "bool": "true or false", "tuple[str, ...]": "texts"}


def _setting_rows(model: Any, prefix: str) -> Iterator[str]:
    yield "| setting | type | environment variable | default | meaning |"
    yield "|---|---|---|---|---|"
    for name, field in model.model_fields.items():
        if name != "plugins":
            kind = re.sub(r" \| None|<class '|'>|\w+\.", "", str(field.annotation))
            if words := re.fullmatch(r"Literal\[(.+)\]", kind):
                kind = words[1].replace("'", "").replace(", ", " or ")
            kind = _SETTING_TYPES.get(kind, kind.lower())
            default = (
                "found" if field.is_required() else f"`{field.default}`" if field.default not in (None, "") else ""
            )
            yield f"| `{name}` | {kind} | `{prefix}{name.upper()}` | {default} | {field.description} |"


def _ingestion() -> str:
    import cascade.ingestion as room

    parts = ["# `@cascade_ingestion`\n", *_docstring(room.cascade_ingestion), "## Partitions\n"]
    for name in ("daily", "hourly", "weekly", "monthly", "static", "none"):
        function = getattr(room, name)
        parts.append(f"- `{name}{_signature(function)}`: {(inspect.getdoc(function) or '').splitlines()[0]}")
    return "\n".join(parts) + "\n" + NEXT


def _transform() -> str:
    from cascade_transform.decorator import cascade_transform

    return "\n".join(["# `@cascade_transform`\n", *_docstring(cascade_transform)]) + "\n" + NEXT


def _quality() -> str:
    import cascade.quality as room
    from cascade.plugins import installed

    parts = ["# `@cascade_quality`\n", *_docstring(room.cascade_quality), "## Built-in checks\n"]
    parts.append("Options that every check has:\n\n| option | type | meaning |\n|---|---|---|")
    shared = (room.__doc__ or "").partition("Options of every built-in check:\n")[2]
    parts += [f"| `{n}` | `{kind}` | {says} |" for n, kind, says in re.findall(r"    (\w+) \((\w+)\): (.+)", shared)]
    for name in sorted(record.name for record in installed(room.CHECKS)):
        function = getattr(room, name)
        parts += [f"\n### `{name}`\n\n```python\n{name}{_signature(function)}\n```\n", *_docstring(function)]
    return "\n".join(parts).rstrip() + "\n" + NEXT


def _sql() -> str:
    sys.path.insert(0, str(PAGES.parents[1] / "tests"))  # the examples of the page are what tests run
    from cascade_project.portability.differences import differences
    from support.portable.cases import CASES
    from support.portable.macros import macros

    parts = [
        "# SQL for both engines\n",
        "DuckDB and Trino give the same values for everything on this page; tests compare them.\n",
        "## Macros of Cascade\n",
        "| macro | gives | example |\n|---|---|---|",
    ]
    parts += [f"| `{m.name}({m.arguments})` | {_cell(m.description)} | {_cell(m.example)} |" for m in macros()]
    own = sorted({name for case in CASES for name in re.findall(r"\bdbt\.(\w+)\(", case.sql)})
    parts += [
        "\n## Macros of dbt\n",
        "These are the same on both engines; where an adapter disagreed, the runtime replaces its part.\n",
        ", ".join(f"`dbt.{name}`" for name in own) + ".\n",
        "`dbt.dateadd` and `dbt.date_trunc` of a date are a timestamp on DuckDB: cast the result to `date`. `dbt.hash`"
        " is for texts and integers; cast other values to text in your own way first.\n",
        "## What differs\n",
        "What `cascade validate` knows, beside the grammar and the functions of each engine.\n",
    ]
    titles = {
        "trino": "Only DuckDB has it",
        "duckdb": "Only Trino has it",
        "both": "Both run it, and mean something else",
    }
    for engine, title in titles.items():
        parts.append(f"### {title}\n\n| finding | example | remedy |\n|---|---|---|")
        for entry in (entry for entry in differences() if entry.engine == engine):
            says = entry.says.replace("`{}`", ", ".join(f"`{name}`" for name in entry.functions))
            parts.append(f"| {_cell(says)} | `{_cell(entry.bad)}` | {_cell(entry.remedy)} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n" + NEXT


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _docstring(function: object) -> Iterator[str]:
    """Turn a docstring with `Args:` and `Raises:` into text and a table."""
    text, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    arguments, _, raises = rest.partition("\nRaises:\n")
    yield text.rstrip() + "\n"
    yield "| option | type | default | meaning |\n|---|---|---|---|"
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    name, meaning = "", ""
    for line in [*arguments.splitlines(), "    end:"]:
        if line.startswith("    ") and not line.startswith("     "):
            if name in parameters and name != "fetch":  # "a, b: …" refers to another page
                default = parameters[name].default
                kind = (
                    re.sub(r"\w+\.", "", inspect.formatannotation(parameters[name].annotation))
                    .strip("'")
                    .replace("|", "\\|")
                )
                needed = "" if parameters[name].kind is inspect.Parameter.VAR_KEYWORD else "required"
                shown = needed if default is inspect.Parameter.empty else f"`{default!r}`"
                yield f"| `{name}` | `{kind}` | {shown} | {meaning.strip()} |".replace("\n", " ")
            name, _, meaning = line.strip().partition(":")
        else:
            meaning += " " + line.strip()
    if raises:
        yield "\nRaises " + " ".join(raises.split()) + "\n"


def _signature(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


if __name__ == "__main__":
    for page, content in pages().items():
        (PAGES / page).write_text(content, encoding="utf-8")
