"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

from cascade.ingestion.asset import CRON_METADATA, TABLE_METADATA, cascade_ingestion, load_plan
from cascade.ingestion.partitions import daily, hourly, monthly, none, static, weekly
from cascade.ingestion.report import CONTRACT_CHECK

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
