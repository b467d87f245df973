"""The handler that `dagster.yaml` names: lines of JSON, on standard error and in a file for each day."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from pathlib import Path

from cascade.config import load_settings
from cascade_logs.entry import entry_of, environment, is_told, secrets_of
from cascade_logs.settings import of

__all__ = ["Handler"]

_DAYS_KEPT = 14


class Handler(logging.Handler):
    """Writes entries where the settings `logs` say; nowhere without them.

    Lines of several processes do not mix: each is one write to a file that is opened for appending.
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        settings = load_settings()
        chosen = of(settings)
        self._on_terminal = chosen.format == "json"
        self._folder: Path | None = settings.project_dir / chosen.folder if chosen.folder else None
        self._secrets = secrets_of(environment(settings.project_dir))
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            first = f"{dt.datetime.now(dt.UTC).date() - dt.timedelta(days=_DAYS_KEPT)}.jsonl"
            for file in self._folder.glob("????-??-??.jsonl"):
                if file.name < first:
                    file.unlink(missing_ok=True)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is written."""
        return (self._on_terminal or self._folder is not None) and is_told(record) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; what goes wrong is told as Python's own handlers do, and stops no run."""
        try:
            entry = entry_of(record, self._secrets)
            line = json.dumps(entry, ensure_ascii=False) + "\n"
            if self._on_terminal:
                sys.stderr.write(line)
                sys.stderr.flush()
            if self._folder:
                with (self._folder / f"{entry['time'][:10]}.jsonl").open("ab", buffering=0) as file:
                    file.write(line.encode())
        except Exception:  # noqa: BLE001
            self.handleError(record)
