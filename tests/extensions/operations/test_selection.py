"""What a selection of assets means. Modules: `cascade_operations.selection`."""

import re

import dagster as dg
import pytest

from cascade import cascade_ingestion
from cascade._dagster import disable_dagster_warnings
from cascade.errors import UsageError
from cascade_operations.selection import select_assets


@cascade_ingestion(group="shop", partitions="none")
def orders() -> list[dict[str, int]]:
    return []


@cascade_ingestion(group="sky", partitions="none")
def weather() -> list[dict[str, int]]:
    return []


def _model(key: str, *deps: str, tags: dict[str, str] | None = None, file: str = "") -> dg.AssetsDefinition:
    path = key.split("/")
    with disable_dagster_warnings():
        place = dg.LocalFileCodeReference(file_path=f"/shop/transforms/dbt/models/{file or key}.sql")
        metadata = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}
    deps_of = [dep.split("/") for dep in deps]

    @dg.asset(key=path, deps=deps_of, group_name=path[0], kinds={"dbt"}, tags=tags, metadata=metadata)
    def model() -> None: ...

    return model


DEFINITIONS = dg.Definitions(
    [
        *(orders, weather),
        _model("bronze/orders", "raw/orders"),
        _model("silver/sales", "bronze/orders", tags={"nightly": ""}),
        _model("silver/hours", "raw/weather"),
        _model("gold/sales_daily", "silver/sales", "silver/hours", file="gold/sales/daily"),
        dg.AssetSpec(["elsewhere", "table"], group_name="shop"),
    ],
    resources={"lakehouse": object()},
)
EVERY = {"raw/orders", "raw/weather", "bronze/orders", "silver/sales", "silver/hours", "gold/sales_daily"}


def chosen(*texts: str, connected: bool = True) -> set[str]:
    return {key.to_user_string() for key in select_assets(DEFINITIONS, texts, connected=connected)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raw/orders", {"raw/orders"}),
        ("raw.orders", {"raw/orders"}),
        ("orders", {"raw/orders"}),  # the ingestion asset of that name
        ('"orders"', {"raw/orders"}),
        ("sales", {"silver/sales"}),
        ("silver", {"silver/sales", "silver/hours"}),
        ("silver/*", {"silver/sales", "silver/hours"}),
        ("*sales*", {"silver/sales", "gold/sales_daily"}),
        ("*", EVERY),
        ("+sales", {"raw/orders", "bronze/orders", "silver/sales"}),
        ("1+sales", {"bronze/orders", "silver/sales"}),
        ("orders+1", {"raw/orders", "bronze/orders"}),
        ("+silver", EVERY - {"gold/sales_daily"}),
        ("weather+", {"raw/weather", "silver/hours", "gold/sales_daily"}),
        ("+hours+", {"raw/weather", "silver/hours", "gold/sales_daily"}),
        ("group:shop", {"raw/orders"}),  # what this project does not compute cannot be run
        ("kind:dbt and not gold", {"bronze/orders", "silver/sales", "silver/hours"}),
        ('key:"gold/*"', {"gold/sales_daily"}),
        ("tag:nightly", {"silver/sales"}),
        ("tag:nightly+", {"silver/sales", "gold/sales_daily"}),
        ("path:models/gold", {"gold/sales_daily"}),
        ("path:models/gold/", {"gold/sales_daily"}),
        ("path:transforms/dbt/models/gold/sales/daily.sql", {"gold/sales_daily"}),
        (f"path:{__file__}", {"raw/orders", "raw/weather"}),
        ("path:operations/test_selection.py+", EVERY),
        ("sinks(*)", {"gold/sales_daily"}),
        ("roots(+sales_daily)", {"raw/orders", "raw/weather"}),
        ("(orders or weather) and group:sky", {"raw/weather"}),
        ("bronze OR silver AND tag:nightly", {"bronze/orders", "silver/sales"}),
    ],
)
def test_a_selection_means_assets(text: str, expected: set[str]) -> None:
    assert chosen(text) == expected


def test_selections_add_up() -> None:
    assert chosen("weather", "group:shop") == {"raw/weather", "raw/orders"}


@pytest.mark.parametrize("text", ["+sales", "sales+", "2+sales+1", "+(sales)", "(+sales)+"])
def test_what_plus_adds_can_be_left_out(text: str) -> None:
    assert chosen(text, connected=False) == {"silver/sales"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("oders", "There is no asset 'oders'; did you mean"),
        ("gold/sale_daily", "did you mean gold/sales_daily?"),
        ("raw/*s_of_mars", "There is no asset 'raw/*s_of_mars'"),
        ("group:shp", "'group:shp' selects no asset; groups are bronze, gold, shop, silver, sky; kinds are"),
        ("orders and weather", "'orders and weather' selects no asset"),
        ("group:elsewhere and (orders", "cannot be read as a selection"),
        ("orders weather", "cannot be read as a selection"),
        ("code_location:shop", "cannot be read as a selection"),
        ("shop", "did you mean group:shop?"),
        ("status:failed", "cannot be read as a selection"),
        ('"orders', "cannot be read as a selection"),
        ("", "cannot be read as a selection"),
        ("path:models/platinum", "no file or folder of that name defines an asset"),
    ],
)
def test_what_selects_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        select_assets(DEFINITIONS, [text])


def test_all_that_is_wrong_is_said_together() -> None:
    with pytest.raises(UsageError, match=r"'oders'.*'group:shp'"):
        select_assets(DEFINITIONS, ["oders", "group:shp", "orders"])


def test_a_name_of_two_tables_is_refused() -> None:
    two = dg.Definitions([_model("silver/sales"), _model("gold/sales")])
    with pytest.raises(UsageError, match="'sales' may mean gold/sales or silver/sales"):
        select_assets(two, ["sales"])
