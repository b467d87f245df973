-- Marquez's own tables: a database `marquez`, and a role that may do nothing elsewhere.
--
-- Runs before every start of Marquez, as superuser: what exists stays, the password becomes that of the environment.

-- The password stays out of the server's log, also when a statement fails.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
-- As its verifier only, also where an old server's default is md5.
SET password_encryption = 'scram-sha-256';

\set password ''
\getenv password POSTGRES_MARQUEZ_PASSWORD
SELECT 'DO $do$ BEGIN RAISE EXCEPTION ''Not set: POSTGRES_MARQUEZ_PASSWORD''; END $do$' WHERE :'password' = ''
\gexec

SELECT 'CREATE ROLE cascade_marquez' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cascade_marquez')
\gexec
ALTER ROLE cascade_marquez LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';

-- The database belongs to the superuser: the role can fill it, not drop it.
SELECT 'CREATE DATABASE marquez ENCODING ''UTF8'' TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'marquez')
\gexec
REVOKE ALL ON DATABASE marquez FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE marquez TO cascade_marquez;

\connect marquez
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cascade_marquez;
