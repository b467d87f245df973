"""Check that an object fits a Protocol: it has the members, and they can be called as the Protocol says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["problem"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def problem(found: Any, shape: type[object], *, classes: bool = False) -> str:
    """Say in one line why an object does not fit; empty when it fits.

    Args:
        found: The object.
        shape: The Protocol that it must fit, or the class that it must be an instance of.
        classes: Whether a class fits whose instances do.
    """
    if not getattr(shape, "_is_protocol", False):
        return "" if isinstance(found, shape) else f"{_name(found)} is no {shape.__module__}.{shape.__qualname__}"
    for name, member in _members(shape):
        own = found if name == "__call__" else getattr(found, name, None)
        called = _name(found) if name == "__call__" else name
        if own is None:
            return f"{_name(found)} has no `{name}`, which {shape.__name__} asks for"
        if not inspect.isfunction(member):
            continue
        if not callable(own):
            return f"`{called}` cannot be called"
        if classes and inspect.isclass(found) and inspect.isfunction(own):
            own = functools.partial(own, None)  # `self`
        if not _takes(_signature(own), wanted := list(inspect.signature(member).parameters.values())[1:]):
            return (
                f"it is called as `{called}{_plain(wanted)}`, and takes {_plain(_signature(own).parameters.values())}"
            )
    return ""


def _members(shape: type[object]) -> Iterator[tuple[str, Any]]:
    """Return what a Protocol asks for: names with the function, or with the annotation of an attribute."""
    for kind in reversed(shape.__mro__):
        if getattr(kind, "_is_protocol", False):
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
