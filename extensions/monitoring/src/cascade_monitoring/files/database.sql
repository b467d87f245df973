-- The role of the exporter: it reads Dagster's records and the catalog's, and may write nothing.
--
-- Runs before every start of the exporter, as superuser: what exists stays, the password becomes that of the environment.

-- The password stays out of the server's log, also when a statement fails.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
-- As its verifier only, also where an old server's default is md5.
SET password_encryption = 'scram-sha-256';

\set password ''
\getenv password POSTGRES_MONITOR_PASSWORD
SELECT 'DO $do$ BEGIN RAISE EXCEPTION ''Not set: POSTGRES_MONITOR_PASSWORD''; END $do$' WHERE :'password' = ''
\gexec

SELECT 'CREATE ROLE cascade_monitor' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cascade_monitor')
\gexec
ALTER ROLE cascade_monitor LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
ALTER ROLE cascade_monitor SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE cascade, dagster TO cascade_monitor;

\connect cascade
GRANT USAGE ON SCHEMA public TO cascade_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO cascade_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE cascade_catalog IN SCHEMA public GRANT SELECT ON TABLES TO cascade_monitor;

\connect dagster
GRANT USAGE ON SCHEMA public TO cascade_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO cascade_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE cascade_dagster IN SCHEMA public GRANT SELECT ON TABLES TO cascade_monitor;
