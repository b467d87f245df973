"""copier.yml: copier ignores keys that it does not know, so they are checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

QUESTIONS_FILE = Path(__file__).resolve().parents[2] / "copier.yml"
CONTENT: dict[str, Any] = yaml.safe_load(QUESTIONS_FILE.read_text("utf-8"))
QUESTIONS = {key: value for key, value in CONTENT.items() if not key.startswith("_")}
ASKED = {key: value for key, value in QUESTIONS.items() if value.get("when") is not False}

# What the template uses, of all that copier knows.
SETTINGS = {
    "_min_copier_version",
    "_subdirectory",
    "_templates_suffix",
    "_answers_file",
    "_exclude",
    "_skip_if_exists",
    "_message_after_copy",
}
# These make copier ask for `--trust`, now or at a later update; trust once needed is needed for ever.
NEEDS_TRUST = {"_tasks", "_jinja_extensions", "_migrations", "_secret_questions", "_external_data"}
QUESTION_KEYS = {"type", "help", "default", "validator", "when", "choices"}


def test_every_setting_is_one_that_copier_knows() -> None:
    assert {key for key in CONTENT if key.startswith("_")} <= SETTINGS


def test_nothing_makes_a_user_trust_the_template() -> None:
    assert not NEEDS_TRUST & set(CONTENT)
    assert not [name for name, question in QUESTIONS.items() if "secret" in question]


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_key_of_a_question_is_one_that_copier_knows(name: str) -> None:
    assert set(QUESTIONS[name]) <= QUESTION_KEYS
    assert "type" in QUESTIONS[name]
    assert "default" in QUESTIONS[name]


def test_at_most_seven_questions_are_asked() -> None:
    assert len(ASKED) <= 7


@pytest.mark.parametrize("name", ASKED)
def test_an_asked_question_explains_itself(name: str) -> None:
    """Free text has a validator whose message gives an example."""
    question = ASKED[name]
    assert question["help"]
    assert "choices" in question or "for example" in question["validator"]
