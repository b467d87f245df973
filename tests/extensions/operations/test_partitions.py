"""Runs of a project fill exactly the partitions that are missing, whatever their shape, and people can name them.

Modules: `cascade_operations.partitions`, `cascade_operations.selection`, `cascade_operations.times`.
"""

from pathlib import Path

import dagster as dg
import pytest

from cascade.config import Settings
from cascade.errors import UsageError
from cascade.framework.instance import open_instance
from cascade.lakehouse import Lakehouse
from cascade_operations import add_partitions, list_partitions, materialize, remove_partitions, run_pipeline
from cascade_operations.partitions import UnknownKeyError, ends_of, newest, range_of
from support.projects import make_project

_SHOPS = '''
"""Sales by shop, and by day and shop."""

import dagster as dg
from cascade.ingestion import cascade_ingestion

SHOPS = dg.DynamicPartitionsDefinition(name="shops")
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-03")


@cascade_ingestion(partitions=SHOPS, unique_key="shop")
def shops(partition_key: str):
    with open("asked.txt", "a") as file:
        file.write(partition_key + "\\n")
    return [{"shop": partition_key}]


@cascade_ingestion(partitions=dg.MultiPartitionsDefinition({"shop": SHOPS, "day": DAYS}), write="replace_partition")
def sales(partition_key: str):
    with open("asked.txt", "a") as file:
        file.write(partition_key + "\\n")
    return [{"sold": partition_key}]
'''


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    return Settings(project_dir=make_project(tmp_path / "shop", {"workflows/shops.py": _SHOPS}))


def asked(settings: Settings) -> list[str]:
    """What the functions were called for since this was asked last."""
    file = settings.project_dir / "asked.txt"
    found = file.read_text("utf-8").split() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(found)


def test_a_run_fills_what_is_missing_and_a_new_machine_learns_the_keys(project: Settings, tmp_path: Path) -> None:
    report = run_pipeline(project)
    assert (report.success, asked(project)) == (True, [])  # no key is known yet

    rows = add_partitions(project, "shops", ["north", "south"])
    assert [(row.key, row.loaded) for row in rows] == [("north", False), ("south", False)]
    assert run_pipeline(project).success
    both = [f"{day}|{shop}" for day in ("2024-01-01", "2024-01-02") for shop in ("north", "south")]
    assert asked(project) == [*both, "north", "south"]

    with open_instance(project) as instance:  # as a sensor or an asset adds one
        instance.add_dynamic_partitions("shops", ["east"])
    report = run_pipeline(project)
    assert asked(project) == ["2024-01-01|east", "2024-01-02|east", "east"]
    assert report.partitions["raw/sales"] == "2024-01-01|east..2024-01-02|east"
    assert run_pipeline(project).up_to_date == ("raw/sales", "raw/shops")
    assert asked(project) == []

    # The same lake, and a storage of Dagster that knows nothing.
    (project.project_dir / ".dagster").rename(tmp_path / "old")
    assert run_pipeline(project).up_to_date == ("raw/sales", "raw/shops")
    assert asked(project) == []
    assert [(row.key, row.loaded) for row in list_partitions(project, "shops")] == [
        ("east", True),
        ("north", True),
        ("south", True),
    ]
    with pytest.raises(UsageError, match="`main` holds 'east', so it would come back"):
        remove_partitions(project, "shops", ["east"])
    add_partitions(project, "shops", ["wrong"])
    assert "wrong" not in [row.key for row in remove_partitions(project, "shops", ["wrong"])]

    # One day of every shop, loaded again; and one partition on the branch of single materializations.
    assert run_pipeline(project, select=["sales"], partition="2024-01-02").success
    assert asked(project) == [f"2024-01-02|{shop}" for shop in ("east", "north", "south")]
    assert Lakehouse(project, "main").row_count("raw.sales") == 6
    report = materialize(project, ["sales"], partition="south|2024-01-01")
    assert (report.success, asked(project)) == (True, ["2024-01-01|south"])
    with pytest.raises(UsageError, match="There is no partition 'west'") as caught:
        run_pipeline(project, select=["shops"], partition="west")
    assert "add its key: `cascade partitions add raw/shops …`" in caught.value.fix


_DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")
_HOURS = dg.HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-02-01-00:00")
_MONTHS = dg.MonthlyPartitionsDefinition("2023-12-01", end_date="2024-03-01")
_LANDS = dg.StaticPartitionsDefinition(["nl", "be", "2024"])
_ALL = ("nl", "be", "2024")
_BOTH = dg.MultiPartitionsDefinition({"land": _LANDS, "day": _DAYS})
_SAID: dict[str, tuple[dg.PartitionsDefinition[str], str, list[str]]] = {
    "a key": (_LANDS, "be", ["be"]),
    "a range": (_LANDS, "nl..be", ["nl", "be"]),
    "one": (_BOTH, "2024-01-02|be", ["2024-01-02|be"]),
    "one, the other way around": (_BOTH, "be|2024-01-02", ["2024-01-02|be"]),
    "a day of all": (_BOTH, "2024-01-02", [f"2024-01-02|{land}" for land in _ALL]),
    "all days of one": (_BOTH, "nl", [f"2024-01-0{n}|nl" for n in (1, 2, 3)]),
    "days of all": (
        _BOTH,
        "2024-01-02..2024-01-03",
        [f"2024-01-0{n}|{a}" for n in (2, 3) for a in _ALL],
    ),
    "days of one": (_BOTH, "2024-01-02..2024-01-03|be", ["2024-01-02|be", "2024-01-03|be"]),
    "a rectangle": (_BOTH, "2024-01-01|nl..2024-01-02|be", [f"2024-01-0{n}|{a}" for n in (1, 2) for a in ("nl", "be")]),
    "a date of hours": (_HOURS, "2024-01-02", [f"2024-01-02-{n:02}:00" for n in range(24)]),
    "an hour": (_HOURS, "2024-01-02-05:00", ["2024-01-02-05:00"]),
    "a month of days": (_DAYS, "2024-01", ["2024-01-01", "2024-01-02", "2024-01-03"]),
    "years of months": (_MONTHS, "2023..2024", ["2023-12-01", "2024-01-01", "2024-02-01"]),
    "days of months": (_MONTHS, "2024-01-01..2024-02-29", ["2024-01-01", "2024-02-01"]),
    "a month of all": (_BOTH, "2024-01|be", [f"2024-01-0{n}|be" for n in (1, 2, 3)]),
    "a date when clocks change": (
        dg.HourlyPartitionsDefinition("2024-03-30-00:00", end_date="2024-04-02-00:00", timezone="Europe/Berlin"),
        "2024-03-31",
        [f"2024-03-31-{n:02}:00" for n in range(24) if n != 2],
    ),
    "a key with dots": (dg.StaticPartitionsDefinition(["a..b", "a"]), "a..b", ["a..b"]),
}


@pytest.mark.parametrize(("definition", "text", "keys"), _SAID.values(), ids=_SAID.keys())
def test_a_person_names_partitions(definition: dg.PartitionsDefinition[str], text: str, keys: list[str]) -> None:
    assert range_of(definition, text) == keys


_WRONG: dict[str, tuple[dg.PartitionsDefinition[str], str, type[Exception], str]] = {
    "unknown": (_BOTH, "fr", UnknownKeyError, "fr"),
    "unknown end": (_LANDS, "nl..fr", UnknownKeyError, "fr"),
    "too many": (_BOTH, "nl|be|x", UnknownKeyError, "nl|be|x"),
    "backwards": (_BOTH, "2024-01-03..2024-01-02", UsageError, "ends before it starts"),
    "no whole month": (_MONTHS, "2024-01-01..2024-01-30", UnknownKeyError, "2024-01-30"),
    "a time of none": (_DAYS, "2024-02", UnknownKeyError, "2024-02"),
    "a range out of all": (_DAYS, "2023-12-31..2024-01-02", UnknownKeyError, "2023-12-31"),
    "of both": (dg.MultiPartitionsDefinition({"a": _LANDS, "b": _LANDS}), "nl", UsageError, "a key of both dimensions"),
}


@pytest.mark.parametrize(("definition", "text", "kind", "said"), _WRONG.values(), ids=_WRONG.keys())
def test_what_names_no_partition_is_said(
    definition: dg.PartitionsDefinition[str], text: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said.replace("|", r"\|")):
        range_of(definition, text)


def test_a_range_of_two_dimensions_has_all_of_its_partitions() -> None:
    assert ends_of(_BOTH, ["2024-01-01|be", "2024-01-03|nl"]) == ("2024-01-01|nl", "2024-01-03|be")
    assert ends_of(_LANDS, ["nl", "2024"]) == ("nl", "2024")


def test_what_may_have_grown_is_of_the_latest_time_or_all() -> None:
    assert newest(_DAYS, _DAYS.get_partition_keys()) == ["2024-01-03"]
    assert newest(_LANDS, ["nl", "be"]) == ["nl", "be"]
    assert newest(_BOTH, _BOTH.get_partition_keys()) == [f"2024-01-03|{land}" for land in _ALL]
