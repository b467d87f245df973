"""Every name that Cascade writes into other systems, and every name of theirs that it reads.

They are a public format: tables, run histories and files of users hold them for years. `docs/reference/names.md` is
generated from this module, from its headings and from the `#:` comment of each name; a test fails when a name changes.
"""

from __future__ import annotations

# Branches

#: The branch that readers read. Only a promotion or a restore moves it.
MAIN = "main"
#: How the branch of a run begins; the start of the run's id, or the id of its backfill, follows.
RUN_BRANCH_PREFIX = "run-"

# Tags of a run in Dagster

#: The branch that the run writes to. Set by Cascade's commands, and by the first step of other runs; read by each step.
BRANCH_TAG = "cascade/branch"
#: Which command started the run. Set by `cascade run`; read to close runs whose process was killed.
COMMAND_TAG = "cascade/command"
#: `true` skips the partitions that the branch already holds. Set by `cascade run`; read by ingestion assets.
MISSING_ONLY_TAG = "cascade/missing_only"
#: Rebuilds the tables of incremental models, whatever its value. Set by `--full-refresh` or in Dagster's UI; read by
#: dbt assets.
FULL_REFRESH_TAG = "cascade/full-refresh"
#: Of a run that makes tables without rows, to see their columns; and of assets that can do so.
EMPTY_TAG = "cascade/empty"
#: The backfill of the run. Set by Dagster; read to give all runs of one backfill the same branch.
BACKFILL_TAG = "dagster/backfill"
#: The run that the run repeats. Set by Dagster; read by `cascade maintain branches`.
ROOT_RUN_TAG = "dagster/root_run_id"
#: The run's only partition. Set by Dagster and by `cascade run`; read by quality checks.
PARTITION_TAG = "dagster/partition"
#: First and last partition of the run. Set by Dagster, `cascade run` and `cascade.testing`; read by quality checks.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

# Assets and jobs in Dagster

#: Key of the asset that promotes the run's branch.
PROMOTE_ASSET = ("cascade", "promote")
#: Key of the asset that publishes the marts.
PUBLISH_ASSET = ("cascade", "publish")
#: Pool of the steps that promote: they run one at a time.
PROMOTE_POOL = "cascade_promote"
#: Name of the check that says whether the loaded rows fulfil the contract.
CONTRACT_CHECK = "contract"
#: Name of the check that says whether the newest partition is recent enough.
FRESHNESS_CHECK = "freshness"
#: Name of the check of the promotion that says whether all files and definitions of the project can be used.
DEFINITIONS_CHECK = "definitions"
#: How Dagster's name for the job of a bare materialization begins. Read to choose the branch of such a run.
ASSET_JOB = "__ASSET_JOB"

# Metadata of assets, checks and definitions in Dagster

#: On materializations and check results: the Iceberg snapshot that they describe. Read by the promotion gate.
SNAPSHOT_METADATA = "cascade/snapshot_id"
#: On materializations and check results: the branch that the snapshot was read from.
BRANCH_METADATA = "cascade/branch"
#: On ingestion assets: the table that is loaded, `namespace.table`.
TABLE_METADATA = "cascade/table"
#: On ingestion assets: the cron expression of their schedule.
CRON_METADATA = "cascade/cron"
#: On quality checks of the user's own SQL: the statement. Read by `cascade validate`.
SQL_METADATA = "cascade/sql"
#: On the definitions: the files and definitions that could not be loaded, as JSON.
PROBLEMS_METADATA = "cascade/problems"
#: On the step of a job that does what `cascade run` does: the runs that it started. Read by alerts: these runs tell.
RUNS_METADATA = "cascade/runs"
#: On promotions that moved `main`: the entry of its log, the entry's time, and the tables that moved.
PROMOTION = "promotion"
PROMOTED_AT = "promoted_at"
PROMOTED_TABLES = "tables"
#: On materializations: rows of the table on the branch. Dagster draws it over time.
ROW_COUNT = "dagster/row_count"
#: On materializations of one partition: rows that the run loaded into it.
PARTITION_ROW_COUNT = "dagster/partition_row_count"
#: On assets and materializations: `namespace.table`; and where its files are. Dagster shows both as its storage.
TABLE_NAME = "dagster/table_name"
TABLE_URI = "dagster/uri"
#: On materializations: the table's columns, their types and what they mean. Dagster shows them.
COLUMN_SCHEMA = "dagster/column_schema"
#: On models: the columns of other tables that each column is computed from; or why that is not known.
COLUMN_LINEAGE = "dagster/column_lineage"
NO_LINEAGE = "no_column_lineage"
#: On loads, models and dbt's tests: how long they took.
TOTAL_SECONDS = "total_seconds"
#: On loads: rows that the source returned. It is the sum of the next three.
EXTRACTED_ROWS = "extracted_rows"
#: On loads: rows that were written.
LOADED_ROWS = "loaded_rows"
#: On loads and contract checks: rows that broke the contract and were set aside.
QUARANTINED_ROWS = "quarantined_rows"
#: On loads: rows that another row with the same key replaced before they were written.
DUPLICATE_ROWS = "duplicate_rows"
#: On loads: rows of the table that the load replaced.
REPLACED_ROWS = "replaced_rows"
#: On loads: how many partitions were loaded, and how many were skipped because the branch already holds them.
PARTITIONS_LOADED = "partitions_loaded"
PARTITIONS_SKIPPED = "partitions_skipped"
#: On assets with a quarantine, and on loads that set rows aside: the table that holds these rows.
QUARANTINE_TABLE = "quarantine_table"
#: On assets with a quarantine: the columns of that table, their types and what they mean.
QUARANTINE_COLUMNS = "quarantine_columns"
#: On loads: columns of the source that the contract does not have.
DROPPED_COLUMNS = "dropped_columns"
#: On quality checks: rows that were checked, and rows that failed.
CHECKED_ROWS = "checked_rows"
FAILING_ROWS = "failing_rows"

# Iceberg tables: properties, snapshots, columns, files

#: Table property: the loaded partitions, those without rows included. Written in the commit of the rows.
LOADED_PROPERTY = "cascade.loaded-partitions"
#: Table property: kind and time zone of the loaded partitions, and what tells which rows belong to one.
PARTITIONS_PROPERTY = "cascade.partitions"
#: Table property: the key that rows are merged by.
KEY_PROPERTY = "cascade.key"
#: Table property: what a source keeps from load to load (its cursor), as its text. Written in the commit of the rows.
SOURCE_STATE_PROPERTY = "cascade.source-state"
#: Table property: what a dbt model's table was made from: JSON with the snapshot and columns that it speaks of, digests
#: of its code, and what it read. Written once dbt is done; read by `cascade run` and `cascade plan`.
MADE_FROM_PROPERTY = "cascade.made-from"
#: How a property begins whose text, being long, is a packed file in the table's folder `metadata`; its name follows.
PROPERTY_FILE = "cascade.file:"
#: Snapshot property: the id of the run that wrote the snapshot.
RUN_PROPERTY = "cascade.run-id"
#: Snapshot property: the snapshot whose rows this one holds in other files. Written by `cascade maintain compact`; read
#: wherever a table counts as changed only when its rows are.
ROWS_OF_PROPERTY = "cascade.rows-of"
#: Snapshot property: `cascade table reset` wrote the snapshot. The next load gives the table its columns again.
RESET_PROPERTY = "cascade.reset"
#: Snapshot property: how many bytes a row takes in memory, on average. Read to tell full files from small ones.
ROW_BYTES_PROPERTY = "cascade.row-bytes"
#: Snapshot property: the branch that the run wrote to.
BRANCH_PROPERTY = "cascade.branch"
#: How the columns that Cascade adds begin. Columns of sources that begin so are left out.
COLUMN_PREFIX = "_cascade_"
#: Column of loaded tables: when the run loaded the row, in UTC.
INGESTED_AT_COLUMN = "_cascade_ingested_at"
#: Column of appended tables without a partition column: the partition that the row was loaded for.
PARTITION_COLUMN = "_cascade_partition"
#: Entry in the footer of Parquet files: CRC-32 of the file's name and bytes, where its own eight digits are zeros.
CHECKSUM_ENTRY = "cascade.checksum"
#: How the names of data files end that have this entry. Such a file without it is damaged.
SUMMED_FILE = ".summed.parquet"
#: Folder of the warehouse with one note for each catalog that keeps files there.
NOTES_FOLDER = "_cascade"

# Namespaces, schemas and tables

#: Namespace of the rows that were set aside; `quarantine.raw__orders` for `raw.orders`.
QUARANTINE = "quarantine"
#: Namespace of the marts, and the schema that they are published to.
MARTS = "marts"
#: Schema of Cascade's own tables in the serving database of the marts.
SCHEMA = "cascade"
#: Table of that schema: which snapshot of each mart is published.
PUBLISHED = "published"
#: Tables of the embedded catalog's database, beside PyIceberg's own: branches, where each began, the log, properties.
BRANCHES_TABLE = "cascade_branches"
BASES_TABLE = "cascade_branch_bases"
LOG_TABLE = "cascade_log"
PROPERTIES_TABLE = "cascade_properties"

# Environment variables that are not settings

#: The root folder of the project. Read by every command; set for the processes that Cascade starts.
PROJECT_DIR_VARIABLE = "CASCADE_PROJECT_DIR"
#: The branch that a dbt process writes to. Set for the dbt processes that Cascade starts.
RUN_BRANCH_VARIABLE = "CASCADE_RUN_BRANCH"
#: The settings of a run, as JSON. Set for the dbt processes that Cascade starts; read in place of the project's files.
RUN_SETTINGS_VARIABLE = "CASCADE_RUN_SETTINGS"
#: The folder with Cascade's macros. Set for dbt processes; read by the project's `dbt_project.yml`.
DBT_MACROS_VARIABLE = "CASCADE_DBT_MACROS"


def run_branch(run_id: str) -> str:
    """Return the branch of a run.

    Args:
        run_id: Id of the run, of the run that it repeats, or of its backfill. Only its first 8 characters count.
    """
    return RUN_BRANCH_PREFIX + run_id[:8]


def is_run_branch(name: str) -> bool:
    """Say whether a branch belongs to one run, or one backfill, and ends with its promotion."""
    return name.startswith(RUN_BRANCH_PREFIX)
