"""All cases of the bench: the modules that add them, and where they find what tests share."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # `support`

import loading
import merging
import projects
import servers
import upkeep

__all__ = ["loading", "merging", "projects", "servers", "upkeep"]
