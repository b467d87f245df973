"""What Alloy reads is what runs write, and goes to the Loki beside it.

Modules: `cascade_logs`.
"""

import json
import re
from pathlib import Path

import yaml

import cascade_logs
from cascade_logs.entry import SCHEMA

FOLDER = Path(cascade_logs.__file__).parent


def test_alloy_reads_fields_that_entries_have_and_hands_them_to_this_loki() -> None:
    """Neither program is to be had from a package registry: this is what can be compared without them."""
    text = (FOLDER / "files" / "config.alloy").read_text("utf-8")
    asked = re.findall(r"^      (\w+) += \"\",$", text, re.MULTILINE)
    assert asked
    assert set(asked) <= json.loads(SCHEMA.read_text("utf-8"))["properties"].keys()
    loki = yaml.safe_load((FOLDER / "files" / "loki.yaml").read_text("utf-8"))
    assert f"http://loki:{loki['server']['http_listen_port']}/" in text
    assert text.count("{") == text.count("}")
