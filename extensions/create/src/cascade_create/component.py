"""What `dg scaffold defs` offers: the same files as `cascade create-workflow` writes."""

import dagster as dg
from pydantic import BaseModel, Field

from cascade.config import load_settings
from cascade.errors import CascadeError

__all__ = ["Workflow"]


class _Parameters(BaseModel):
    """The options of `cascade create-workflow`."""

    kind: str = Field(description="rest, database, file or python")
    url: str = Field(default="", description="Of a REST API, or a database")
    table: str = Field(default="", description="Of a database")
    path: str = Field(default="", description="Of files, such as data/drops/*.csv")
    key: str = Field(default="", description="Columns that name a row, with commas between them")
    cursor: str = Field(default="", description="Column that says when a row changed")
    infer: bool = Field(default=True, description="Look at the source")
    auth: str = Field(default="", description="Such as bearer:VARIABLE")


class _WorkflowScaffolder(dg.Scaffolder[_Parameters]):
    @classmethod
    def get_scaffold_params(cls) -> type[_Parameters]:
        """The options."""
        return _Parameters

    def scaffold(self, request: dg.ScaffoldRequest[_Parameters]) -> None:
        """Write the workflow; `dg` made a folder for it, which is not needed."""
        from cascade_create.sources import Request
        from cascade_create.workflow import create_workflow, look

        target = request.target_path
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        given = request.params.model_dump()
        key = tuple(part.strip() for part in given.pop("key").split(",") if part.strip())
        try:
            settings = load_settings(request.project_root)
            asked = Request(name=target.name, key=key, folder=settings.project_dir, **given)
            created = create_workflow(settings, look(settings, asked))
        except CascadeError as error:
            raise SystemExit(f"Error: {error}") from None
        print("\n".join([*created.new, *created.changed, *created.guesses]))


@dg.scaffold_with(_WorkflowScaffolder)
class Workflow:
    """A workflow that loads a source: kinds rest, database, file and python.

    The last part of DEFS_PATH is its name. It is an asset with its contract, its model of the bronze layer and a test.
    """
