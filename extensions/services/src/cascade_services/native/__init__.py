"""The lake's servers on this machine, without containers: PostgreSQL, versitygw for S3, Nessie and Trino."""
