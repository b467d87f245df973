"""Tell an OpenLineage receiver of every run: what it read and wrote, by columns, rows and snapshots."""
