"""Runs of a command belong to the project's code location, as those that the UI starts: its timeline shows them."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg

from cascade_operations._dagster import RemoteRepositoryOrigin, WorkspaceFileTarget

__all__ = ["on_timeline"]


@contextlib.contextmanager
def on_timeline(instance: dg.DagsterInstance, workspace: Path, repository: str, job: str) -> Iterator[None]:
    """Let the runs that are created in the block say where their job is defined: the timeline shows no others.

    Args:
        instance: Dagster's storage, which creates the runs.
        workspace: The file `workspace.yaml`; without it the block changes nothing.
        repository: Dagster's name for the project's definitions.
        job: The job.
    """
    if not workspace.is_file():
        yield
        return
    location = WorkspaceFileTarget([str(workspace)]).create_origins()[0]
    origin = RemoteRepositoryOrigin(location, repository).get_job_origin(job)
    # `execute_in_process` asks for nothing of the kind.
    create = partial(instance.create_run_for_job, remote_job_origin=origin)
    vars(instance)["create_run_for_job"] = create
    try:
        yield
    finally:
        del vars(instance)["create_run_for_job"]
