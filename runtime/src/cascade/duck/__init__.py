"""DuckDB as a tool: sessions, and words of SQL. Knows nothing about tables."""
