"""The kinds of sources: what is looked at before a workflow is written, and the code that fetches the rows."""

from cascade_create.sources.base import Request, Shape, Source
from cascade_create.sources.database import look_at_database
from cascade_create.sources.files import look_at_files
from cascade_create.sources.python import look_at_python
from cascade_create.sources.rest import look_at_rest

__all__ = ["KINDS", "Request", "Shape", "Source"]

#: The kinds by name.
KINDS = {
    "rest": look_at_rest,
    "database": look_at_database,
    "file": look_at_files,
    "python": look_at_python,
}
