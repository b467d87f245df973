"""All cases of the bench: the modules that add them, and where they find what tests share."""

import sys
from pathlib import Path

import loading
import merging
import projects
import servers
import upkeep
from measuring import CASES

sys.path.append(str(Path(__file__).resolve().parents[1]))  # `support`

__all__ = ["CASES", "loading", "merging", "projects", "servers", "upkeep"]
