"""Contracts by Pandera: a model gives a table its columns, and every row is checked against it."""
