"""Makes `generated` and `dagster_ui`, beside this file, importable from every folder of tests."""
