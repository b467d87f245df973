"""Where the test of a module is: in the folder of its room, and named there."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = [HERE.parent / "runtime/src", *HERE.parent.glob("extensions/*/src")]


def test_each_module_is_named_by_a_test_module() -> None:
    """By an import, or by the line `Modules:` of its docstring where it is reached through others.

    `git grep -l cascade.iceberg.staging tests` answers where the test of a module is.
    """
    modules = {
        ".".join(file.relative_to(source).with_suffix("").parts)
        for source in SOURCES
        for file in source.rglob("*.py")
        if file.name != "__init__.py"
    }
    named = {name for file in HERE.rglob("*.py") for name in _names(ast.parse(file.read_text("utf-8")))}
    assert modules - named == set()


def test_what_the_tests_say_of_modules_is_true() -> None:
    """A module that was renamed or taken out is not named any more."""
    for file in HERE.rglob("test_*.py"):
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        for name in re.findall(r"`([\w.]+)`", text.partition("\n\nModules: ")[2]):
            places = [source / name.replace(".", "/") for source in SOURCES]
            assert any(place.with_suffix(".py").exists() or place.is_dir() for place in places), (file.name, name)


def test_each_room_and_each_extension_has_a_folder_of_tests() -> None:
    rooms = {folder.name for folder in SOURCES[0].glob("cascade/*/") if folder.joinpath("__init__.py").exists()}
    assert rooms == {file.parent.name for file in HERE.glob("runtime/*/test_*.py")}
    extensions = {source.parent.name for source in SOURCES[1:]}
    assert extensions == {file.parent.name for file in HERE.glob("extensions/*/test_*.py")}


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by it."""
    names = [file.name for file in HERE.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def _names(module: ast.Module) -> set[str]:
    found = set(re.findall(r"`([\w.]+)`", ast.get_docstring(module) or ""))
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
