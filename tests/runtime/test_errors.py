"""The promises of `cascade.errors`: what, where, fix; readable by people, by code, and across processes."""

import pickle

import pytest

from cascade import errors
from cascade.errors import CascadeError

NAMES = [name for name in errors.__all__ if name.endswith("Error")]
ALL = [getattr(errors, name) for name in NAMES]


@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_an_error_survives_being_sent_to_another_process(kind: type[CascadeError]) -> None:
    sent = kind("It broke.", where="table raw.a", fix="mend it.")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is kind
    assert (received.what, received.where, received.fix) == ("It broke.", "table raw.a", "mend it.")
    assert str(received) == str(sent)


def test_people_read_what_where_and_how_to_fix_it() -> None:
    assert str(CascadeError("It broke.", where="table raw.a", fix="mend it.")) == (
        "It broke.\n  where: table raw.a\n  fix: mend it."
    )


def test_parts_that_are_not_given_are_not_shown() -> None:
    assert str(CascadeError("It broke.")) == "It broke."


@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_every_error_is_one_of_ours_and_says_what_it_is_for(kind: type[CascadeError]) -> None:
    assert issubclass(kind, CascadeError)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "code"),
    [(errors.UsageError, 2), (errors.ConfigurationError, 2), (errors.DefinitionError, 2), (errors.ContractError, 1)],
)
def test_wrong_usage_exits_with_two_and_failed_work_with_one(kind: type[CascadeError], code: int) -> None:
    assert kind.exit_code == code


@pytest.mark.parametrize(("number", "words"), [(0, "0 rows"), (1, "1 row"), (2000, "2,000 rows")])
def test_one_thing_is_not_said_in_the_plural(number: int, words: str) -> None:
    assert errors.count(number, "row") == words
