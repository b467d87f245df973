"""The promises of `cascade_cli.output`: what people read of records and events.

Modules: `cascade_cli.app`.
"""

from cascade_cli.output import always_texts


def test_what_every_run_computes_is_told_by_reason() -> None:
    always = {"silver/a": "it has a hook", "silver/b": "its meta says so", "silver/c": "it has a hook"}
    assert list(always_texts(always)) == [
        "2 models (silver/a, silver/c), since it has a hook",
        "1 model (silver/b), since its meta says so",
    ]
