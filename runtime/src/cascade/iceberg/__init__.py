"""Write Arrow tables into Iceberg tables, and read Iceberg files with DuckDB. Knows nothing about Dagster."""
