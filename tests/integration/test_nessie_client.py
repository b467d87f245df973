"""The promises of the catalog on Nessie when the way there is bad: logins, certificates, lost answers.

Modules: `cascade_servers.nessie.catalog`, `cascade_servers.nessie.records`, `cascade_servers.patience`.
"""

import datetime as dt
import itertools
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from cascade.catalog import MAIN
from cascade.config import Settings, build_settings
from cascade.errors import CascadeError, ServiceError
from cascade.iceberg.schema import schema_from_arrow
from cascade.iceberg.write import write
from cascade_servers.nessie import NessieCatalog
from cascade_servers.nessie.client import patience_with
from cascade_servers.settings import NessieSettings
from support.lakes import as_settings, before_each_step
from support.servers.lakes import fresh_lake
from support.servers.proxy import CLIENT, Proxy, proxy
from support.servers.stack import Stack

import pyarrow as pa  # isort: skip

Open = Callable[..., NessieCatalog]
ROWS = pa.table({"id": [1, 2]})


@pytest.fixture
def settings(stack: Stack, tmp_path: Path) -> Callable[..., Settings]:
    """Settings of an empty lakehouse, some of them changed."""
    values = {"data_dir": tmp_path, **as_settings(fresh_lake(stack, "nessie"))}
    return lambda **changed: build_settings(
        tmp_path, {**values, **{name.replace("nessie_", "nessie."): value for name, value in changed.items()}}
    )


@pytest.fixture
def way(settings: Callable[..., Settings]) -> Iterator[Proxy]:
    """The proxy before Nessie."""
    with proxy(_url(settings()).removesuffix("/api/v2")) as behaviour:
        yield behaviour


@pytest.fixture
def open_by(way: Proxy, settings: Callable[..., Settings]) -> Open:
    """Open the catalog through the proxy."""
    return lambda **changed: NessieCatalog(settings(**{"nessie_url": f"{way.url}/api/v2", **changed}))


def _url(settings: Settings) -> str:
    return settings.plugin("nessie", NessieSettings).url


def _put(lake: NessieCatalog, branch: str = "dev", table: str = "raw.a") -> None:
    write(lake, branch, table, [ROWS], schema=schema_from_arrow(ROWS.schema), mode="append")


def _rows(lake: NessieCatalog, ref: str, table: str = "raw.a") -> list[int]:
    return sorted(lake.load(table, lake.pointers(ref)[table]).scan().to_arrow()["id"].to_pylist())


# --- who we are -------------------------------------------------------------------------------------------


def test_a_bearer_token_opens_the_catalog(way: Proxy, open_by: Open) -> None:
    way.token = "right"
    lake = open_by(nessie_token="right")
    lake.create("dev")
    _put(lake)
    assert _rows(lake, "dev") == [1, 2]


@pytest.mark.parametrize("given", [{}, {"nessie_token": "expired-token"}])
def test_a_missing_or_expired_token_is_named_by_its_setting_and_not_shown(
    way: Proxy, open_by: Open, given: dict[str, str]
) -> None:
    way.token = "right"
    with pytest.raises(ServiceError, match="Nessie refuses access") as caught:
        open_by(**given)
    assert "nessie.url" in caught.value.where
    assert "CASCADE_NESSIE__TOKEN" in caught.value.fix
    assert "expired-token" not in str(caught.value)


def test_client_credentials_become_a_token_that_is_renewed_when_it_is_refused(way: Proxy, open_by: Open) -> None:
    way.token = "nobody has this one"
    client, secret = CLIENT
    lake = open_by(nessie_token_url=f"{way.url}/token", nessie_client_id=client, nessie_client_secret=secret)
    lake.create("dev")
    assert way.issued == 1
    way.token = "the first one has expired"
    _put(lake)
    assert (way.issued, _rows(lake, "dev")) == (2, [1, 2])


def test_wrong_client_credentials_are_named_and_not_shown(way: Proxy, open_by: Open) -> None:
    way.token = "x"
    with pytest.raises(ServiceError, match="No token for Nessie") as caught:
        open_by(nessie_token_url=f"{way.url}/token", nessie_client_id="cascade", nessie_client_secret="wr0ng")
    assert "nessie.token_url" in caught.value.where
    assert "wr0ng" not in str(caught.value)


def test_a_private_authority_is_trusted_when_it_is_named(settings: Callable[..., Settings], tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with proxy(_url(settings()).removesuffix("/api/v2"), authority) as way:
        url = f"{way.url}/api/v2"
        with pytest.raises(ServiceError, match="certificate of Nessie is not trusted") as caught:
            NessieCatalog(settings(nessie_url=url))
        assert "CASCADE_CA_FILE" in caught.value.fix
        assert NessieCatalog(settings(nessie_url=url, ca_file=tmp_path / "ca.pem")).branches()[0].name == MAIN


# --- answers that get lost --------------------------------------------------------------------------------


def _lose_once(*, what: str) -> Callable[[str, str], bool]:
    """Lose the first answer to every kind of request whose method and path hold some text."""
    lost: set[str] = set()

    def lose(method: str, path: str) -> bool:
        place = f"{method} {path}"
        kind = f"{method} {path.rpartition('/')[2]} {path.partition('@')[0]}"
        if what not in place or kind in lost:
            return False
        lost.add(kind)
        return True

    return lose


@pytest.mark.parametrize("what", ["GET", "POST", "PUT", "DELETE", ""])
def test_a_lost_answer_never_makes_a_second_commit(way: Proxy, open_by: Open, what: str) -> None:
    lake = open_by()
    way.lose = _lose_once(what=what)
    lake.create("run-1")
    lake.create("dev")
    _put(lake, "run-1")
    _put(lake, "run-1")
    entry = lake.merge("run-1")
    lake.delete("run-1")
    assert entry is not None
    assert _rows(lake, MAIN) == _rows(lake, "dev") == [1, 1, 2, 2]
    assert len(lake.load("raw.a", lake.pointers(MAIN)["raw.a"]).snapshots()) == 2
    assert [e.source for e in lake.log()] == ["run-1"]
    assert [b.name for b in lake.branches()] == [MAIN, "dev"]
    lake.restore(0)
    assert (lake.pointers(MAIN), [e.kind for e in lake.log()]) == ({}, ["restore", "promote"])


def test_a_commit_whose_answer_stays_lost_is_reported_and_its_files_are_kept(
    way: Proxy, open_by: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_by()
    lake.create("dev")
    monkeypatch.setattr(patience_with(lake.settings.plugin("nessie", NessieSettings).url), "seconds", 0.5)
    way.lose = lambda method, path: method == "POST" or "history" in path
    with pytest.raises(ServiceError, match="Nessie does not answer") as caught:
        _put(lake)
    assert "CASCADE_NESSIE__URL" in caught.value.fix
    way.lose = lambda method, path: False
    assert _rows(lake, "dev") == [1, 2]  # it had landed, and nobody deleted its files


def test_a_server_that_is_gone_for_good_is_waited_for_once(
    way: Proxy, open_by: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all that a process opens, as a run does in each of its steps; and again when the server has been back."""
    lake = open_by()
    monkeypatch.setattr(patience_with(lake.settings.plugin("nessie", NessieSettings).url), "seconds", 0.5)
    for _ in range(2):
        way.lose = lambda method, path: True
        attempts = []
        for ask in (lake.branches, lake.branches, open_by):
            way.seen.clear()
            with pytest.raises(ServiceError, match="Nessie does not answer"):
                ask()
            attempts.append(len(way.seen))
        assert attempts[0] > 1
        assert attempts[1:] == [1, 1]
        way.lose = lambda method, path: False
        lake.branches()


# --- a promotion in between, which brings the branch to where `main` stands --------------------------------

DURING: dict[str, Callable[[NessieCatalog, int], object]] = {
    "write": lambda lake, step: _put(lake),
    "write_a_new_table": lambda lake, step: _put(lake, table=f"raw.t{step}"),
    "pointers": lambda lake, step: lake.pointers("dev"),
    "pointers_then": lambda lake, step: lake.pointers("dev", at=dt.datetime.now(dt.UTC)),
    "diff": lambda lake, step: lake.diff("dev", MAIN),
    "branches": lambda lake, step: lake.branches(),
    "create": lambda lake, step: lake.create(f"of-dev-{step}", "dev"),
    "log": lambda lake, step: lake.log("dev"),
}


@pytest.mark.parametrize("what", DURING)
def test_a_promotion_between_any_two_requests_loses_nothing(settings: Callable[..., Settings], what: str) -> None:
    promoter = NessieCatalog(settings())
    promoter.create("dev")
    rows: list[int] = []
    for step in itertools.count(1):
        _put(promoter)
        lake, left = NessieCatalog(settings()), itertools.count(step - 1, -1)
        before_each_step(lake, partial(_promote_at_zero, promoter, left))
        DURING[what](lake, step)
        rows += ROWS["id"].to_pylist() * (2 if what == "write" else 1)
        assert _rows(promoter, "dev") == sorted(rows)
        if next(left) >= 0:  # it sends no more requests than these
            break
    assert step > 1
    promoter.merge("dev")
    assert _rows(promoter, MAIN) == sorted(rows)


def _promote_at_zero(lake: NessieCatalog, left: Iterator[int]) -> None:
    if next(left) == 0:
        lake.merge("dev")


@pytest.mark.parametrize("table", ["raw.a", "raw.new"])
def test_a_commit_whose_answer_is_lost_and_that_is_promoted_is_recognized(
    way: Proxy, open_by: Open, settings: Callable[..., Settings], table: str
) -> None:
    """Its files stay, for `main` holds them."""
    lake, promoter = open_by(), NessieCatalog(settings())
    lake.create("dev")
    _put(lake)

    def lose(method: str, path: str) -> bool:
        if method == "POST" and path.endswith("history/commit"):
            way.lose = lambda method, path: False
            promoter.merge("dev")
            return True
        return False

    way.lose = lose
    _put(lake, table=table)
    assert _rows(lake, MAIN, table) == _rows(lake, "dev", table) == sorted([1, 2] * (1 + (table == "raw.a")))


def test_a_server_that_restarts_is_waited_for(way: Proxy, open_by: Open) -> None:
    lake = open_by()
    lake.create("dev")
    way.unready = 4
    _put(lake)
    assert _rows(lake, "dev") == [1, 2]


# --- servers that are not what they should be -------------------------------------------------------------


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _unready(way: Proxy) -> None:
    way.unready = 10_000


def _old(way: Proxy) -> None:
    way.documents["/api/v2/config"] = {"defaultBranch": "main", "maxSupportedApiVersion": 1}


STATES: dict[str, tuple[Callable[[Proxy], None], str]] = {"half_up": (_unready, "HTTP 503"), "old": (_old, "version 1")}


@pytest.mark.parametrize("state", STATES)
def test_a_server_that_is_half_up_or_too_old_is_named(way: Proxy, open_by: Open, state: str) -> None:
    behave, said = STATES[state]
    behave(way)
    with pytest.raises(ServiceError, match=said) as caught:
        open_by()
    assert "nessie.url" in caught.value.where


@pytest.mark.parametrize("path", ["/api/v2", ""])
def test_a_server_that_was_never_there_is_named(open_by: Open, path: str) -> None:
    with pytest.raises(ServiceError, match="does not answer") as caught:
        open_by(nessie_url=f"http://127.0.0.1:{_closed_port()}{path}")
    assert "nessie.url" in caught.value.where


def test_a_server_that_never_answered_is_given_up_soon(way: Proxy, open_by: Open) -> None:
    way.lose = lambda method, path: True
    with pytest.raises(ServiceError, match="does not answer"):
        open_by()
    assert len(way.seen) < 10  # while it restarts, it is asked three times as often


def test_another_service_at_the_address_is_told_from_nessie(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ServiceError, match="does not expect") as caught:
        NessieCatalog(settings(nessie_url=_url(settings()).removesuffix("/api/v2")))
    assert "/api/v2" in caught.value.fix


# --- S3 ---------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing_bucket": ({"warehouse": "s3://no-such-bucket"}, "there is no such bucket", "`warehouse`"),
    "wrong_secret": ({"s3_secret_key": "wr0ng-secret"}, "refuses", "`s3_secret_key`"),
    "wrong_key": ({"s3_access_key": "nobody"}, "refuses", "`s3_access_key`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_s3_refuses_names_the_setting_and_leaves_nothing_half_made(
    settings: Callable[..., Settings], case: str
) -> None:
    changed, said, setting = WRONG[case]
    lake = NessieCatalog(settings(**changed))
    with pytest.raises(CascadeError, match=said) as caught:
        lake.create("dev")  # the first branch signs the warehouse
    assert setting in str(caught.value)
    assert "wr0ng-secret" not in str(caught.value)
    assert [branch.name for branch in lake.branches()] == [MAIN]
