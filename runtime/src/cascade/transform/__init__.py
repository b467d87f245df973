"""dbt models become assets. `assets` is the side of Dagster, `duckdb_plugin` the side of the dbt process.

Neither is imported here: the dbt process would pay for all of Dagster.
"""

__all__ = ["FULL_REFRESH_TAG"]

#: A run with this tag, whatever its value, makes the tables of incremental models anew.
FULL_REFRESH_TAG = "cascade/full-refresh"
