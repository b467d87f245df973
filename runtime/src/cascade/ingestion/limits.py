"""Which failures of a load are worth repeating, and what they say."""

from __future__ import annotations

from cascade.errors import CascadeError, IngestionError

__all__ = ["OvertakenError", "TimeLimitError", "failure_reason", "is_transient"]

# Errors of the program or of the machine's set-up: repeating them only costs the wait.
_SET_UP = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError, NotImplementedError)
_PROGRAM = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError)
_PERMANENT = (CascadeError, *_SET_UP, *_PROGRAM)

# What a driver of a database says of a wrong statement (PEP 249), of whatever library.
_STATEMENT = {"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"}

# Answers of a server that refuses today and not tomorrow: timeout, too early, too many requests.
_TRANSIENT_STATUS = (408, 425, 429)


def failure_reason(error: BaseException) -> str:
    """Return what went wrong: Cascade's own text, or type and text of what a user's function raised."""
    return str(error) if isinstance(error, CascadeError) else f"{type(error).__name__}: {error}"


def is_transient(error: BaseException) -> bool:
    """Say whether repeating may mend a failure, judged by the error and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        # Errors of requests are OSErrors and ValueErrors at once; they are worth a repetition.
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int) and 400 <= status < 500 and status not in _TRANSIENT_STATUS:
            return False
        repeatable = isinstance(seen, TimeLimitError | OvertakenError)
        if repeatable or type(seen).__module__.startswith(("requests", "urllib3", "httpx")):
            return True
        if isinstance(seen, _PERMANENT) or _STATEMENT & {kind.__name__ for kind in type(seen).__mro__}:
            return False
        seen = seen.__cause__ or seen.__context__
    return True


class OvertakenError(IngestionError):
    """Another run wrote what this one had started from; repeating starts from there."""


class TimeLimitError(IngestionError):
    """The load took longer than it may."""
