"""The engine `trino`: catalog on Nessie, SQL on Trino; and PostgreSQL for what several machines share."""
