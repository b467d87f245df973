"""dbt models become assets. `assets` is the side of Dagster, `duckdb_plugin` the side of the dbt process.

Neither is imported here: the dbt process would pay for all of Dagster.
"""
