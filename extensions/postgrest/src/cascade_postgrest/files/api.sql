-- The schema `api` of the database `marts`, and the roles of PostgREST. Run it as superuser in that database, as often as
-- you like: what exists stays, and the password becomes the one that the session was given:
--   PGOPTIONS="-c cascade.authenticator_password=…" psql --single-transaction -v ON_ERROR_STOP=1 -d marts -f api.sql
--
--   cascade_authenticator  logs in, and may do nothing but become one of the next two
--   cascade_web_anon       whoever asks without a token
--   cascade_web_user       whoever asks with a token that says {"role": "cascade_web_user"}
--
-- Both read the views of `api`, one for each mart, and nothing else. The publisher owns the views and renews them by the
-- function below, in the transaction that exchanges the marts.

SET client_min_messages = 'warning';
SET password_encryption = 'scram-sha-256';
-- A statement that fails is not written to the server's log: one holds a password.
SET log_min_messages = 'panic';
SET log_min_error_statement = 'panic';

DO $do$
DECLARE
  name text;
  password text := current_setting('cascade.authenticator_password', true);
BEGIN
  IF coalesce(password, '') = '' THEN
    RAISE EXCEPTION 'Not set: cascade.authenticator_password';
  END IF;
  FOREACH name IN ARRAY ARRAY['cascade_authenticator', 'cascade_web_anon', 'cascade_web_user'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I', name);
    END IF;
    EXECUTE format('ALTER ROLE %I NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
  END LOOP;
  BEGIN
    EXECUTE format('ALTER ROLE cascade_authenticator LOGIN PASSWORD %L', password);
  EXCEPTION WHEN OTHERS THEN
    RAISE EXCEPTION '%', SQLERRM; -- without its context, which quotes the password
  END;
END
$do$;

GRANT cascade_web_anon, cascade_web_user TO cascade_authenticator;
-- PostgREST sets them for each request.
ALTER ROLE cascade_web_anon SET statement_timeout = '10s';
ALTER ROLE cascade_web_user SET statement_timeout = '10s';
GRANT CONNECT ON DATABASE marts TO cascade_authenticator;

CREATE SCHEMA IF NOT EXISTS api AUTHORIZATION cascade_publisher;
GRANT USAGE ON SCHEMA api TO cascade_web_anon, cascade_web_user;
ALTER DEFAULT PRIVILEGES FOR ROLE cascade_publisher IN SCHEMA api
  GRANT SELECT ON TABLES TO cascade_web_anon, cascade_web_user;

SET ROLE cascade_publisher;

-- Let the view of a mart show the rows of a table, or drop it when there is no table. Not in `api`, where PostgREST would
-- offer it. Grants and comments of a view stay. A mart with row security is not shown: its owner's view would show all rows.
CREATE OR REPLACE FUNCTION cascade.show(mart text, source regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $show$
DECLARE
  place text := format('api.%I', mart);
  granted aclitem[] := (SELECT relacl FROM pg_class WHERE oid = to_regclass(place));
  item record;
BEGIN
  IF source IS NULL OR (SELECT relrowsecurity FROM pg_class WHERE oid = source) THEN
    EXECUTE format('DROP VIEW IF EXISTS %s', place);
    NOTIFY pgrst, 'reload schema';
    RETURN;
  END IF;
  BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT * FROM %s', place, source);
  EXCEPTION WHEN invalid_table_definition THEN -- columns went, or have other types
    EXECUTE format('DROP VIEW %s', place);
    EXECUTE format('CREATE VIEW %s AS SELECT * FROM %s', place, source);
    EXECUTE format('REVOKE ALL ON %s FROM cascade_web_anon, cascade_web_user', place);
    FOR item IN SELECT privilege_type AS what, grantee FROM aclexplode(granted) LOOP
      EXECUTE format('GRANT %s ON %s TO %s', item.what, place,
        CASE item.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(item.grantee)) END);
    END LOOP;
  END;
  FOR item IN
    SELECT attname AS name, col_description(attrelid, attnum) AS said
    FROM pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
  LOOP
    IF item.said IS NOT NULL THEN
      EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', place, item.name, item.said);
    END IF;
  END LOOP;
  IF obj_description(source, 'pg_class') IS NOT NULL THEN
    EXECUTE format('COMMENT ON VIEW %s IS %L', place, obj_description(source, 'pg_class'));
  END IF;
  NOTIFY pgrst, 'reload schema';
END
$show$;
REVOKE EXECUTE ON FUNCTION cascade.show(text, regclass) FROM PUBLIC;

-- What was published before; and views whose marts are gone.
DO $do$
DECLARE
  item record;
BEGIN
  IF to_regclass('cascade.published') IS NULL THEN
    RETURN; -- nothing yet
  END IF;
  FOR item IN
    SELECT c.relname AS mart, NULL::regclass AS source
    FROM pg_class AS c
    WHERE c.relnamespace = 'api'::regnamespace AND c.relkind = 'v' AND pg_get_userbyid(c.relowner) = current_user
      AND NOT EXISTS (SELECT FROM cascade.published AS p WHERE p.table_name = 'marts.' || c.relname)
    UNION ALL
    SELECT c.relname, c.oid::regclass
    FROM pg_class AS c JOIN cascade.published AS p ON p.table_name = 'marts.' || c.relname
    WHERE c.relnamespace = 'marts'::regnamespace AND c.relkind = 'r' AND pg_get_userbyid(c.relowner) = current_user
  LOOP
    PERFORM cascade.show(item.mart, item.source);
  END LOOP;
END
$do$;
RESET ROLE;
