"""Further forms of rows: data frames of pandas and polars, and pages of JSON."""
