"""The real servers of the production engine, started natively, for tests and for looking around."""
