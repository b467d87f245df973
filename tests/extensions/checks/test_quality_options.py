"""The promises of `cascade.quality` about wrong options.

Modules: `cascade_checks.refusals`.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from cascade.errors import DefinitionError
from cascade.quality import (
    accepted_values,
    cascade_quality,
    custom_sql,
    freshness,
    in_range,
    matches,
    not_null,
    reconciles,
    row_count,
    unique,
)


def _decorate(**options: Any) -> Callable[[], object]:
    return lambda: cascade_quality(**options)


def _function(function: Any, **options: Any) -> Callable[[], object]:
    return lambda: cascade_quality(asset="raw/weather", **options)(function)


async def _coroutine() -> bool:
    return True


def _asks(evaluation: object) -> None: ...


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "misspelt option": (_decorate(asset="a/b", chekcs=[]), "cascade_quality has no option `chekcs`"),
    "no asset": (_decorate(checks=[not_null("a")]), "asset"),
    "no brackets": (lambda: cascade_quality(_coroutine), "cascade_quality cannot be called like this"),  # type: ignore[call-arg, misc]
    "asset without namespace": (_decorate(asset="weather"), "write namespace/table"),
    "asset with three parts": (_decorate(asset=dg.AssetKey(["a", "b", "c"])), "write namespace/table"),
    "asset that leaves": (_decorate(asset="../../x"), "write namespace/table"),
    "asset of a wrong type": (_decorate(asset=3), "3 is not the name of a table"),
    "blocking of a wrong type": (_decorate(asset="a/b", blocking="yes"), "blocking='yes'"),
    "no checks": (_decorate(asset="a/b", checks=[]), "list at least one of accepted_values, custom_sql"),
    "checks without list": (_decorate(asset="a/b", checks=not_null("a")), "not a list of checks"),
    "unknown check": (_decorate(asset="a/b", checks=[not_null("a"), "unique"]), "'unique' is not a check"),
    "check not called": (_decorate(asset="a/b", checks=[unique]), "is not a check"),
    "one name twice": (
        _decorate(asset="a/b", checks=[in_range("x", 1), in_range("x", 2)]), "are called in_range_x",
    ),
    "compared with itself": (_decorate(asset="a/b", checks=[reconciles("a.b")]), "compares a.b with itself"),
    "no function": (_function("select 1"), "is not a function"),
    "lambda": (_function(lambda: True), "is not a function"),
    "coroutine": (_function(_coroutine), "cannot be a coroutine"),
    "unknown parameter": (_function(_asks), "The check asks for `evaluation`"),
    "parameters never given": (_function(_asks, checks=[not_null("a")]), "but it asks for `evaluation`"),
    "misspelt option of a check": (lambda: in_range("a", min=1), "(column, minimum=None, maximum=None, *"),  # type: ignore[call-arg]
    "no column": (not_null, "not_null names no column"),
    "list as column": (lambda: unique(["a", "b"]), "is not the name of a column"),  # type: ignore[arg-type]
    "column twice": (lambda: unique("a", "A"), "names a column twice"),
    "tolerance in percent": (lambda: not_null("a", tolerance=5), "tolerance=5 is not a fraction"),
    "negative tolerance": (lambda: custom_sql("a", "select 1", tolerance=-0.1), "=-0.1 is not a fraction"),
    "NaN as tolerance": (lambda: reconciles("a.b", tolerance=float("nan")), "tolerance=nan is not a fraction"),
    "no bounds": (lambda: in_range("a"), "Neither minimum nor maximum"),
    "bounds exchanged": (lambda: in_range("a", 2, 1), "minimum=2 is more than maximum=1"),
    "bounds of two kinds": (lambda: in_range("a", 2, dt.date(2020, 1, 1)), "cannot be compared"),
    "infinite bound": (lambda: in_range("a", float("inf")), "inf is not a bound"),
    "text as bound": (lambda: in_range("a", "1"), "'1' is not a bound"),  # type: ignore[arg-type]
    "truth as bound": (lambda: in_range("a", True), "True is not a bound"),
    "no values": (lambda: accepted_values("a", []), "[] is not a list of values"),
    "text as values": (lambda: accepted_values("a", "EWR"), "'EWR' is not a list of values"),
    "null as value": (lambda: accepted_values("a", ["x", None]), "None cannot be compared"),  # type: ignore[list-item]
    "broken pattern": (lambda: matches("a", "[a-"), "is not a regular expression"),
    "look-ahead": (lambda: matches("a", "(?!x).*"), "`(?!`, which SQL engines do not know"),
    "back reference": (lambda: matches("a", r"(a)\1"), r"`\1`, which SQL engines do not know"),
    "row_count without bounds": (row_count, "Neither minimum nor maximum"),
    "negative rows": (lambda: row_count(minimum=-1), "-1 is not a number of rows"),
    "bounds of rows exchanged": (lambda: row_count(minimum=2, maximum=1), "minimum=2 is more than maximum=1"),
    "no hours": (lambda: freshness("a"), "Neither warn_hours nor fail_hours"),
    "hours exchanged": (lambda: freshness("a", 24, 1), "warn_hours=24 is more than fail_hours=1"),
    "zero hours": (lambda: freshness("a", 0), "0 is not an age in hours"),
    "other without namespace": (lambda: reconciles("weather"), "'weather' is not the name of a table"),
    "empty expression": (lambda: reconciles("a.b", " "), "is not a SQL expression"),
    "empty SQL": (lambda: custom_sql("a", " ; "), "is not SQL"),
    "name with a space": (lambda: not_null("a", name="my check"), "'my check' is not a name for a check"),
}  # fmt: skip


@pytest.mark.parametrize(("define", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_option_fails_at_definition(define: Callable[[], object], said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert said in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("pattern", [r"\(\?=\)", "[(?=]+", r"a\\1?", "(?i)ewr", "(?P<x>a)", "a+?"])
def test_a_pattern_that_only_looks_like_an_extension_is_taken(pattern: str) -> None:
    assert matches("a", pattern).name == "matches_a"
