#!/bin/sh
# Makes Superset ready, then serves it at $SUPERSET_BIND. Its argument: the folder of dashboards.
set -eu
python "$(dirname "$0")/prepare.py" "$1"
exec gunicorn --bind "$SUPERSET_BIND" --worker-class gthread --workers 1 --threads 8 --timeout 120 --graceful-timeout 10 \
    'superset.app:create_app()'
