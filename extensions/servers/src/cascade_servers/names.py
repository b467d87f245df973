"""Every name that Cascade writes into its servers; see `cascade.names` for those that need no server."""

from __future__ import annotations

# Nessie

#: Branch with one namespace for each branch of Cascade: its properties say where and when the branch was created
#: (`source`, `created_at`), and up to which commit it is promoted (`base`).
RECORDS_BRANCH = "cascade-branches"
#: Key of the first commit of a new repository, which changes nothing: branches need a common ancestor.
FIRST_KEY = "cascade"
#: Property of every commit: a random id, which tells whether a commit whose answer was lost has landed.
COMMIT_PROPERTY = "cascade.commit"
#: Properties of a commit that moves a branch: `promote` or `restore`; the promoted branch or the number of the restored
#: entry; the branch that moved.
KIND_PROPERTY = "cascade.kind"
SOURCE_PROPERTY = "cascade.source"
TARGET_PROPERTY = "cascade.target"

# PostgreSQL

#: What writers hold an advisory lock on, one at a time: those who create Dagster's tables, and those who publish.
DAGSTER_LOCK = "cascade.dagster"
PUBLISH_LOCK = "cascade.publish"

# Trino

#: How the names of the catalogs of branches begin, except those of `main` and `dev`. Other catalogs are never dropped.
TRINO_CATALOG_PREFIX = "cascade_"
#: Environment variable: the Trino catalog of the branch that a dbt process writes to. Set for dbt; read by macros.
TRINO_CATALOG_VARIABLE = "CASCADE_RUN_CATALOG"
#: Name that queries run under when no user is set, and their source in Trino's query history.
TRINO_SOURCE = "cascade"
