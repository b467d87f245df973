"""SQL on a branch by Trino: the branch's own catalog, each table at the snapshot it had when the query began."""

from cascade_servers.trino.catalogs import drop_catalog, drop_leftover_catalogs, ensure_catalog
from cascade_servers.trino.query import query
from cascade_servers.trino.server import server_of

__all__ = ["drop_catalog", "drop_leftover_catalogs", "ensure_catalog", "query", "server_of"]
