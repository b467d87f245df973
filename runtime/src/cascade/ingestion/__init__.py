"""`@cascade_ingestion`: a fetch function becomes an asset that loads its rows into an Iceberg table."""

from cascade.ingestion.asset import automation_of, cascade_ingestion, load_plan
from cascade.ingestion.partitions import daily, hourly, monthly, none, static, weekly

__all__ = ["automation_of", "cascade_ingestion", "daily", "hourly", "load_plan", "monthly", "none", "static", "weekly"]
