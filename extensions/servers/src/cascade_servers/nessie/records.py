"""What Nessie does not keep of a branch: where it was made from, when, and from which state on it is unpromoted.

Kept in Nessie itself, in a branch that has nothing else: a namespace of the branch's name carries it as properties.
"""

from __future__ import annotations

from contextlib import suppress

from cascade.errors import BranchNotFoundError, ServiceError
from cascade_servers.names import RECORDS_BRANCH
from cascade_servers.nessie.client import NO_ANCESTOR, Conflict, Json, NessieClient

__all__ = ["Records"]

_ATTEMPTS = 20


class Records:
    """The records of all branches: `source`, `created_at` (UTC, ISO) and `base` (a hash)."""

    #: The branch that holds them.
    branch = RECORDS_BRANCH

    def __init__(self, client: NessieClient) -> None:
        self._client = client

    def all(self) -> dict[str, dict[str, str]]:
        """Return every record, by the name of its branch."""
        return {name: content["properties"] for name, content in self._contents(self.branch).items()}

    def get(self, name: str) -> dict[str, str]:
        """Return one record; empty where there is none."""
        return self.all().get(name, {})

    def put(self, changes: dict[str, dict[str, str]]) -> None:
        """Change records, each made when it does not exist; values not named stay."""
        if changes:
            self._commit(changes, f"Record {', '.join(changes)}")

    def drop(self, name: str) -> None:
        """Drop a record."""
        self._commit({name: None}, f"Drop {name}")

    def _commit(self, changes: dict[str, dict[str, str]] | dict[str, None], message: str) -> None:
        for _ in range(_ATTEMPTS):
            hash_ = self._hash()
            current = self._contents(f"@{hash_}")
            operations: list[Json] = []
            for name, values in changes.items():
                content = current.get(name)
                # Not the name's dots: they would part it.
                key = {"elements": [name]}
                if values is not None:
                    fresh: Json = {"type": "NAMESPACE", "elements": [name], "properties": values}
                    if content:
                        fresh = {**content, "properties": {**content["properties"], **values}}
                    operations.append({"type": "PUT", "key": key, "content": fresh})
                elif content:
                    operations.append({"type": "DELETE", "key": key})
            if not operations:
                return
            with suppress(Conflict):  # another process changed the same record: once more, on what it wrote
                self._client.commit(self.branch, hash_, operations, message)
                return
        raise ServiceError(
            f"Nessie does not take the records of {', '.join(changes)}: other processes change them all the time.",
            fix="run again when less is going on.",
        )

    def _hash(self) -> str:
        try:
            return str(self._client.reference(self.branch)["hash"])
        except BranchNotFoundError:
            with suppress(Conflict):  # another process was first
                self._client.create(self.branch, "BRANCH", {"type": "BRANCH", "name": "main", "hash": NO_ANCESTOR})
            return str(self._client.reference(self.branch)["hash"])

    def _contents(self, state: str) -> dict[str, Json]:
        try:
            entries = list(self._client.pages("trees", state, "entries", items="entries", content="true"))
        except BranchNotFoundError:
            return {}
        return {entry["name"]["elements"][0]: entry["content"] for entry in entries}
