"""Check that an object fits a Protocol, or a class a family: it has the members, which can be called as these say."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["problem"]

_MISSING = object()
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def problem(found: Any, shape: type[object]) -> str:
    """Say in one line why an object does not fit; empty when it fits.

    Args:
        found: The object.
        shape: The Protocol that it must fit, the abstract class that it must derive from, or the class that it must be
            an instance of.
    """
    family, whole = issubclass(shape, abc.ABC), f"{shape.__module__}.{shape.__qualname__}"
    if family and not (inspect.isclass(found) and issubclass(found, shape)):
        return f"{_name(found)} is no class derived from {whole}"
    if not family and not getattr(shape, "_is_protocol", False):
        return "" if isinstance(found, shape) else f"{_name(found)} is no {whole}"
    for name, member in _members(shape):
        own = found if name == "__call__" else getattr(found, name, _MISSING)
        called = _name(found) if name == "__call__" else name
        if own is _MISSING or getattr(own, "__isabstractmethod__", False):
            return f"{_name(found)} has no `{name}`, which {shape.__name__} asks for"
        if not inspect.isfunction(member):
            continue
        if not callable(own):
            return f"`{called}` cannot be called"
        wanted = list(inspect.signature(member).parameters.values())[0 if family else 1 :]  # of a class with `self`
        if said := _misfit(called, own, wanted):
            return said
    return _misfit(_name(found), found, []) if family else ""


def _misfit(called: str, own: Any, wanted: list[inspect.Parameter]) -> str:
    """Say that a function cannot be called with some parameters; empty when it can."""
    takes = _signature(own)
    if _takes(takes, wanted):
        return ""
    return f"it is called as `{called}{_plain(wanted)}`, and takes {_plain(takes.parameters.values())}"


def _members(shape: type[object]) -> Iterator[tuple[str, Any]]:
    """Return what a class asks for: names with the function, or with the annotation of an attribute."""
    for kind in reversed(shape.__mro__):
        if getattr(kind, "_is_protocol", False) or kind is shape or inspect.isabstract(shape):
            yield from inspect.get_annotations(kind).items()
            yield from (
                (name, member)
                for name, member in vars(kind).items()
                if name == "__call__" or (not name.startswith("_") and inspect.isfunction(member))
            )


def _takes(signature: inspect.Signature, wanted: list[inspect.Parameter]) -> bool:
    """Say whether a function can be called with all of some parameters, and with the required ones alone."""
    for some in (wanted, [p for p in wanted if p.default is p.empty]):
        positional = [None for p in some if p.kind in _POSITIONAL]
        try:
            signature.bind(*positional, **{p.name: None for p in some if p.kind is p.KEYWORD_ONLY})
        except TypeError:
            return False
    return True


def _signature(own: Any) -> inspect.Signature:
    try:
        return inspect.signature(own)
    except (TypeError, ValueError):
        return inspect.signature(lambda *_, **__: None)  # written in C: nobody can tell


def _plain(parameters: Iterable[inspect.Parameter]) -> str:
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters]))


def _name(found: Any) -> str:
    return getattr(found, "__qualname__", None) or getattr(found, "__name__", None) or type(found).__name__
