"""What a failure of dbt says: file and line, model, cause.

Modules: `cascade_dbt.failures`.
"""

import json
from pathlib import Path

import pytest

from cascade_dbt.failures import said_by_dbt

_HEAD = "The dbt CLI process failed.\n\nErrors parsed from dbt logs:\n\nBinder Error: as it came\n\n"
CASES = {
    "quoted": (
        '  Failure in model day (models/day.sql)\n\n  Binder Error: column "nope" not found!\nCandidates: "id"\n',
        'dbt/models/day.sql:2: model day: Binder Error: column "nope" not found!\nCandidates: "id"',
    ),
    "named": (
        "Failure in model day (models/day.sql)\n  Catalog Error: Scalar Function with name total does not exist!\n",
        "dbt/models/day.sql:3: model day: Catalog Error: Scalar Function with name total does not exist!",
    ),
    "trail_of_macros": (
        "Failure in model day (models/day.sql)\n  It is refused.\n  > in macro x (macros/x.sql)\n  > called by y\n",
        "dbt/models/day.sql: model day: It is refused.",
    ),
    "two": (
        "Failure in test not_null (models/all.yml)\n  Got 1 result\n\nFailure in model far (models/far.sql)\n  No.\n",
        "dbt/models/all.yml: test not_null: Got 1 result\nmodels/far.sql: model far: No.",
    ),
    "no_model": ("dbt could not start.\n", "Binder Error: as it came\ndbt could not start."),
}


@pytest.mark.parametrize(("text", "said"), CASES.values(), ids=CASES.keys())
def test_a_failure_names_file_line_and_model_before_the_cause(tmp_path: Path, text: str, said: str) -> None:
    models = tmp_path / "dbt" / "models"
    models.mkdir(parents=True)
    (models / "day.sql").write_text("select id,\n  nope,\n  total(x)\nfrom t\n")
    (models / "all.yml").write_text("models: []\n")
    assert said_by_dbt(_HEAD + text, tmp_path / "dbt", tmp_path, tmp_path / "none") == said


def test_a_batch_that_fails_says_why(tmp_path: Path) -> None:
    """dbt says ERROR of the model, or nothing when another batch of it is there; its log says more."""
    (tmp_path / "dbt" / "models").mkdir(parents=True)
    (tmp_path / "dbt" / "models" / "day.sql").write_text("select id,\n  nope\n")
    log = tmp_path / "dbt.log"
    node = {"node_info": {"unique_id": "model.shop.day", "node_name": "day", "node_path": "day.sql"}}
    events = [
        ("GenericExceptionOnRun", {"exc": 'Exception on worker thread. Binder Error: "nope" is not there'}),
        ("LogBatchResult", {"status": "error", "description": "batch 2026-01-02 of silver.day"}),
        ("LogBatchResult", {"status": "success", "description": "batch 2026-01-03 of silver.day"}),
    ]
    lines = [json.dumps({"data": {**data, **node}, "info": {"name": name}}) for name, data in events]
    log.write_text("\n".join(lines))
    for text in ("", "Failure in model day (models/day.sql)\n  ERROR\n"):
        assert said_by_dbt(_HEAD + text, tmp_path / "dbt", tmp_path, log) == (
            'dbt/models/day.sql:2: model day: batch 2026-01-02 of silver.day: Binder Error: "nope" is not there'
        )
