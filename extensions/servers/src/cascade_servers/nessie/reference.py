"""PyIceberg's catalog of one Nessie reference: every commit names the state that it was planned on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from pyiceberg.catalog import MetastoreCatalog, PropertiesUpdateSummary
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from cascade.catalog.reference import ReferenceCatalog, StagedCommit, TableLock, open_state
from cascade.errors import BranchNotFoundError
from cascade_servers.nessie.client import Conflict, Json, NessieClient, NotThere

__all__ = ["NessieReference", "delete", "is_table", "key_name", "put", "put_namespace"]

_TABLE = "ICEBERG_TABLE"
_ATTEMPTS = 5

# A state of the branch, and the operations that were planned on it.
Plan = tuple[str, list[Json]]


class NessieReference(ReferenceCatalog):
    """One branch or tag of a Nessie server."""

    def __init__(
        self, client: NessieClient, properties: Mapping[str, str], table_lock: TableLock, ref: str, *, writable: bool
    ) -> None:
        MetastoreCatalog.__init__(self, ref, **properties)
        self._client = client
        self._table_lock = table_lock
        self._writable = writable

    def load_table(self, identifier: str | Identifier) -> Table:
        """Open a table as the reference holds it now."""
        content, _ = self._content(identifier)
        return self._open(identifier, content)

    def create_table(self, identifier: str | Identifier, *args: Any, **kwargs: Any) -> Table:
        """Create a table; its namespace comes with it."""
        self._require_writable(identifier)
        return self.create_table_transaction(identifier, *args, **kwargs).commit_transaction()

    def register_table(self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False) -> Table:
        """Register a metadata file as a table."""
        name = self._require_writable(identifier)
        self._move([StagedCommit(name, None, self._at(name, metadata_location))])
        return self.load_table(name)

    def drop_table(self, identifier: str | Identifier) -> None:
        """Drop a table from this reference; files stay, other references read them."""
        name = self._require_writable(identifier)
        self._commit(lambda: (self._content(name)[1], [delete(name)]), f"Drop {name}")

    def rename_table(self, from_identifier: str | Identifier, to_identifier: str | Identifier) -> Table:
        """Rename a table on this reference."""
        old, new = self._require_writable(from_identifier), self._require_writable(to_identifier)

        def plan() -> Plan:
            content, hash_ = self._content(old)
            return hash_, [*self._namespace_of(new), delete(old), put(new, content)]

        self._commit(plan, f"Rename {old} to {new}", taken=[new])
        return self.load_table(new)

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        """Return the tables of a namespace."""
        wanted = self.identifier_to_tuple(namespace)
        entries = (e for e in self._entries() if e["type"] == _TABLE)
        return [name for e in entries if (name := tuple(e["name"]["elements"]))[:-1] == wanted]

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """Return the namespaces; they are not nested."""
        return [] if namespace else [tuple(e["name"]["elements"]) for e in self._entries() if e["type"] == "NAMESPACE"]

    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """Create a namespace."""
        name = self.namespace_to_string(namespace)

        def plan() -> Plan:
            hash_ = self._client.reference(self.name)["hash"]
            if not (operations := self._namespace_of(f"{name}._")):
                raise NamespaceAlreadyExistsError(f"Namespace {name} already exists")
            return hash_, operations

        self._commit(plan, f"Create namespace {name}")

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """Return a namespace's properties."""
        name = self.namespace_to_string(namespace)
        try:
            found: Properties = self._client.get("trees", self.name, "contents", name)["content"]["properties"]
        except NotThere:
            raise NoSuchNamespaceError(f"Namespace does not exist: {name}") from None
        return found

    def drop_namespace(self, namespace: str | Identifier) -> NoReturn:
        """Not supported."""
        raise NotImplementedError

    def update_namespace_properties(
        self, namespace: str | Identifier, removals: set[str] | None = None, updates: Properties = EMPTY_DICT
    ) -> PropertiesUpdateSummary:
        """Not supported."""
        raise NotImplementedError

    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        """Return nothing: there are no views."""
        return []

    def view_exists(self, identifier: str | Identifier) -> bool:
        """Say that there is no view."""
        return False

    def load_view(self, identifier: str | Identifier) -> NoReturn:
        """Not supported."""
        raise NotImplementedError

    def drop_view(self, identifier: str | Identifier) -> NoReturn:
        """Not supported."""
        raise NotImplementedError

    def register_view(self, identifier: str | Identifier, metadata_location: str) -> NoReturn:
        """Not supported."""
        raise NotImplementedError

    def _content(self, identifier: str | Identifier) -> tuple[Json, str]:
        """Return what Nessie has of a table, and the state of the branch that this was read from."""
        name = ".".join(self.identifier_to_tuple(identifier))
        try:
            found = self._client.get("trees", self.name, "contents", name)
        except NotThere:
            raise NoSuchTableError(f"Table does not exist: {name}") from None
        if found["content"]["type"] != _TABLE:
            raise NoSuchTableError(f"{name} is a {found['content']['type']}, not an Iceberg table")
        return found["content"], found["effectiveReference"]["hash"]

    def _open(self, identifier: str | Identifier, content: Json) -> Table:
        return self._at(".".join(self.identifier_to_tuple(identifier)), content["metadataLocation"])

    def _entries(self) -> list[Json]:
        return list(self._client.pages("trees", self.name, "entries", items="entries"))

    def _namespace_of(self, name: str) -> list[Json]:
        """Return the operation that a table's namespace still needs; nothing where it exists."""
        namespace = name.split(".", maxsplit=1)[0]
        try:
            self._client.get("trees", self.name, "contents", namespace)
        except NotThere:
            return [put_namespace(namespace)]
        return []

    def _move(self, staged: Sequence[StagedCommit]) -> None:
        """Put tables in their next states, by one commit."""

        def plan() -> Plan:
            # The state is asked for first: a table that is written after that makes the commit fail.
            hash_ = self._client.reference(self.name)["hash"]
            operations: list[Json] = []
            for commit in staged:
                after = _content_of(commit.after)
                try:
                    current, _ = self._content(commit.name)
                except NoSuchTableError:
                    if commit.before is not None:
                        raise
                    operations += [o for o in self._namespace_of(commit.name) if o not in operations]
                    operations.append(put(commit.name, after))
                    continue
                if current["metadataLocation"] == commit.before:
                    operations.append(put(commit.name, {**after, "id": current["id"]}))
                elif not self._has_landed(commit.name, current, after):
                    if commit.before is None:
                        raise TableAlreadyExistsError(f"Table {commit.name} already exists")
                    raise CommitFailedException(f"{commit.name} on branch {self.name} was written by another process")
            return hash_, operations

        if staged:
            new = [commit.name for commit in staged if commit.before is None]
            self._commit(plan, f"Write {', '.join(commit.name for commit in staged)}", taken=new)

    def _at(self, name: str, location: str) -> Table:
        return open_state(name, location, lambda: self)

    def _has_landed(self, name: str, current: Json, content: Json) -> bool:
        """Say whether a table is in a state or has moved on from it: only the answer of a request was lost."""
        place, wanted = current["metadataLocation"], content["metadataLocation"]
        return place == wanted or wanted in (e.metadata_file for e in self._at(name, place).metadata.metadata_log)

    def _commit(self, plan: Callable[[], Plan], message: str, *, taken: Collection[str] = ()) -> None:
        """Commit what a function plans on the state that it read.

        It plans again where another writer made the namespace in between, or where a promotion moved the branch
        elsewhere: the state that was read is then none of this branch, which Nessie calls a reference not found.
        """
        for _ in range(_ATTEMPTS):
            hash_, operations = plan()
            try:
                if operations:
                    self._client.commit(self.name, hash_, operations, message)
            except BranchNotFoundError as error:
                problem = str(error)
            except Conflict as conflict:
                problem = str(conflict)
                if exists := set(taken).intersection(conflict.keys):
                    raise TableAlreadyExistsError(f"Table {', '.join(exists)} already exists") from None
                if not set(conflict.keys) <= {key_name(o["key"]) for o in operations if _is_namespace(o)}:
                    break
            else:
                return
        raise CommitFailedException(f"{message} on branch {self.name}: {problem}")


def _is_namespace(operation: Json) -> bool:
    return bool(operation.get("content", {}).get("type") == "NAMESPACE")


def put(name: str, content: Json) -> Json:
    """Return the operation that lets `namespace.table` be a content."""
    return {"type": "PUT", "key": {"elements": name.split(".")}, "content": content}


def put_namespace(name: str) -> Json:
    """Return the operation that makes a namespace."""
    return put(name, {"type": "NAMESPACE", "elements": [name], "properties": {}})


def delete(name: str) -> Json:
    """Return the operation that drops `namespace.table`."""
    return {"type": "DELETE", "key": {"elements": name.split(".")}}


def is_table(content: Json | None) -> bool:
    """Say whether a content is an Iceberg table."""
    return content is not None and content["type"] == _TABLE


def key_name(key: Json) -> str:
    """Return a key as `namespace.table`."""
    return ".".join(key["elements"])


def _content_of(table: Table) -> Json:
    metadata = table.metadata
    return {
        "type": _TABLE,
        "metadataLocation": table.metadata_location,
        "snapshotId": -1 if metadata.current_snapshot_id is None else metadata.current_snapshot_id,
        "schemaId": metadata.current_schema_id,
        "specId": metadata.default_spec_id,
        "sortOrderId": metadata.default_sort_order_id,
    }
