"""What dbt said of its failures, in the order that its reader needs: file and line, model, what the database said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["said_by_dbt"]

_FAILURE = re.compile(r"^.*?Failure in (\w+) (\S+) \(([^)\n]+)\)\n", re.MULTILINE)
# What a database names of a statement that it refuses: "nope" in quotes, or `name nope`.
_NAMED = re.compile(r"[\"'`](\w+)[\"'`]|\bname (\w+)")


def said_by_dbt(text: str, dbt: Path, root: Path, log: Path) -> str:
    """Return what dbt said of its models, without Dagster's words on the command and the trail of macros.

    Args:
        text: The error of dagster-dbt.
        dbt: The dbt project.
        root: The project; files are named from there.
        log: dbt's log, JSON lines: it alone says why batches of a microbatch have failed.
    """
    said = re.sub(r"\x1b\[\d+m", "", text.partition("Errors parsed from dbt logs:")[2] or text)  # colours
    lines = (line for line in said.splitlines() if line.strip() and not line.startswith("  > "))
    # dbt tells each failure as it comes, and all again at its end with the model's name and file.
    first, *parts = _FAILURE.split("\n".join(lines) + "\n")
    failures = list(zip(*(parts[part::4] for part in range(4)), strict=True))
    batches = {name: (file, cause) for name, file, cause in _batches(log, dbt)}
    failures = [failure for failure in failures if failure[1] not in batches]
    failures += [("model", name, file, cause) for name, (file, cause) in batches.items()]
    if not failures:
        return first.strip()
    told = []
    for kind, name, file, cause in failures:
        place = _place(dbt / file, cause) if (dbt / file).is_file() else file
        told.append(f"{str(place).removeprefix(f'{root}/')}: {kind} {name}: {cause.strip()}")
    return "\n".join(told)


def _batches(log: Path, dbt: Path) -> Iterator[tuple[str, str, str]]:
    """Yield microbatch models of which a batch has failed: name, file, the first of these batches and its cause."""
    causes: dict[str, str] = {}
    for line in log.read_text("utf-8", errors="replace").splitlines() if log.is_file() else ():
        if "ExceptionOnRun" not in line and "LogBatchResult" not in line:
            continue
        event = json.loads(line)
        data, node = event["data"], event["data"].get("node_info", {})
        if event["info"]["name"].endswith("ExceptionOnRun"):
            causes.setdefault(node["unique_id"], data["exc"].removeprefix("Exception on worker thread. "))
        elif data.get("status") == "error" and (cause := causes.pop(node["unique_id"], "")):
            file = next(dbt.glob(f"*/{node['node_path']}"), Path(node["node_path"]))
            yield (
                node["node_name"],
                str(file.relative_to(dbt) if file.is_file() else file),
                f"{data['description']}: {cause}",
            )


def _place(file: Path, cause: str) -> str:
    """Return the file, with the first of its lines that has what the database names."""
    lines = file.read_text("utf-8", errors="replace").splitlines() if file.suffix in (".sql", ".py") else []
    for word in (quoted or plain for quoted, plain in _NAMED.findall(cause)):
        for number, line in enumerate(lines, 1):
            if re.search(rf"\b{re.escape(word)}\b", line, re.IGNORECASE):
                return f"{file}:{number}"
    return str(file)
