-- One database for each purpose, and for each a role that may do no more than its work.
--
--   cascade_catalog    database cascade   the embedded catalog and the locks by which runs take turns
--   cascade_dagster    database dagster   Dagster's runs and events
--   cascade_nessie     database nessie    Nessie's store
--   cascade_publisher  database marts     writes what is published
--   cascade_reader     database marts     reads what is published, and nothing else
--
-- The postgres image runs this file when it makes its data folder. Run it again at any time, as superuser and with the
-- same variables in the environment: `psql -v ON_ERROR_STOP=1 -f roles.sql`. What exists stays, passwords become those
-- of the environment.

-- Statements with passwords stay out of the server's log, those that fail as well.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';
-- As its verifier only, also where an old server's default is md5.
SET password_encryption = 'scram-sha-256';

\set catalog_password ''
\set dagster_password ''
\set nessie_password ''
\set publisher_password ''
\set reader_password ''
\getenv catalog_password POSTGRES_CATALOG_PASSWORD
\getenv dagster_password POSTGRES_DAGSTER_PASSWORD
\getenv nessie_password POSTGRES_NESSIE_PASSWORD
\getenv publisher_password POSTGRES_PUBLISHER_PASSWORD
\getenv reader_password POSTGRES_READER_PASSWORD

SELECT format('DO $do$ BEGIN RAISE EXCEPTION USING MESSAGE = %L; END $do$', 'Not set: ' || string_agg(name, ', '))
FROM (
  VALUES
    ('POSTGRES_CATALOG_PASSWORD', :'catalog_password'),
    ('POSTGRES_DAGSTER_PASSWORD', :'dagster_password'),
    ('POSTGRES_NESSIE_PASSWORD', :'nessie_password'),
    ('POSTGRES_PUBLISHER_PASSWORD', :'publisher_password'),
    ('POSTGRES_READER_PASSWORD', :'reader_password')
) AS variable (name, value)
WHERE value = ''
HAVING count(*) > 0
\gexec

-- Roles.
SELECT 'CREATE ROLE ' || name
FROM unnest(ARRAY['cascade_catalog', 'cascade_dagster', 'cascade_nessie', 'cascade_publisher', 'cascade_reader']) name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE cascade_catalog LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'catalog_password';
ALTER ROLE cascade_dagster LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'dagster_password';
ALTER ROLE cascade_nessie LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'nessie_password';
ALTER ROLE cascade_publisher LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'publisher_password';
ALTER ROLE cascade_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'reader_password';
ALTER ROLE cascade_reader SET default_transaction_read_only = on;

-- Databases belong to the superuser: their roles can fill them, not drop them.
SELECT 'CREATE DATABASE ' || name || ' ENCODING ''UTF8'' TEMPLATE template0'
FROM unnest(ARRAY['cascade', 'dagster', 'nessie', 'marts']) name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec
REVOKE ALL ON DATABASE postgres, template1, cascade, dagster, nessie, marts FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE cascade TO cascade_catalog;
GRANT CONNECT, TEMPORARY ON DATABASE dagster TO cascade_dagster;
GRANT CONNECT, TEMPORARY ON DATABASE nessie TO cascade_nessie;
GRANT CONNECT, TEMPORARY ON DATABASE marts TO cascade_publisher;
GRANT CONNECT ON DATABASE marts TO cascade_reader;

-- Schemas. Those of the first three hold their tables in `public`, which belongs to the one role that comes there.
\connect cascade
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cascade_catalog;

\connect dagster
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cascade_dagster;

\connect nessie
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO cascade_nessie;

\connect marts
SET client_min_messages = 'warning';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS marts AUTHORIZATION cascade_publisher;
CREATE SCHEMA IF NOT EXISTS cascade AUTHORIZATION cascade_publisher;
GRANT USAGE ON SCHEMA marts, cascade TO cascade_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA marts, cascade TO cascade_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE cascade_publisher IN SCHEMA marts GRANT SELECT ON TABLES TO cascade_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE cascade_publisher IN SCHEMA cascade GRANT SELECT ON TABLES TO cascade_reader;
ALTER ROLE cascade_reader IN DATABASE marts SET search_path = marts;
-- Large objects live outside of schemas, and everybody may make them.
REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
