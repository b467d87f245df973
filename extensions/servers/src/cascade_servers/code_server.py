"""Become the code server of a container, after closing the runs that ended with its predecessor.

`python -m cascade_servers.code_server HOST COMMAND…`: a run lives in the container of the code server that started
it. Dagster cannot tell that both are gone, and such a run would hold its place in the pool of promotions for ever.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import dagster as dg

from cascade._dagster import GRPC_INFO_TAG
from cascade.config import load_settings
from cascade.framework.instance import open_instance

__all__ = ["close_runs_of", "main"]

_ALIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def close_runs_of(host: str, instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs of a code server that is gone as failed, and return their ids.

    Args:
        host: The name by which Dagster reached that server.
        instance: The project's Dagster storage.
    """
    closed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=list(_ALIVE))):
        if json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host") == host:
            instance.report_run_failed(run, "The code server that executed this run ended, and the run with it.")
            closed.append(run.run_id)
    return closed


def main(arguments: Sequence[str]) -> None:
    """Close what the predecessor left, then run a command in place of this process.

    Args:
        arguments: The host's name, and the command.
    """
    host, *command = arguments
    with open_instance(load_settings()) as instance:
        for run_id in close_runs_of(host, instance):
            print(f"Run {run_id} ended with the code server before this one.", flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
