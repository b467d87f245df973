"""The project loads as a whole."""

import dagster as dg

from definitions import defs


def test_every_layer_of_the_weather_is_there() -> None:
    """Ingestion and dbt models are joined in one graph."""
    keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
    assert {
        "raw/weather_observations",
        "bronze/weather_observations",
        "silver/weather_hourly",
        "gold/weather_daily",
        "marts/weather_monthly",
    } <= keys


def test_gold_is_computed_from_silver() -> None:
    """The lineage crosses from Python to SQL."""
    graph = defs.resolve_asset_graph()
    gold, silver = dg.AssetKey(["gold", "weather_daily"]), dg.AssetKey(["silver", "weather_hourly"])
    assert graph.get(gold).parent_keys == {silver}
