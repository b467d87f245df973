"""Render the SQL of a dbt project without dbt: for either engine, each piece of the result with its file and line.

dbt's own compiler asks the database, knows one adapter at a time and forgets where a line came from. Here Jinja runs
with stand-ins: `ref` gives the table's name, macros of the project are rendered where they are used, and what only dbt
knows becomes a placeholder, an identifier.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

from cascade_project.portability.findings import DIALECTS

__all__ = ["PLACEHOLDER", "Project", "RenderError", "Rendered"]

#: How an identifier begins that stands for what only dbt knows.
PLACEHOLDER = "dbt_placeholder_"

# Before each line of text in a template: its file, line and column. Private characters, so that no SQL has them.
_MARK = re.compile("\ue000(\\d+),(\\d+),(\\d+)\ue001")
_TEST_BLOCK = re.compile(r"(\{%-?\s*)test(\s+)(\w+)")


class RenderError(Exception):
    """A template that cannot be rendered without dbt."""


@dataclass
class Rendered:
    """SQL, and where it came from.

    Attributes:
        sql: The text.
        dynamic: Whether it depends on rows that only a run sees.
        marks: Offsets in the text with file, line and column of what follows, in order.
    """

    sql: str
    dynamic: bool
    marks: list[tuple[int, str, int, int]]

    def origin(self, offset: int) -> tuple[str, int | None, int | None]:
        """Return file, line and column of an offset; an empty file if it is in no template."""
        found: tuple[str, int | None, int | None] = ("", None, None)
        for start, file, line, column in self.marks:
            if start > offset:
                break
            # The YAML file of a test has no lines here.
            found = (file, line, column + offset - start) if file else ("", None, None)
        return found


@dataclass
class _State:
    """What the stand-ins know while one node is rendered."""

    dialect: str = ""
    incremental: bool = False
    asked_incremental: bool = False
    dynamic: bool = False
    node: Mapping[str, Any] = field(default_factory=dict)


# Jinja makes the stand-ins by itself, so what they share is here; one node is rendered at a time.
_now = _State()


class _Unknown(jinja2.Undefined):
    """What only dbt knows: any attribute, call or sum of it is unknown too; as text it is a placeholder."""

    def __init__(self, hint: Any = None, obj: Any = None, name: Any = None, exc: Any = None) -> None:
        super().__init__(hint, obj, name, exc or jinja2.UndefinedError)
        self._cascade_name = re.sub(r"\W+", "_", str(name or hint or "value"))

    def __str__(self) -> str:
        return PLACEHOLDER + self._cascade_name

    def __iter__(self) -> Iterator[_Unknown]:
        _now.dynamic = True
        yield self

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unknown(name=f"{self._cascade_name}_{name}")

    def _again(self, *_arguments: Any, **_options: Any) -> Any:
        return _Unknown(name=self._cascade_name)

    __call__ = __getitem__ = __add__ = __radd__ = __sub__ = __mul__ = _again

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return 1


class _Return(Exception):  # noqa: N818  # no error: dbt's `return`
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Places(Extension):
    """Mark every line of a template's text with its place."""

    _source: tuple[str, ...] = ()

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Keep the source: tokens do not know their column."""
        self._source = tuple(source.splitlines())
        return source

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        """Put the marks in."""
        for token in stream:
            if token.type != "data":
                yield token
                continue
            first, *others = token.value.split("\n")
            line = self._source[token.lineno - 1] if token.lineno <= len(self._source) else ""
            marked = [self._mark(stream, token.lineno, max(line.find(first), 0)) + first]
            marked += [self._mark(stream, token.lineno + i, 0) + text for i, text in enumerate(others, 1)]
            yield Token(token.lineno, "data", "\n".join(marked))

    @staticmethod
    def _mark(stream: TokenStream, line: int, column: int) -> str:
        return f"\ue000{stream.name},{line},{column + 1}\ue001"


class Project:
    """The templates of a dbt project, as its manifest names them.

    Args:
        manifest: dbt's manifest.
        root: Folder of the dbt project.
        own_macros: Folder of Cascade's macros: they are portable, whatever they hold.
    """

    def __init__(self, manifest: Mapping[str, Any], root: Path, own_macros: Path) -> None:
        self._manifest, self._root = manifest, root
        self._name = manifest["metadata"]["project_name"]
        file = root / "dbt_project.yml"
        self._variables: Mapping[str, Any] = (
            file.is_file() and yaml.safe_load(file.read_text("utf-8")).get("vars")
        ) or {}
        self._files: list[tuple[str, int]] = []
        self._tables: dict[str, str] = {}
        for node in manifest["nodes"].values():
            if node["resource_type"] in ("model", "seed", "snapshot"):
                self._tables[node["name"]] = _relation(node, node.get("alias") or node["name"])
        self._sources = {
            (source["source_name"], source["name"]): _relation(source, source.get("identifier") or source["name"])
            for source in manifest["sources"].values()
        }
        self._environment = jinja2.Environment(
            extensions=[_Places, "jinja2.ext.do", "jinja2.ext.loopcontrols"], undefined=_Unknown, autoescape=False
        )
        self._environment.globals.update(self._stand_ins())
        self._environment.filters.update(dict.fromkeys(("as_bool", "as_native", "as_number", "as_text"), lambda v: v))
        self._load_macros(own_macros)

    def texts(self, node: Mapping[str, Any], dialect: str) -> Iterable[Rendered]:
        """Render a model or test in every way that it asks for: as a full and as an incremental run.

        Args:
            node: Of the manifest.
            dialect: `duckdb` or `trino`.

        Raises:
            RenderError: It cannot be rendered without dbt.
        """
        _now.dialect, _now.node, _now.incremental, _now.asked_incremental = dialect, node, False, False
        yield self._render(node)
        if _now.asked_incremental:
            _now.incremental = True
            yield self._render(node)

    def _render(self, node: Mapping[str, Any]) -> Rendered:
        generic = node["resource_type"] == "test" and node.get("test_metadata")
        path = self._root / node["original_file_path"]
        whole = path.read_text("utf-8") if path.is_file() else ""
        # dbt gives what is inside of the block of a snapshot, or makes it of a YAML file.
        part = generic or node["resource_type"] == "snapshot" or not whole
        source = node["raw_code"] if part else whole
        line = whole[: max(whole.find(source), 0)].count("\n") + 1
        options = {"_dbt_generic_test_kwargs": self._test_arguments(node)} if generic else {}
        _now.dynamic = False
        try:
            # What a test hands to its macro is in a YAML file, whose lines dbt does not keep.
            template = self._compile(source, "" if generic else node["original_file_path"], line)
            text = template.render(options)
        except (
            jinja2.TemplateError,
            _Return,
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            ArithmeticError,
        ) as error:
            raise RenderError(f"{type(error).__name__}: {error}") from error
        return self._unmark(text, _now.dynamic)

    def _compile(self, source: str, file: str, line: int) -> jinja2.Template:
        self._files.append((file, line - 1))
        code = self._environment.compile(source, name=str(len(self._files) - 1))
        return jinja2.Template.from_code(self._environment, code, self._environment.globals, None)

    def _unmark(self, text: str, dynamic: bool) -> Rendered:
        marks, pieces, length, end = [], [], 0, 0
        for mark in _MARK.finditer(text):
            pieces.append(text[end : mark.start()])
            length += mark.start() - end
            end = mark.end()
            file, before = self._files[int(mark[1])]
            marks.append((length, file, int(mark[2]) + before, int(mark[3])))
        return Rendered("".join([*pieces, text[end:]]), dynamic, marks)

    def _test_arguments(self, node: Mapping[str, Any]) -> dict[str, Any]:
        arguments = dict(node["test_metadata"].get("kwargs") or {})
        model = self._manifest["nodes"].get(node.get("attached_node") or "")
        arguments["model"] = _relation(model, model.get("alias") or model["name"]) if model else f"{PLACEHOLDER}model"
        for name, value in arguments.items():
            if not isinstance(value, str):
                continue
            if called := re.fullmatch(r"\s*ref\(['\"](\w+)['\"]\)\s*", value):
                arguments[name] = self._ref(called[1])
            elif name != "model" and re.search(r"\W", value):
                file, line, column = self.place_of(node, value)
                self._files.append((file, 0))
                arguments[name] = f"\ue000{len(self._files) - 1},{line},{column}\ue001{value}"
        return arguments

    def place_of(self, node: Mapping[str, Any], text: str) -> tuple[str, int, int]:
        """Return file, line and column of a text in the file of a node; an empty file if it is not found."""
        path = self._root / node["original_file_path"]
        for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else (), 1):
            if text in line:
                return node["original_file_path"], number, line.index(text) + 1
        return "", 0, 0

    def _load_macros(self, own: Path) -> None:
        """Make the macros of the project callable; those of Cascade and of packages stay placeholders."""
        by_name: dict[str, str] = {}
        for macro in self._manifest["macros"].values():
            path = Path(macro["original_file_path"])
            if macro["package_name"] == self._name and own not in (self._root / path).parents:
                by_name[macro["name"]] = macro["unique_id"]
        for name, unique_id in by_name.items():
            self._environment.globals[name] = self._macro(name, self._manifest["macros"][unique_id])

    def _macro(self, name: str, macro: Mapping[str, Any]) -> Callable[..., Any]:
        found: list[Any] = []

        def call(*arguments: Any, **options: Any) -> Any:
            if not found:
                file = self._root / macro["original_file_path"]
                source = macro["macro_sql"]
                whole = file.read_text("utf-8") if file.is_file() else source
                line = whole[: max(whole.find(source), 0)].count("\n") + 1
                source = _TEST_BLOCK.sub(r"\1macro\2test_\3", source).replace("endtest", "endmacro")
                module = self._compile(source, macro["original_file_path"], line).make_module()
                found.append(getattr(module, name))
            try:
                return found[0](*arguments, **options)
            except _Return as returned:
                return returned.value

        return call

    def _stand_ins(self) -> dict[str, Any]:
        def give_back(value: Any = None) -> Any:
            raise _Return(value)

        def is_incremental() -> bool:
            _now.asked_incremental = True
            return _now.incremental

        def nothing(*_arguments: Any, **_options: Any) -> str:
            return ""

        return {
            "ref": self._ref,
            "source": lambda source, table: self._sources.get((source, table), f"{PLACEHOLDER}{table}"),
            "this": _This(),
            "config": _Config(),
            "model": _Unknown(name="model"),
            "var": self._variable,
            "env_var": lambda name, default=None: os.environ.get(name, default) or _Unknown(name=name),
            "is_incremental": is_incremental,
            "should_full_refresh": lambda: False,
            "target": _Target(),
            "adapter": _Adapter(self._environment_of),
            "execute": True,
            "return": give_back,
            "log": nothing,
            "print": nothing,
            "get_where_subquery": lambda relation: relation,
            "modules": {"datetime": datetime, "re": re, "itertools": itertools},
        }

    def _environment_of(self) -> Mapping[str, Any]:
        return self._environment.globals

    def _variable(self, name: str, default: Any = None) -> Any:
        """Return what `dbt_project.yml` says of a variable: for the package of the node, else for all."""
        for said in (self._variables.get(_now.node.get("package_name", self._name)), self._variables):
            if isinstance(said, Mapping) and name in said:
                return said[name]
        return _Unknown(name=name) if default is None else default

    def _ref(self, *names: str, **_options: Any) -> str:
        return self._tables.get(names[-1], f"{PLACEHOLDER}{names[-1]}") if names else PLACEHOLDER


class _This:
    def __str__(self) -> str:
        node = _now.node
        return _relation(node, node.get("alias") or node.get("name") or "this")

    def __getattr__(self, name: str) -> Any:
        node = _now.node
        known = {"schema": node.get("schema"), "identifier": node.get("alias"), "name": node.get("alias")}
        return known.get(name) or _Unknown(name=name)


class _Config:
    def __call__(self, *_arguments: Any, **_options: Any) -> str:
        return ""

    def get(self, name: str, default: Any = None, **_options: Any) -> Any:
        found = _now.node.get("config", {}).get(name)
        return default if found is None else found

    require = get


class _Target:
    """The target whose engine is asked for; code that looks at `target.type` is portable where it says so."""

    def __getattr__(self, name: str) -> Any:
        dialect = _now.dialect
        known = {"type": dialect, "name": DIALECTS[dialect].engine, "schema": "main"}
        return known.get(name) or _Unknown(name=f"target_{name}")


class _Adapter:
    def __init__(self, macros: Callable[[], Mapping[str, Any]]) -> None:
        self._macros = macros

    def type(self) -> str:
        return _now.dialect

    def dispatch(self, name: str, *_packages: Any, **_options: Any) -> Any:
        macros = self._macros()
        for prefix in (_now.dialect, "default"):
            if f"{prefix}__{name}" in macros:
                return macros[f"{prefix}__{name}"]
        return _Unknown(name=name)

    def __getattr__(self, name: str) -> Any:
        return _Unknown(name=f"adapter_{name}")


def _relation(node: Mapping[str, Any], table: str) -> str:
    return f'"{node.get("schema", "main")}"."{table}"'
