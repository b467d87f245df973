-- Superset's own tables: a database `superset`, and a role that may do nothing elsewhere. What it reads of the marts it
-- reads as cascade_reader, which roles.sql of the project makes.
--
-- Runs before every start of Superset, as superuser: what exists stays, the password becomes that of the environment.

-- The password stays out of the server's log, also when a statement fails.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
-- As its verifier only, also where an old server's default is md5.
SET password_encryption = 'scram-sha-256';

\set password ''
\getenv password POSTGRES_SUPERSET_PASSWORD
SELECT 'DO $do$ BEGIN RAISE EXCEPTION ''Not set: POSTGRES_SUPERSET_PASSWORD''; END $do$' WHERE :'password' = ''
\gexec

SELECT 'CREATE ROLE cascade_superset' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cascade_superset')
\gexec
ALTER ROLE cascade_superset LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';

-- The database belongs to the superuser: the role can fill it, not drop it.
SELECT 'CREATE DATABASE superset ENCODING ''UTF8'' TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'superset')
\gexec
REVOKE ALL ON DATABASE superset FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE superset TO cascade_superset;

\connect superset
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cascade_superset;
