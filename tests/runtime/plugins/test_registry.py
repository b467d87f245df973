"""What is found, what fits, and that a plugin which is broken costs itself and is named.

Modules: `cascade.plugins.registry`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from cascade.errors import ConfigurationError
from cascade.plugins import find, installed, load, load_all
from cascade.plugins.shape import problem
from cascade.plugins.source import failing_line
from support.packages import install

GROUP = "cascade.greetings"
GOOD = ("[cascade.greetings]\nnice = nice_one:greet\n", "def greet(name, *, loud=False): return 'hello ' + name\n")


class Greeting(Protocol):
    """Says hello."""

    def __call__(self, name: str, *, loud: bool = False) -> str:
        """Greet somebody."""


# Source of the module, and what the record says: place, cause, remedy.
BAD = {
    "raises": ("x = 1\nraise ValueError('no luck')\n", r"bad_one.py:2", "ValueError: no luck", "another version"),
    "exits": ("raise SystemExit(3)\n", r"bad_one.py:1", "SystemExit: 3", "another version"),
    "no_python": ("def greet(\n", r"bad_one.py:1", "SyntaxError", "another version"),
    "needs_more": ("import nothere.at.all\n", r"bad_one.py:1", "No module named 'nothere'", "install `nothere`, which"),
    "no_object": ("x = 1\n", "bad_one:greet", "has no attribute 'greet'", "another version"),
    "no_function": ("greet = 3\n", "bad_one:greet", "`int` cannot be called", "another version"),
    "other_arguments": (
        "\n\ndef greet(): ...\n",
        "bad_one.py:3",
        "it is called as `greet(name, *, loud=False)`, and takes ()",
        "another version",
    ),
}


@pytest.mark.parametrize("expected", BAD.values(), ids=BAD.keys())
def test_a_bad_plugin_is_one_record_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: tuple[str, str, str, str]
) -> None:
    """Whatever the package does while it is imported."""
    source, where, cause, fix = expected
    bad = ("[cascade.greetings]\nbad = bad_one:greet\n", source)
    install(tmp_path, monkeypatch, {"bad-one": bad, "nice-one": GOOD})
    broken, good = load_all(GROUP, Greeting)
    assert (broken.name, broken.package, broken.object) == ("bad", "bad-one 1.0", None)
    assert re.search(where, broken.where)
    assert cause in broken.cause
    assert "\n" not in str(broken)
    assert fix in broken.fix
    assert "bad-one" in broken.fix
    assert (good.cause, good.object("Ada")) == ("", "hello Ada")


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"bad-one": ("[cascade.greetings]\nbad = nothere.inside:greet\n", "")})
    with pytest.raises(ConfigurationError, match="`bad` of") as caught:
        find(GROUP, "bad", Greeting)
    assert "No module named 'nothere'" in caught.value.what
    assert "package bad-one 1.0, nothere.inside:greet" in caught.value.where


def test_two_packages_with_one_name_are_both_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one found would win by chance."""
    source = "raise SystemExit('imported')"
    install(
        tmp_path,
        monkeypatch,
        {
            "first": ("[cascade.greetings]\nsame = first:greet\n", source),
            "second": ("[cascade.greetings]\nsame = second:greet\n", source),
            "nice-one": GOOD,
        },
    )
    good, *same = load_all(GROUP, Greeting)
    assert [(r.package, r.cause) for r in same] == [
        ("first 1.0", "second brings one of this name, too"),
        ("second 1.0", "first brings one of this name, too"),
    ]
    assert good.cause == ""
    with pytest.raises(ConfigurationError, match="brings one of this name"):
        find(GROUP, "same", Greeting)


def test_nobody_takes_a_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a package could take `cascade run` away."""
    install(tmp_path, monkeypatch, {"thief": ("[cascade.commands]\nrun = thief:run\n", "")})
    ours, theirs = sorted(
        (r for r in installed("cascade.commands") if r.name == "run"), key=lambda record: bool(record.cause)
    )
    assert (ours.package.partition(" ")[0], ours.cause) == ("cascade-cli", "")
    assert (theirs.package, theirs.cause) == ("thief 1.0", "cascade-cli brings one of this name, too")


def test_a_list_of_entry_points_that_cannot_be_read_is_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`importlib.metadata` gives nothing of any package then."""
    install(tmp_path, monkeypatch, {"torn": ("[cascade.greetings]\nno value\n", ""), "nice-one": GOOD})
    torn, good = load_all(GROUP, Greeting)
    assert (torn.name, torn.package, torn.where) == ("*", "torn 1.0", "entry_points.txt")
    assert torn.cause.startswith("entry_points.txt cannot be read")
    assert good.cause == ""


def test_what_no_package_brings_is_asked_for_by_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"nice-one": GOOD})
    assert find(GROUP, "rude", Greeting) is None
    with pytest.raises(ConfigurationError, match="No installed package brings `rude`") as caught:
        load(GROUP, "rude", Greeting, where="setting `greeting`")
    assert caught.value.where == "setting `greeting`"
    assert "there is `nice`" in caught.value.what
    assert "`cascade plugins list`" in caught.value.fix
    assert load(GROUP, "nice", Greeting, where="setting `greeting`")("Ada") == "hello Ada"


def test_what_is_installed_is_listed_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'raise SystemExit("imported")\n'
    install(tmp_path, monkeypatch, {"nice-one": (GOOD[0], source)})
    (record,) = installed(GROUP)
    assert (record.name, record.package, record.value) == ("nice", "nice-one 1.0", "nice_one:greet")
    assert "nice_one" not in sys.modules


# Shapes


class Thing(Protocol):
    """Has an attribute and two methods."""

    size: int

    def open(self, url: str) -> Any:
        """Open it."""

    def close(self, *, force: bool = False) -> None:
        """Close it."""


class _Methods:
    size = 1

    def open(self, url: str) -> None: ...

    def close(self, *, force: bool = False) -> None: ...


class _ClassMethod(_Methods):
    @classmethod
    def open(cls, url: str, retries: int = 3) -> None: ...  # type: ignore[override]


class _Lacks:
    def open(self, url: str) -> None: ...


class _NeedsMore(_Methods):
    def open(self, url: str, password: str) -> None: ...  # type: ignore[override]


class _NoKeyword(_Methods):
    def close(self) -> None: ...  # type: ignore[override]


SHAPES = {
    "object": (_Methods(), ""),
    "class": (_Methods, "it is called as `open(url)`, and takes (self, url)"),
    "class_method_with_a_default": (_ClassMethod(), ""),
    "lacks": (_Lacks(), "_Lacks has no `size`, which Thing asks for"),
    "needs_more": (_NeedsMore(), "it is called as `open(url)`, and takes (url, password)"),
    "no_keyword": (_NoKeyword(), "it is called as `close(*, force=False)`, and takes ()"),
    "other": (len, "len has no `size`, which Thing asks for"),
}


@pytest.mark.parametrize(("found", "said"), SHAPES.values(), ids=SHAPES.keys())
def test_a_shape_is_checked_by_members_and_arguments(found: object, said: str) -> None:
    assert problem(found, Thing) == said


def test_the_place_of_an_error_is_in_the_project_and_not_in_its_environment(tmp_path: Path) -> None:
    library = tmp_path / ".venv/lib/site-packages/some/library.py"
    library.parent.mkdir(parents=True)
    library.write_text("def fail():\n    raise ValueError(1)\n")
    (tmp_path / "mine.py").write_text("\nfail()\n")
    space: dict[str, Any] = {}
    exec(compile(library.read_text(), str(library), "exec"), space)
    with pytest.raises(ValueError, match="1") as caught:
        exec(compile((tmp_path / "mine.py").read_text(), str(tmp_path / "mine.py"), "exec"), space)
    assert failing_line(caught.value, [tmp_path]) == (tmp_path / "mine.py", 2)
    assert failing_line(caught.value, [library.parent]) == (library, 2)
