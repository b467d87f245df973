"""PostgreSQL: the embedded catalog's database and locks, marts, and Dagster's runs and events."""
