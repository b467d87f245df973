"""compose.yaml ships the PostgreSQL that these tests run; tests/template compares the other versions."""

import re
from pathlib import Path

from support.postgres import Postgres

COMPOSE = Path(__file__).resolve().parents[2] / "template/compose.yaml.jinja"


def test_compose_has_the_postgresql_that_is_tested(postgres_server: Postgres) -> None:
    image = re.search(r"image: postgres:([\d.]+)@", COMPOSE.read_text("utf-8"))
    assert image is not None
    with postgres_server.connect() as connection:
        assert connection.info.parameter_status("server_version") == image[1]
