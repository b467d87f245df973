"""Run SQL on a branch. Which engine runs it is the project's setting; what is promised is the same on each."""

from cascade.engine.base import Engine, engine_of
from cascade.engine.query import delete_branch, query
from cascade.engine.views import register_table

__all__ = ["Engine", "delete_branch", "engine_of", "query", "register_table"]
