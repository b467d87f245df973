"""Check that an object fits a Protocol: it has the members, and they can be called as the Protocol says.

A class that has them as methods fits, too: it stands for its instances.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

__all__ = ["members", "problem", "signature_of"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def members(shape: type[object]) -> Iterator[tuple[str, Any]]:
    """Return what a Protocol asks for: names with the function, or with the annotation of an attribute."""
    for kind in reversed(shape.__mro__):
        if not getattr(kind, "_is_protocol", False):
            continue
        for name, annotation in inspect.get_annotations(kind).items():
            yield name, annotation
        for name, member in vars(kind).items():
            if name == "__call__" or (not name.startswith("_") and inspect.isfunction(member)):
                yield name, member


def problem(found: Any, shape: type[object]) -> str:
    """Say in one line why an object does not fit a Protocol, or is no instance of a class; empty when it fits."""
    if not getattr(shape, "_is_protocol", False):
        return "" if isinstance(found, shape) else f"{_name(found)} is no {shape.__module__}.{shape.__qualname__}"
    for name, member in members(shape):
        own = found if name == "__call__" else getattr(found, name, None)
        if own is None:
            return f"{_name(found)} has no `{name}`, which {shape.__name__} asks for"
        if inspect.isfunction(member):
            if not callable(own):
                return f"{_name(found)} cannot be called" if own is found else f"`{name}` cannot be called"
            unbound = inspect.isclass(found) and own is not found and inspect.isfunction(own)
            if not _takes(own, member, unbound):
                called = _name(found) if own is found else name
                return f"it is called as `{called}{_plain(signature_of(member))}`, and takes {_plain(_signature(own))}"
    return ""


def signature_of(member: Any) -> inspect.Signature:
    """Return the signature of a Protocol's method as its caller sees it, without `self`."""
    signature = inspect.signature(member)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _takes(own: Any, member: Any, unbound: bool) -> bool:
    """Say whether a function can be called with all arguments of a Protocol's method, and with the required alone.

    Args:
        own: The function.
        member: The Protocol's method.
        unbound: Whether it is a method of a class that stands for its instances, and takes `self` first.
    """
    signature = _signature(own)
    parameters = list(signature_of(member).parameters.values())
    for some in (parameters, [p for p in parameters if p.default is p.empty]):
        try:
            signature.bind(
                *[None] * unbound,
                *[None for p in some if p.kind in _POSITIONAL],
                **{p.name: None for p in some if p.kind is p.KEYWORD_ONLY},
            )
        except TypeError:
            return False
    return True


def _signature(own: Any) -> inspect.Signature:
    try:
        return inspect.signature(own)
    except (TypeError, ValueError):
        return inspect.signature(lambda *_, **__: None)  # written in C: nobody can tell


def _plain(signature: inspect.Signature) -> str:
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()]))


def _name(found: Any) -> str:
    return getattr(found, "__qualname__", None) or getattr(found, "__name__", None) or type(found).__name__
