"""Tests of a project: a lakehouse for each test, dbt unit tests as tests of pytest, and `cascade test`."""

from cascade_testing.lakehouse import RunResult, TemporaryLakehouse

__all__ = ["RunResult", "TemporaryLakehouse"]
