"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

from cascade.ingestion.asset import (
    CONTRACT_CHECK,
    CRON_METADATA,
    TABLE_METADATA,
    cascade_ingestion,
    daily,
    hourly,
    load_plan,
    monthly,
    none,
    static,
    weekly,
)

__all__ = [
    "CONTRACT_CHECK",
    "CRON_METADATA",
    "TABLE_METADATA",
    "cascade_ingestion",
    "daily",
    "hourly",
    "load_plan",
    "monthly",
    "none",
    "static",
    "weekly",
]
