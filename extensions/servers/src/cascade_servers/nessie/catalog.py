"""The catalog on a Nessie server: its branches and tags are Cascade's, a promotion is one merge."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from cascade.catalog import (
    MAIN,
    Branch,
    BranchingCatalog,
    LogEntry,
    TableChange,
    check_reference_name,
    compare,
)
from cascade.catalog.locks import Locks
from cascade.catalog.merge import (
    changed_error,
    conflict_error,
    follows,
    missing_error,
    require_branch,
    require_entry,
    require_unchanged,
    to_move,
)
from cascade.catalog.reference import open_state
from cascade.catalog.storage import sign_warehouse, warehouse_properties
from cascade.config import Settings
from cascade.errors import BranchNotFoundError, CatalogError
from cascade_embedded.locks import FileLocks
from cascade_servers.names import FIRST_KEY, KIND_PROPERTY, SOURCE_PROPERTY, TARGET_PROPERTY
from cascade_servers.nessie.client import NO_ANCESTOR, Conflict, Json, NessieClient
from cascade_servers.nessie.records import Records
from cascade_servers.nessie.reference import NessieReference, delete, is_table, key_name, put
from cascade_servers.postgres.locks import PostgresLocks
from cascade_servers.postgres.server import open_postgres, wait_for_postgres

__all__ = ["NessieCatalog"]

_KINDS = {"BRANCH": "branch", "TAG": "tag"}


class NessieCatalog(BranchingCatalog):
    """Branches of a Nessie server, tables in an S3 warehouse.

    From where and when a branch was created, and up to which commit it is promoted, is kept in a branch of its own
    (`nessie/records.py`). Branches of other tools have no such record: their base is the common ancestor with `main`.

    Args:
        settings: Where server and warehouse are; `catalog_url` keeps the locks when writers run on several machines.

    Attributes:
        client: The session with the server.

    Raises:
        ServiceError: A server cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._properties = warehouse_properties(settings)
        self.client = NessieClient(settings)
        self._records = Records(self.client)
        self._locks: Locks
        if settings.catalog_url is None:
            self._locks = FileLocks(settings.data_path / "locks")
        else:
            url = settings.catalog_url
            self._locks = PostgresLocks(wait_for_postgres(open_postgres(url), url, "catalog_url"), url)

    def open(self, ref: str) -> Catalog:
        """Return the PyIceberg catalog of one reference."""
        return self._open(ref, writable=self._find(ref)["type"] == "BRANCH" and ref != MAIN)

    def branches(self) -> list[Branch]:
        """Return all references, `main` first, then by name."""
        records = self._records.all()
        found = [self._described(reference, records) for reference in self._references()]
        return sorted(found, key=lambda branch: (branch.name != MAIN, branch.name))

    def exists(self, name: str) -> bool:
        """Say whether there is a reference of this name."""
        try:
            self.client.reference(check_reference_name(name))
        except BranchNotFoundError:
            return False
        return name != self._records.branch

    def pointers(self, ref: str, *, at: dt.datetime | None = None) -> dict[str, str]:
        """Return the current metadata location of every table of a reference."""
        reference = self._find(ref)
        if at is None:
            return self._pointers(reference["hash"])
        return self._pointers(self._past(reference, at)["hash"])

    def load(self, table: str, location: str) -> Table:
        """Open a table in the state that a metadata location names."""
        return open_state(table, location, lambda: self._open(MAIN, writable=False))

    def diff(self, before: str, after: str) -> list[TableChange]:
        """Return the tables that differ between two references."""
        return self._diff(self._find(before)["hash"], self._find(after)["hash"])

    def changes(self, name: str) -> list[TableChange]:
        """Return which tables a branch changed since it was created or last promoted."""
        return self._changes(self._find(name), self._records.get(name))

    def merge(
        self, source: str, target: str = MAIN, *, expected: Iterable[TableChange] | None = None
    ) -> LogEntry | None:
        """Move every table that changed on the source to the target, all or none."""
        applied, onto = self._find(source), self._require_branch(target)
        base = self._base(applied, self._records.get(source))
        ours = {} if source == MAIN else self._differences(base, applied["hash"])
        changes = _moved_tables(ours)
        require_unchanged(source, target, changes, expected)
        theirs = self._differences(base, onto["hash"]) if changes else {}
        current = {c.table: c.before for c in changes} | {c.table: c.after for c in _moved_tables(theirs)}
        moved = to_move(source, target, changes, current, self.same_rows)
        entry = None
        if moved:
            self._require_place({c.table: c.after for c in moved if c.after})
            tables = {c.table for c in moved}
            namespaces = {table.split(".")[0] for table in tables} & ours.keys() - theirs.keys()
            if all(change in changes for change in moved) and not _has_renamed(ours):
                self._apply(applied, onto, tables | namespaces)
            else:
                # To Nessie a table that was compacted on the target is a conflict, and of one that was renamed it drops
                # the old name without making the new one; so the merge is written out.
                present = {key: theirs[key][1] if key in theirs else ours[key][0] for key in tables | namespaces}
                self._write_out(applied, onto, {key: (now, ours[key][1]) for key, now in present.items()})
            entry = self._newest(target, source, moved)
        self._follow(target, {source: {"base": applied["hash"]}})
        return entry

    def log(self, target: str = MAIN, *, limit: int | None = None) -> list[LogEntry]:
        """Return the moves of a branch, newest first."""
        return [
            _entry(target, number, commit, self._diff(commit["parentCommitHashes"][0], commit["hash"]))
            for number, commit in self._moves(self._find(target), limit)
        ]

    def _restore(self, entry: int, target: str) -> LogEntry | None:
        reference = self._require_branch(target)
        moves = dict(self._moves(reference, None))
        require_entry(entry, target, moves)
        if not moves:
            return None
        past = moves[entry]["hash"] if entry else moves[min(moves)]["parentCommitHashes"][0]
        current, wanted = (self._contents(hash_) for hash_ in (reference["hash"], past))
        operations: list[Json] = []
        for name in sorted(current.keys() | wanted.keys()):
            now, then = current.get(name), wanted.get(name)
            if then is None and is_table(now):
                operations.append(delete(name))
            elif then is not None and now is None:
                # Nessie refuses the id of a content that was removed.
                operations.append(put(name, {k: v for k, v in then.items() if k != "id"}))
            elif now is not None and is_table(then) and now["metadataLocation"] != then["metadataLocation"]:  # type: ignore[index]
                operations.append(put(name, {**cast(Json, then), "id": now["id"]}))
        if not operations:
            return None
        changes = compare(*(_locations(contents) for contents in (current, wanted)))
        self._open(MAIN, writable=False).require_kept(f"Entry {entry} of the log", changes)
        try:
            self.client.commit(
                target,
                reference["hash"],
                operations,
                f"Restore {target} to entry {entry}",
                kind="restore",
                source=str(entry),
                target=target,
            )
        except Conflict as conflict:
            raise CatalogError(
                f"`{target}` moved while it was being restored; nothing was changed.",
                where=str(conflict),
                fix="look at `cascade branch log`, and restore again.",
            ) from None
        done = self._newest(target, str(entry), changes)
        self._follow(target, {})
        return done

    def _apply(self, source: Json, target: Json, keys: Collection[str]) -> None:
        """Merge some tables and namespaces of one state into another, all in one commit.

        Raises:
            PromotionConflictError: The target or the source was written since these states were read.
        """
        body = {
            "fromRefName": source["name"],
            "fromHash": source["hash"],
            # Namespaces that the target has, and tables that have moved already, stay as they are.
            "defaultKeyMergeMode": "DROP",
            "keyMergeModes": [{"key": {"elements": key.split(".")}, "mergeBehavior": "NORMAL"} for key in sorted(keys)],
        }
        name, onto = source["name"], target["name"]
        try:
            self.client.merge(onto, target["hash"], body, f"Promote {name}", kind="promote", source=name, target=onto)
        except Conflict as conflict:
            tables = sorted(key for key in conflict.keys if key in keys and "." in key)
            raise conflict_error(name, onto, tables or [str(conflict)]) from None
        except BranchNotFoundError:
            self._find(name)  # raises if it was deleted
            raise changed_error(name, onto) from None  # else another promotion fast-forwarded it

    def _write_out(self, source: Json, target: Json, keys: Mapping[str, tuple[Json | None, Json | None]]) -> None:
        """Commit some contents of one state to another; by key what the target has, and what it gets.

        Raises:
            PromotionConflictError: The target was written since these states were read.
        """
        name, onto = source["name"], target["name"]
        operations: list[Json] = []
        for key, (now, wanted) in sorted(keys.items()):
            if wanted is None:
                operations.append(delete(key))
            else:  # a content keeps its id, and Nessie refuses one for what is new
                own = {k: v for k, v in wanted.items() if k != "id"}
                operations.append(put(key, {**own, "id": now["id"]} if now else own))
        try:
            self.client.commit(
                onto, target["hash"], operations, f"Promote {name}", kind="promote", source=name, target=onto
            )
        except Conflict as conflict:
            raise conflict_error(name, onto, conflict.keys or [str(conflict)]) from None

    def _open(self, ref: str, *, writable: bool) -> NessieReference:
        return NessieReference(self.client, self._properties, self.table_lock, ref, writable=writable)

    def _references(self) -> list[Json]:
        return [r for r in self.client.pages("trees", items="references") if r["name"] != self._records.branch]

    def _find(self, name: str) -> Json:
        try:
            if name == self._records.branch:
                raise BranchNotFoundError
            return self.client.reference(check_reference_name(name))
        except BranchNotFoundError:
            raise missing_error(name, (r["name"] for r in self._references())) from None

    def _require_branch(self, name: str) -> Json:
        reference = self._find(name)
        require_branch(name, _KINDS[reference["type"]])
        return reference

    def _delete(self, name: str) -> None:
        while True:
            try:
                self.client.delete(self._find(name))
            except Conflict:
                continue  # it was written in between
            break
        self._records.drop(name)

    def _create(self, name: str, source: str, kind: str, at: dt.datetime | None) -> bool:
        if self._find(source)["hash"] == NO_ANCESTOR:
            sign_warehouse(self._properties, _moment(self.client.get("config")["repositoryCreationTimestamp"]))
            # Nessie merges only what has a common ancestor: a new repository gets a first commit, which holds nothing.
            nothing = {"type": "UNCHANGED", "key": {"elements": [FIRST_KEY]}}
            with suppress(Conflict):  # another process was first
                self.client.commit(source, NO_ANCESTOR, [nothing], "Begin")
        while True:
            reference = self._find(source)
            self._require_place(self._pointers(reference["hash"]))
            if at is not None:
                reference = self._past(reference, at)
            try:
                self.client.create(name, kind.upper(), reference)
            except BranchNotFoundError:
                continue  # the source was fast-forwarded in between
            except Conflict as conflict:
                if conflict.exists:
                    return False
                raise CatalogError(f"`{name}` cannot be created: {conflict}", fix="choose another name.") from None
            break
        now = dt.datetime.now(dt.UTC).isoformat()
        self._records.put({name: {"source": source, "created_at": now, "base": reference["hash"]}})
        return True

    def _require_place(self, pointers: dict[str, str]) -> None:
        """Refuse to go on if none of the tables is in the warehouse that is set: its bucket or prefix is wrong."""
        here = self._properties["warehouse"]
        inside = here.partition("://")[2]
        for name, at in pointers.items():
            place = at.partition("://")[2].rpartition("/metadata/")[0]
            namespace, _, folder = place.removeprefix(f"{inside}/").partition("/")
            # A table that was renamed stays in the folder of its first name.
            if place.startswith(f"{inside}/") and (namespace == name.partition(".")[0] or "/" not in folder):
                return
        if not pointers:
            return
        name, at = min(pointers.items())
        raise CatalogError(
            "The tables of this catalog are not in the warehouse that is set; nothing was changed.",
            where=f"{name} is at {at.rpartition('/metadata/')[0]}, setting `warehouse`: {here}",
            fix="set CASCADE_WAREHOUSE to where the tables are, or CASCADE_NESSIE__URL to this warehouse's catalog.",
        )

    def _described(self, reference: Json, records: dict[str, dict[str, str]]) -> Branch:
        name = reference["name"]
        record = records.get(name, {})
        created = record.get("created_at")
        if created is None:  # `main`, or a branch of another tool: the age of its newest commit
            meta = self._detail(name).get("commitMetaOfHEAD") if name != MAIN else None
            created = meta["commitTime"] if meta else self.client.get("config")["repositoryCreationTimestamp"]
        changed = len(self._changes(reference, record)) if name != MAIN and reference["type"] == "BRANCH" else 0
        return Branch(
            name=name,
            kind=cast(Any, _KINDS[reference["type"]]),
            source=record.get("source", "" if name == MAIN else MAIN),
            created_at=_moment(created),
            changed=changed,
        )

    def _detail(self, name: str) -> Json:
        found: Json = self.client.get("trees", name, fetch="ALL")["reference"].get("metadata") or {}
        return found

    def _base(self, reference: Json, record: dict[str, str]) -> str:
        """Return the commit up to which a branch is promoted."""
        return record.get("base") or self._detail(reference["name"]).get("commonAncestorHash") or NO_ANCESTOR

    def _changes(self, reference: Json, record: dict[str, str]) -> list[TableChange]:
        return [] if reference["name"] == MAIN else self._diff(self._base(reference, record), reference["hash"])

    def _diff(self, before: str, after: str) -> list[TableChange]:
        return _moved_tables(self._differences(before, after))

    def _differences(self, before: str, after: str) -> dict[str, tuple[Json | None, Json | None]]:
        """Return the contents that differ between two states; both are given by hash, since a branch may move."""
        if before == after:
            return {}
        found = self.client.pages("trees", f"@{before}", "diff", f"@{after}", items="diffs")
        return {key_name(d["key"]): (d.get("from"), d.get("to")) for d in found}

    def _contents(self, state: str) -> dict[str, Json]:
        """Return all contents of a state by `namespace.table`; namespaces by their name."""
        if state == NO_ANCESTOR:
            return {}
        entries = self.client.pages("trees", f"@{state}", "entries", items="entries", content="true")
        return {key_name(entry["name"]): entry["content"] for entry in entries}

    def _pointers(self, state: str) -> dict[str, str]:
        return _locations(self._contents(state))

    def _past(self, reference: Json, at: dt.datetime) -> Json:
        """Return the reference in its state of a time; before its first commit it holds nothing, as after it.

        Not by Nessie's own lookup: it knows nothing before the repository's first commit.
        """
        commits = list(self._history(reference))
        found = next((commit for commit in commits if _moment(commit["commitTime"]) <= at), commits[-1])
        return {**reference, "hash": found["hash"]}

    def _history(self, reference: Json) -> Iterator[Json]:
        """Return the commits of a branch, newest first."""
        state = f"@{reference['hash']}"  # whatever branch it belongs to by now
        for entry in self.client.pages("trees", state, "history", items="logEntries"):
            yield entry["commitMeta"]

    def _moves(self, reference: Json, limit: int | None) -> Iterator[tuple[int, Json]]:
        """Return promotions and restores of a branch, newest first: its number, and the commit.

        They are numbered as commits are, from 1 after the first one, which holds nothing: commits of others leave gaps.
        """
        name = reference["name"]
        number = self._detail(name).get("numTotalCommits", 0) - 1
        for commit in self._history(reference):
            properties = commit.get("allProperties", {})
            if properties.get(KIND_PROPERTY) and properties.get(TARGET_PROPERTY) == [name]:
                if limit is not None and limit <= 0:
                    return
                limit = None if limit is None else limit - 1
                yield number, commit
            number -= 1

    def _newest(self, target: str, source: str, changes: list[TableChange]) -> LogEntry:
        """Return the log's entry of a move that was just made; others may have followed it."""
        moves = self._moves(self._find(target), None)
        number, commit = next(move for move in moves if move[1]["allProperties"][SOURCE_PROPERTY] == [source])
        return _entry(target, number, commit, changes)

    def _follow(self, target: str, promoted: dict[str, dict[str, str]]) -> None:
        """Record what is promoted, and fast-forward the branches of the target that have no changes of their own."""
        records, references = self._records.all(), self._references()
        onto = next(r for r in references if r["name"] == target)
        followed = dict(promoted)
        for reference in references:
            name = reference["name"]
            record = records.get(name, {}) | promoted.get(name, {})
            source = record.get("source")
            if not follows(name, _KINDS[reference["type"]], source, target) or self._changes(reference, record):
                continue
            with suppress(Conflict, BranchNotFoundError):  # written or deleted at this moment: it stays
                self.client.assign(reference, onto)
                followed[name] = {"base": onto["hash"]}
        self._records.put(followed)


def _moved_tables(differences: dict[str, tuple[Json | None, Json | None]]) -> list[TableChange]:
    before, after = (
        {name: content for name, pair in differences.items() if (content := pair[side])} for side in (0, 1)
    )
    return compare(_locations(before), _locations(after))


def _has_renamed(differences: dict[str, tuple[Json | None, Json | None]]) -> bool:
    """Say whether a content has gone under one name, and is there under another one."""
    gone = {before["id"] for before, after in differences.values() if before and not after}
    return any(after["id"] in gone for before, after in differences.values() if after and not before)


def _entry(target: str, number: int, commit: Json, changes: list[TableChange]) -> LogEntry:
    properties = commit["allProperties"]
    return LogEntry(
        id=number,
        at=_moment(commit["commitTime"]),
        kind=properties[KIND_PROPERTY][0],
        source=properties[SOURCE_PROPERTY][0],
        target=target,
        changes=tuple(changes),
        by=next(iter(commit.get("authors", [])), ""),
    )


def _locations(contents: dict[str, Json]) -> dict[str, str]:
    return {name: content["metadataLocation"] for name, content in contents.items() if is_table(content)}


def _moment(value: str) -> dt.datetime:
    return dt.datetime.fromisoformat(value)
