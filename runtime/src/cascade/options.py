"""Refuse a call with options that a decorator or a check does not have, and list those that it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from cascade.errors import DefinitionError

__all__ = ["known_options"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def known_options(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn a call that does not fit the function's signature into an error that lists the valid options.

    The returned function raises `DefinitionError` where Python would raise `TypeError`.
    """
    signature = inspect.signature(function)
    name = getattr(function, "__name__", "the function")
    bare = signature.replace(
        parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
        return_annotation=signature.empty,
    )

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = [f"`{option}`" for option in kwargs if option not in signature.parameters]
            what = f"has no option {', '.join(unknown)}" if unknown else f"cannot be called like this: {error}"
            given = [*map(repr, args), *(f"{option}={value!r}" for option, value in kwargs.items())]
            raise DefinitionError(
                f"{name} {what}.", where=f"{name}({', '.join(given)})", fix=f"its options are {name}{bare}."
            ) from None
        return function(*args, **kwargs)

    return call
