"""The engine `embedded`: a catalog in a database, and SQL by DuckDB in the same process."""
