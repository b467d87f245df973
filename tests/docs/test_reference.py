"""The reference is generated from the code: complete, and true."""

import pytest
from asked import COMMANDS
from generate import PAGES, commands, pages
from points import unannounced


@pytest.mark.parametrize("page", sorted(pages()))
def test_reference_page_says_what_the_code_says(page: str) -> None:
    """A command, setting, option or check that is missing from the reference fails here."""
    assert (PAGES / page).read_text("utf-8") == pages()[page], "run: nox -s reference"


def test_every_command_with_json_has_its_operation_on_the_page() -> None:
    """What a command prints is documented: the record of its function."""
    assert {path for path, options in commands() if "--json" in options} == set(COMMANDS)


def test_extensions_import_only_what_modules_offer() -> None:
    """The page of extension points lists it all; a name that is in no `__all__` may change without a word."""
    assert unannounced() == []
