"""Superset's settings. What differs from project to project, and every secret, comes from the environment."""

import os
from typing import Any

from sqlalchemy.engine import URL, make_url

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]
#: One process counts attempts to log in: in its memory.
RATELIMIT_STORAGE_URI = "memory://"
#: Pages load nothing from elsewhere. Superset's own list also allows servers of maps, and a pixel that counts visits.
TALISMAN_CONFIG = {
    "content_security_policy": {
        "default-src": ["'self'"],
        "base-uri": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,  # on 127.0.0.1
    "session_cookie_secure": False,
}
_MARTS = make_url(os.environ["SUPERSET_MARTS_URL"])


def DB_CONNECTION_MUTATOR(uri: URL, params: dict[str, Any], *_: object) -> tuple[URL, dict[str, Any]]:  # noqa: N802
    """Give connections to the host `marts` its address and password, which are in no file and no table of Superset.

    Args:
        uri: The address as `databases/marts.yaml` has it.
        params: Arguments of SQLAlchemy's `create_engine`; they stay.
    """
    if uri.host == "marts":
        uri = uri.set(host=_MARTS.host, port=_MARTS.port, username=_MARTS.username, password=_MARTS.password)
    return uri, params
