"""How help and errors look: rich-click on a terminal, plain click elsewhere.

Boxes and colours are for people, and importing them costs a script a fifth of a second in every call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click import Command, Group
elif sys.stdout.isatty():
    import rich_click as click
    from rich_click import RichCommand as Command
    from rich_click import RichGroup as Group
else:
    import click
    from click import Command, Group

__all__ = ["Command", "Group", "click"]
