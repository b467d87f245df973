"""Sources and resources of dlt as rows of an ingestion."""
