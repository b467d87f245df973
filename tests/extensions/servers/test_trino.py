"""The promises of `cascade_servers.trino` that need no Trino: names, statements, types, what servers can do wrong."""

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cascade.config import build_settings
from cascade.errors import QueryError, ServiceError
from cascade_operations import materialize
from cascade_operations.events import Waiting
from cascade_servers.trino import server as trino_server
from cascade_servers.trino.arrow import to_arrow
from cascade_servers.trino.catalogs import catalog_name
from cascade_servers.trino.server import Refused, Server, server_of
from cascade_servers.trino.statements import parse

# --- names ------------------------------------------------------------------------------------------------

REFERENCES = [
    "main",
    "dev",
    "Dev",
    "fix",
    "FIX",
    "fix-july",
    "fix_july",
    "fix.july",
    "run-1a2b3c4d",
    "run_1a2b3c4d",
    "v1.2",
]


def test_catalogs_of_two_branches_never_share_a_name() -> None:
    # Among the branches are those that are called as the catalogs of others are.
    branches = {*REFERENCES, *(catalog_name(ref) for ref in REFERENCES)}
    branches |= {catalog_name(ref).removeprefix("cascade_") for ref in branches}
    assert len({catalog_name(ref) for ref in branches}) == len(branches)


def test_a_catalog_s_name_is_lower_case_letters_digits_and_underscores() -> None:
    assert all(name.replace("_", "a").isalnum() and name == name.lower() for name in map(catalog_name, REFERENCES))


@pytest.mark.parametrize("ref", ["main", "dev"])
def test_the_catalogs_that_the_server_s_files_define_are_used(ref: str) -> None:
    assert catalog_name(ref) == ref


# --- statements -------------------------------------------------------------------------------------------


def test_tables_are_found_wherever_a_statement_names_them() -> None:
    statement = parse(
        'WITH x AS (SELECT * FROM raw.a) SELECT raw.a.id FROM x JOIN "RAW"."B" b ON b.id IN (SELECT id FROM Raw.C)'
        " CROSS JOIN UNNEST(b.list) AS u(v) -- raw.d"
    )
    assert statement.mentioned(["raw.a", "raw.b", "raw.c", "raw.d", "bronze.a"]) == ["raw.a", "raw.b", "raw.c"]


@pytest.mark.parametrize("sql", ["SELECT * FROM main.raw.a", "SELECT * FROM TABLE(pg.system.query(query => 'x'))"])
def test_another_catalog_is_out_of_reach(sql: str) -> None:
    with pytest.raises(QueryError, match="another catalog"):
        parse(sql)


def test_what_the_parser_does_not_know_is_left_to_trino() -> None:
    with pytest.raises(SyntaxError):
        parse("SELEC 1")


# --- types ------------------------------------------------------------------------------------------------


def _type(name: str, *arguments: Any) -> dict[str, Any]:
    return {"rawType": name, "arguments": [{"kind": "x", "value": value} for value in arguments]}


def _field(name: str | None, kind: dict[str, Any]) -> dict[str, Any]:
    return {"fieldName": {"name": name} if name else None, "typeSignature": kind}


COLUMNS: dict[str, tuple[dict[str, Any], Any, pa.DataType, Any]] = {
    "boolean": (_type("boolean"), True, pa.bool_(), True),
    "integer": (_type("integer"), 7, pa.int32(), 7),
    "bigint": (_type("bigint"), 2**60, pa.int64(), 2**60),
    "real": (_type("real"), 1.5, pa.float32(), 1.5),
    "infinity": (_type("double"), "-Infinity", pa.float64(), float("-inf")),
    "decimal": (
        _type("decimal", 38, 2),
        "-12345678901234567890.10",
        pa.decimal128(38, 2),
        Decimal("-12345678901234567890.10"),
    ),
    "varchar": (_type("varchar", 3), "é😀", pa.string(), "é😀"),
    "varbinary": (_type("varbinary"), "AP8=", pa.binary(), b"\x00\xff"),
    "uuid": (
        _type("uuid"),
        "6d2a846a-61f1-41f0-8ac7-50e69e31049c",
        pa.string(),
        "6d2a846a-61f1-41f0-8ac7-50e69e31049c",
    ),
    "date": (_type("date"), "2013-07-01", pa.date32(), dt.date(2013, 7, 1)),
    "time": (_type("time", 6), "23:59:59.999999", pa.time64("us"), dt.time(23, 59, 59, 999999)),
    "timestamp": (
        _type("timestamp", 3),
        "2013-07-01 12:00:00.123",
        pa.timestamp("us"),
        dt.datetime(2013, 7, 1, 12, 0, 0, 123000),
    ),
    "utc": (
        _type("timestamp with time zone", 6),
        "2013-07-01 12:00:00.123456 UTC",
        pa.timestamp("us", "UTC"),
        dt.datetime(2013, 7, 1, 12, 0, 0, 123456, tzinfo=dt.UTC),
    ),
    "zone": (
        _type("timestamp with time zone", 0),
        "2013-07-01 14:00:00 Europe/Paris",
        pa.timestamp("us", "UTC"),
        dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC),
    ),
    "offset": (
        _type("timestamp with time zone", 0),
        "2013-07-01 14:30:00 +02:30",
        pa.timestamp("us", "UTC"),
        dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC),
    ),
    "array": (_type("array", _type("date")), ["2013-07-01", None], pa.list_(pa.date32()), [dt.date(2013, 7, 1), None]),
    "map": (
        _type("map", _type("bigint"), _type("double")),
        {"1": 1.0, "2": None},
        pa.map_(pa.int64(), pa.float64()),
        [(1, 1.0), (2, None)],
    ),
    "row": (
        _type("row", _field("a", _type("bigint")), _field(None, _type("varchar"))),
        [1, None],
        pa.struct([("a", pa.int64()), ("_1", pa.string())]),
        {"a": 1, "_1": None},
    ),
}


@pytest.mark.parametrize(("signature", "value", "kind", "expected"), COLUMNS.values(), ids=COLUMNS.keys())
def test_values_keep_their_types_null_and_no_row_too(
    signature: dict[str, Any], value: Any, kind: pa.DataType, expected: Any
) -> None:
    table = to_arrow(["x"], [signature], [[value], [None]])
    assert table["x"].to_pylist() == [expected, None]
    assert table.schema.field("x").type == to_arrow(["x"], [signature], []).schema.field("x").type == kind


def test_nan_stays_nan() -> None:
    (value,) = to_arrow(["x"], [_type("double")], [["NaN"]])["x"].to_pylist()
    assert value != value  # noqa: PLR0124


def test_two_columns_may_have_one_name() -> None:
    assert to_arrow(["x", "x"], [_type("bigint")] * 2, [[1, 2]]).column_names == ["x", "x"]


# --- servers ----------------------------------------------------------------------------------------------

Reply = tuple[int, Any]


class Stub:
    """Something that answers like a server: a list of replies by path, the last of which stays."""

    def __init__(self, replies: dict[str, list[Reply]]) -> None:
        self.asked: list[str] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked.append(self.path)
                left = replies[self.path]
                status, body = left.pop(0) if len(left) > 1 else left[0]
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stub() -> Iterator[Callable[..., Stub]]:
    running: list[Stub] = []

    def begin(**replies: list[Reply]) -> Stub:
        running.append(Stub({f"/v1/{path}": answers for path, answers in replies.items()}))
        return running[-1]

    yield begin
    for server in running:
        server.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trino_server, "FIRST_SECONDS", 0.3)
    monkeypatch.setattr(trino_server, "RESTART_SECONDS", 2.0)


def info(version: str = "476", *, starting: bool = False) -> Reply:
    return 200, {"nodeVersion": {"version": version}, "starting": starting}


def rows(*values: Any) -> Reply:
    columns = [{"name": "x", "type": "bigint", "typeSignature": _type("bigint")}]
    return 200, {"id": "q", "infoUri": "", "stats": {"state": "FINISHED"}, "columns": columns, "data": [list(values)]}


def refusal(name: str) -> Reply:
    error = {"message": f"It is {name}.", "errorCode": 1, "errorName": name, "errorType": "USER_ERROR"}
    return 200, {"id": "q", "infoUri": "", "stats": {"state": "FAILED"}, "error": error}


def connect(url: str) -> Server:
    return Server(url, "ada", None, None)


def test_a_server_that_is_starting_is_waited_for(stub: Callable[..., Stub]) -> None:
    there = stub(
        info=[info(starting=True), info(starting=True), info()], statement=[refusal("SERVER_STARTING_UP"), rows(1)]
    )
    assert connect(there.url).read("SELECT 1").rows == [[1]]


@pytest.mark.parametrize(
    "first", [(503, b"busy"), refusal("NO_NODES_AVAILABLE"), refusal("REMOTE_HOST_GONE"), (404, b"")]
)
def test_what_a_restart_answers_is_asked_again(stub: Callable[..., Stub], first: Reply) -> None:
    there = stub(info=[info()], statement=[first, rows(1)])
    assert connect(there.url).read("SELECT 1").rows == [[1]]


def test_a_statement_that_is_refused_is_not_asked_again(stub: Callable[..., Stub]) -> None:
    there = stub(info=[info()], statement=[refusal("TABLE_NOT_FOUND")])
    with pytest.raises(Refused, match="TABLE_NOT_FOUND"):
        connect(there.url).read("SELECT 1")
    assert there.asked.count("/v1/statement") == 1


WRONG: dict[str, tuple[dict[str, list[Reply]], str, str]] = {
    "never ready": (
        {"info": [info(starting=True)]},
        "Trino does not answer: it is still starting",
        "CASCADE_TRINO__URL",
    ),
    "too old": ({"info": [info("435")]}, "Trino 435 is too old; 476 or later", "upgrade the server"),
    "not Trino": ({"info": [(200, b"<html>")]}, "What answers is not Trino", "CASCADE_TRINO__URL"),
    "nothing there": ({"info": [(404, b"")]}, "not Trino \\(HTTP 404\\)", "CASCADE_TRINO__URL"),
    "unauthorized": (
        {"info": [info()], "statement": [(401, b"Unauthorized")]},
        "refuses access \\(HTTP 401\\)",
        "CASCADE_TRINO__PASSWORD",
    ),
    "no sense": ({"info": [info()], "statement": [(418, b"tea")]}, "does not expect", "CASCADE_TRINO__URL"),
}


@pytest.mark.parametrize(("replies", "what", "fix"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_server_is_said_with_the_setting(
    stub: Callable[..., Stub], replies: dict[str, list[Reply]], what: str, fix: str
) -> None:
    there = stub(**{path: list(answers) for path, answers in replies.items()})
    with pytest.raises(ServiceError, match=what) as caught:
        connect(there.url).read("SELECT 1")
    assert there.url in caught.value.where
    assert "`trino.url`" in caught.value.where
    assert fix in caught.value.fix


def test_a_server_that_is_not_there_is_given_up_soon(stub: Callable[..., Stub]) -> None:
    gone = stub(info=[info()])
    gone.close()
    with pytest.raises(ServiceError, match="Trino does not answer: Connection refused"):
        connect(gone.url).read("SELECT 1")


def test_a_server_that_is_gone_for_good_is_waited_for_once(
    stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each step of a run; and again when it has been back."""
    monkeypatch.setattr(trino_server, "RESTART_SECONDS", 0.6)
    there = stub(info=[info()], statement=[rows(1), *[(503, b"")] * 9, rows(1), (503, b"")])
    server = connect(there.url)
    server.read("SELECT 1")

    def asks() -> int:
        before = len(there.asked)
        with pytest.raises(ServiceError, match="does not answer"):
            server.read("SELECT 1")
        return len(there.asked) - before

    assert asks() > 1
    assert asks() == 1
    while True:
        with contextlib.suppress(ServiceError):
            server.read("SELECT 1")
            break
    assert asks() > 1


def test_at_the_start_of_a_run_a_server_may_take_as_long_as_a_restart(stub: Callable[..., Stub]) -> None:
    """And it is said once what is waited for."""
    told: list[str] = []
    there = stub(info=[*[(503, b"")] * 3, info()])
    connect(there.url).wait(told.append)
    assert told == ["Trino, which does not answer: HTTP 503"]


_WORKFLOW = """
from pathlib import Path
from cascade.ingestion import cascade_ingestion, none

@cascade_ingestion(partitions=none(), max_retries=0)
def first():
    Path("loaded").touch()
    return [{"id": 1}]
"""


def test_a_run_asks_for_trino_before_it_loads_anything(
    stub: Callable[..., Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trino_server, "RESTART_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows/loads.py").write_text(_WORKFLOW)
    gone, told = stub(info=[info()]), []
    gone.close()
    settings = build_settings(tmp_path, {"engine": "trino", "trino.url": gone.url})
    with pytest.raises(ServiceError, match="Trino does not answer: Connection refused"):
        materialize(settings, ["first"], tell=told.append)
    assert told == [Waiting("Trino, which does not answer: Connection refused")]
    assert not (tmp_path / "loaded").exists()


def test_a_password_is_never_sent_without_encryption_nor_shown(tmp_path: Path) -> None:
    settings = build_settings(tmp_path, {"trino.url": "http://127.0.0.1:9", "trino.password": "hunter2"})
    with pytest.raises(ServiceError, match="over https only") as caught:
        server_of(settings)
    assert "hunter2" not in str(caught.value)
