"""`services/access.yaml`: who may do what, cell by cell as the page says, on the real servers with its own files."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import re
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import jwt
import psycopg
import pyarrow as pa
import pytest
import requests
import trino
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from pyarrow.fs import FileSelector, FileType, S3FileSystem

from cascade.catalog import BranchingCatalog, open_catalog
from cascade.errors import ServiceError
from cascade_servers.trino.server import Refused, Server
from cascade_services.native.downloads import programs
from cascade_services.native.nessie import nessie
from cascade_services.native.processes import answers, free_ports
from support.generated import REPOSITORY
from support.lakes import promoted, put
from support.servers.secured import Secured, prepare, secured

PAGE = REPOSITORY / "docs/how-to/secure-the-servers.md"
_MONTHS = pa.table({"station": ["DSM", "AMW"], "month": [dt.date(2023, 1, 1), dt.date(2024, 2, 1)]})
_REFUSED = (requests.codes.unauthorized, requests.codes.forbidden)


@pytest.fixture(scope="module")
def servers() -> Iterator[Secured]:
    """All servers, and a lake with a mart on `main`, a raw table on `main` and on `dev`."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("REQUESTS_CA_BUNDLE", certifi.where())  # it does not win over our authority
        with secured() as running:
            lake = open_catalog(running.settings)
            promoted(lake, "marts.weather_monthly", _MONTHS)
            promoted(lake, "raw.a", pa.table({"id": [1]}))
            put(lake, "dev", "raw.a", pa.table({"id": [2]}))
            with psycopg.connect(running.values["CASCADE_MARTS_URL"]) as marts:
                marts.execute("CREATE TABLE marts.m (id int)")
            yield running


@pytest.fixture(scope="module")
def lake(servers: Secured) -> BranchingCatalog:
    return open_catalog(servers.settings)


class Who:
    """Somebody, with all the credentials that they have."""

    def __init__(self, name: str, servers: Secured) -> None:
        self.name, self.servers, self.values = name, servers, servers.values
        self.user = "cascade" if name == "pipeline" else name
        variable = "CASCADE_TRINO__PASSWORD" if name == "pipeline" else f"ACCESS_{name.upper()}_PASSWORD"
        self.password = self.values[variable]
        self.token = None if name == "bi" else servers.token(name)
        keys = {"pipeline": "CASCADE_S3_{}_KEY", "operator": "ACCESS_S3_READER_{}"}.get(name)
        self.keys: dict[str, Any] = {"anonymous": True}
        if name == "pipeline":
            self.keys = {part: self.values[f"CASCADE_S3_{part.upper()}"] for part in ("access_key", "secret_key")}
        elif keys:
            self.keys = {
                "access_key": self.values[keys.format("KEY")],
                "secret_key": self.values[keys.format("SECRET")],
            }

    def sql(self, statement: str) -> list[list[Any]] | None:
        """Return what Trino says, nothing when it refuses."""
        server = Server(self.values["CASCADE_TRINO__URL"], self.user, self.password, str(self.servers.authority))
        try:
            return server.read(statement).rows
        except Refused as refused:
            if refused.name not in ("PERMISSION_DENIED", "CATALOG_NOT_FOUND"):
                raise
            return None

    def nessie(self, method: str, path: str, body: object = None) -> bool:
        """Say whether Nessie does as it is asked."""
        answer = ask_nessie(self.servers, self.token, method, path, body)
        assert answer.ok or answer.status_code in _REFUSED, answer.text
        return answer.ok

    def files(self, act: Callable[[S3FileSystem], object]) -> bool:
        """Say whether S3 does as it is asked."""
        endpoint = self.values["CASCADE_S3_ENDPOINT"]
        try:
            act(S3FileSystem(endpoint_override=endpoint, region="us-east-1", **self.keys))
        except OSError as error:
            if "ACCESS_DENIED" not in str(error):
                raise
            return False
        return True

    def postgres(self, statement: str, setting: str = "CASCADE_MARTS_URL") -> bool:
        """Say whether PostgreSQL does as it is asked; nothing of it stays."""
        url = self.values[setting]
        if self.name != "pipeline":
            place, role = url.rpartition("@")[2], f"cascade_reader:{self.values['POSTGRES_READER_PASSWORD']}"
            url = f"postgresql://{role}@{place}"
        try:
            with psycopg.connect(f"{url}?sslmode=verify-full&sslrootcert={self.servers.authority}") as connection:
                connection.execute("SET TRANSACTION READ WRITE")
                connection.execute(statement)
                connection.rollback()
        except psycopg.OperationalError as error:
            if "permission denied for database" not in str(error):
                raise
            return False
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True


def ask_nessie(servers: Secured, token: str | None, method: str, path: str, body: object = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{servers.values['CASCADE_NESSIE__URL']}/{path}"
    return requests.request(method, url, json=body, headers=headers, verify=str(servers.authority), timeout=60)


def head(servers: Secured, branch: str) -> str:
    """Return a branch with its hash."""
    found = ask_nessie(servers, servers.token("pipeline"), "GET", f"trees/{branch}").json()["reference"]
    return f"{branch}@{found['hash']}"


def commit(who: Who, branch: str) -> bool:
    name = f"n{secrets.token_hex(4)}"
    change = {"type": "PUT", "key": {"elements": [name]}, "content": {"type": "NAMESPACE", "elements": [name]}}
    body = {"commitMeta": {"message": "try"}, "operations": [change]}
    return who.nessie("POST", f"trees/{head(who.servers, branch)}/history/commit", body)


def make_branch(servers: Secured) -> str:
    name = f"try-{secrets.token_hex(4)}"
    hash_ = head(servers, "main").partition("@")[2]
    source = {"type": "BRANCH", "name": "main", "hash": hash_}
    made = ask_nessie(servers, servers.token("pipeline"), "POST", f"trees?name={name}&type=BRANCH", source)
    assert made.ok, made.text
    return name


def delete_branch(who: Who) -> bool:
    return who.nessie("DELETE", f"trees/{head(who.servers, make_branch(who.servers))}?type=BRANCH")


def merge(who: Who) -> bool:
    branch = make_branch(who.servers)
    assert commit(Who("pipeline", who.servers), branch)
    name, _, hash_ = head(who.servers, branch).partition("@")
    body = {"fromRefName": name, "fromHash": hash_}
    return who.nessie("POST", f"trees/{head(who.servers, 'main')}/history/merge", body)


def read_mart(who: Who) -> str | bool:
    rows = who.sql("select station, cast(month as varchar) from main.marts.weather_monthly order by 2")
    if rows == [["***", "2024-02-01"]]:
        return "masked"
    return rows == [["DSM", "2023-01-01"], ["AMW", "2024-02-01"]]


def make_catalog(who: Who) -> bool:
    properties = {"catalog.type": "nessie", "nessie-catalog.uri": "http://127.0.0.1:1/api/v2"}
    properties["nessie-catalog.default-warehouse-dir"] = "s3://other"
    given = ", ".join(f"\"iceberg.{name}\" = '{value}'" for name, value in properties.items())
    made = who.sql(f"create catalog cascade_tried using iceberg with ({given})")
    return made is not None and who.sql("drop catalog cascade_tried") is not None


def end_query(who: Who) -> bool:
    """Whoever may end it is told that it has ended already."""
    pipeline = Who("pipeline", who.servers)
    ((query,),) = pipeline.sql("select max(query_id) from system.runtime.queries where \"user\" = 'cascade'") or [[""]]
    try:
        return who.sql(f"call system.runtime.kill_query('{query}', 'because')") is not None
    except Refused as refused:
        return "not running" in str(refused)


def write_file(files: S3FileSystem) -> None:
    with files.open_output_stream("warehouse/tried/file") as file:
        file.write(b"tried")
    files.delete_file("warehouse/tried/file")


def read_files(files: S3FileSystem) -> None:
    found = files.get_file_info(FileSelector("warehouse", recursive=True))
    some = next(info.path for info in found if info.type == FileType.File)
    files.open_input_file(some).read(10)


def list_s3_users(who: Who) -> bool:
    """With the reader's or the pipeline's keys: the command that the keeper of S3's users has."""
    if "access_key" not in who.keys:
        return False
    keys = ["--access", who.keys["access_key"], "--secret", who.keys["secret_key"]]
    command = [programs().versitygw, "admin", *keys, "--endpoint-url", who.values["CASCADE_S3_ENDPOINT"], "list-users"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0 or b"AccessDenied" in done.stdout + done.stderr, done
    return done.returncode == 0


def open_page(who: Who) -> bool:
    url = f"https://localhost:{who.values['DAGSTER_PORT']}/"
    answer = requests.get(url, auth=(who.user, who.password), verify=str(who.servers.authority), timeout=30)
    assert answer.text == "runs" or answer.status_code in _REFUSED
    return answer.ok


#: How each line of the page's table is tried.
TRIED: dict[str, Callable[[Who], str | bool]] = {
    "`main` by SQL: read the example's mart": read_mart,
    "`main` by SQL: read raw tables": lambda who: who.sql("select * from main.raw.a") == [[1]],
    "`main` by SQL: write": lambda who: who.sql("insert into main.raw.a values 9") is not None,
    "branches by SQL: read": lambda who: who.sql("select * from dev.raw.a") is not None,
    "branches by SQL: write": lambda who: who.sql("insert into dev.raw.a values 9") is not None,
    "Trino's catalogs: make and drop": make_catalog,
    "queries of others: end": end_query,
    "`main` in Nessie: read": lambda who: who.nessie("GET", "trees/main/entries"),
    "`main` in Nessie: promote to it": merge,
    "branches in Nessie: read": lambda who: who.nessie("GET", "trees/dev/entries"),
    "branches in Nessie: commit": lambda who: commit(who, "dev"),
    "branches in Nessie: delete": delete_branch,
    "files on S3: read": lambda who: who.files(read_files),
    "files on S3: write and delete": lambda who: who.files(write_file),
    "marts in PostgreSQL: read": lambda who: who.postgres("SELECT * FROM marts.m"),
    "marts in PostgreSQL: write": lambda who: who.postgres("INSERT INTO marts.m VALUES (1)"),
    "Dagster's records": lambda who: who.postgres("CREATE TABLE public.t (id int)", "CASCADE_DAGSTER_URL"),
    "Dagster's page": open_page,
    "secrets: hashed passwords in PostgreSQL": lambda who: who.postgres("SELECT rolpassword FROM pg_authid"),
    "secrets: users of S3": list_s3_users,
}


def cells() -> list[tuple[str, str, str]]:
    """The page's table as what, who, answer."""
    table = re.search(r"^\| what .*?\n\n", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert table is not None
    lines = [line.strip("| ").split(" | ") for line in table[0].splitlines() if line.startswith("| ")]
    (_, *names), *rows = lines
    return [
        (what.strip(), who.strip().lower(), said.strip())
        for what, *answers_ in rows
        for who, said in zip(names, answers_, strict=True)
    ]


def test_the_page_asks_for_everything_that_is_tried() -> None:
    assert list(dict.fromkeys(what for what, _, _ in cells())) == list(TRIED)


@pytest.mark.parametrize(("what", "who", "said"), cells())
def test_everybody_does_what_they_may_and_nothing_else(servers: Secured, what: str, who: str, said: str) -> None:
    did = TRIED[what](Who(who, servers))
    assert (did if isinstance(did, str) else "yes" if did else "no") == said


def test_trino_takes_nobody_without_the_right_password(servers: Secured) -> None:
    url, authority = servers.values["CASCADE_TRINO__URL"], str(servers.authority)
    for user, password in (("cascade", "wrong"), ("cascade", None), ("stranger", "any")):
        with pytest.raises(ServiceError, match="HTTP 401"):
            Server(url, user, password, authority).read("select 1")


def test_trino_takes_nobody_by_plain_http(servers: Secured) -> None:
    """Its port for itself and its health check, inside the containers' network."""
    place = f"http://127.0.0.1:{servers.inside['trino']}/v1/statement"
    for headers in ({"X-Trino-User": "cascade"}, {"X-Trino-User": "cascade", "X-Forwarded-Proto": "https"}):
        assert requests.post(place, data="select 1", headers=headers, timeout=30).status_code in _REFUSED


def test_a_name_is_no_way_to_anothers_rights(servers: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has logged in does not become another by saying so."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # in Trino's own client they win
    analyst = Who("analyst", servers)
    connection = trino.dbapi.connect(
        host=servers.values["CASCADE_TRINO__URL"],
        user="cascade",
        auth=trino.auth.BasicAuthentication(analyst.user, analyst.password),
        verify=str(servers.authority),
    )
    with pytest.raises(trino.exceptions.TrinoUserError, match="cannot impersonate"):
        connection.cursor().execute("select current_user")


def test_the_mask_and_the_filter_hold_by_every_way(servers: Secured) -> None:
    """Not by what is aside of the table: its files' bounds, its changes, its past."""
    analyst = Who("analyst", servers)
    for what in ('marts."weather_monthly$files"', "table(main.system.table_changes('marts', 'weather_monthly', 1, 2))"):
        assert analyst.sql(f"select * from {what if what.startswith('table') else f'main.{what}'}") is None
    ((snapshot,),) = (
        Who("operator", servers).sql('select snapshot_id from main.marts."weather_monthly$snapshots"') or []
    )
    past = analyst.sql(f"select station from main.marts.weather_monthly for version as of {snapshot}")
    assert past == [["***"]]
    assert analyst.sql("select 1 from main.marts.weather_monthly where station = 'DSM'") == []


def test_only_a_promoter_moves_main(servers: Secured) -> None:
    """The pipeline is one; without that role it writes branches, and people promote."""
    key = (servers.project / ".cascade/access/tokens.key").read_bytes()
    alone = Who("pipeline", servers)
    alone.token = jwt.encode({"iss": "cascade", "sub": "p", "groups": ["pipeline"], **_soon()}, key, "RS256")
    assert commit(alone, "dev")
    assert not commit(alone, "main")
    assert not merge(alone)


def test_a_promotion_names_who_made_it_and_whose_token_it_was(servers: Secured, lake: BranchingCatalog) -> None:
    promoted(lake, "raw.named", pa.table({"id": [1]}))
    assert lake.log(limit=1)[0].by == getpass.getuser()
    (entry,) = ask_nessie(servers, servers.token("operator"), "GET", "trees/main/history?max-records=1").json()[
        "logEntries"
    ]
    assert entry["commitMeta"]["committer"] == "pipeline"


@pytest.mark.parametrize("wrong", ["of another key", "expired", "nobody's"])
def test_nessie_takes_no_token_that_is(servers: Secured, wrong: str) -> None:
    key = (servers.project / ".cascade/access/tokens.key").read_bytes()
    if wrong == "of another key":
        key = _pem(rsa.generate_private_key(65537, 2048))
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=-1 if wrong == "expired" else 1)
    token = jwt.encode({"iss": "cascade", "sub": "p", "groups": ["pipeline"], "exp": end}, key, "RS256")
    answer = ask_nessie(servers, None if wrong == "nobody's" else token, "GET", "trees/main")
    assert answer.status_code == requests.codes.unauthorized


def test_postgresql_is_reached_over_tls_alone(servers: Secured) -> None:
    url = servers.values["CASCADE_MARTS_URL"]
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(f"{url}?sslmode=disable")
    with psycopg.connect(f"{url}?sslmode=verify-full&sslrootcert={servers.authority}") as connection:
        used = connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert used == ("TLSv1.3",)


@pytest.mark.parametrize("port", ["DAGSTER_PORT", "TRINO_PORT", "NESSIE_PORT"])
def test_certificates_are_of_our_authority(servers: Secured, port: str) -> None:
    url = f"https://127.0.0.1:{servers.values[port]}/"
    assert requests.get(url, verify=str(servers.authority), timeout=30).status_code
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=30)


def test_dagsters_page_asks_for_a_login(servers: Secured) -> None:
    url = f"https://127.0.0.1:{servers.values['DAGSTER_PORT']}/graphql"
    answer = requests.post(url, json={}, verify=str(servers.authority), timeout=30)
    assert answer.status_code == requests.codes.unauthorized
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_an_issuer_of_ones_own_signs_tokens(servers: Secured, tmp_path: Path) -> None:
    """With `ACCESS_OIDC_ISSUER`: Nessie finds its keys by OpenID Connect's discovery."""
    key = rsa.generate_private_key(65537, 2048)
    with _issuer(key) as issuer:
        prepare(tmp_path, ACCESS_OIDC_ISSUER=issuer)
        configuration = tmp_path / "services/nessie/application.properties"
        lines = [
            line for line in configuration.read_text().splitlines() if "jdbc" not in line and "datasource" not in line
        ]
        lines = [*lines, "nessie.version.store.type=IN_MEMORY"]
        for own in ("services/access/nessie.properties", ".cascade/access/nessie.properties"):
            lines.append((tmp_path / own).read_text())
        configuration.write_text("\n".join(line for line in lines if line != "nessie.version.store.type=JDBC2"))
        port, health = free_ports(2)
        found = programs()
        server = nessie(
            tmp_path,
            jar=found.nessie,
            java=found.java,
            template=tmp_path / "services/nessie",
            port=port,
            management_port=health,
            database="",
            password="",
        )
        server._ready = answers(f"http://127.0.0.1:{health}/q/health/ready")
        try:
            server.start()
            said = {}
            for role, groups in {"analyst": ["analyst"], "stranger": []}.items():
                claims = {"iss": issuer, "sub": role, "groups": groups, **_soon()}
                token = jwt.encode(claims, _pem(key), "RS256", headers={"kid": "one"})
                url = f"http://127.0.0.1:{port}/api/v2/trees/main"
                said[role] = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code
        finally:
            server.kill()
    assert said == {"analyst": requests.codes.ok, "stranger": requests.codes.forbidden}


def _soon() -> dict[str, dt.datetime]:
    now = dt.datetime.now(dt.UTC)
    return {"iat": now, "exp": now + dt.timedelta(hours=1)}


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


@contextlib.contextmanager
def _issuer(key: rsa.RSAPrivateKey) -> Iterator[str]:
    """Run the smallest OpenID provider: it says where its keys are, and which."""
    jwk = {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": "one", "alg": "RS256", "use": "sig"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            discovery = {"issuer": url, "jwks_uri": f"{url}/keys", "token_endpoint": f"{url}/token"}
            documents = {"/.well-known/openid-configuration": discovery, "/keys": {"keys": [jwk]}}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(documents[self.path]).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield url
        finally:
            server.shutdown()
