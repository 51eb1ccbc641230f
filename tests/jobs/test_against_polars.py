"""Stable tables and aggregates against a second implementation, in Polars, on the same generated pings."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs import histogram_aggregates as aggregation
from jobs.histogram_aggregates import histogram_aggregates
from jobs.ping_volumes import ping_volumes
from jobs.stable_pings import stable_pings
from lake_testing.coinciding_pings import DAYS, FIRST, PINGS, coinciding_pings
from lake_testing.plain_measures import plain_measures
from lake_testing.sample_rows import sample_rows
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.settings import Settings
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES, LIVE_PINGS, STABLE_PINGS
from telemetry_lake.units import DateRange

DATES = DateRange(FIRST, FIRST + timedelta(days=DAYS - 1))
PRECEDING_DAYS = 1
"""The last day is too late for the window of the first."""
IDENTITY = ("namespace", "document_type", "document_id")
PLACE = ["submission_date", "raw_object", "raw_object_position"]
GROUP = [
    *("namespace", "document_type", "app_update_channel", "app_name", "app_version", "build_date"),
    *("normalized_os", "architecture"),
]
DEFINITION = ["process", "name", "key", "histogram_type", "bucket_count", "range_low", "range_high"]

pytestmark = pytest.mark.parametrize("settings", ["rest"], indirect=True, scope="session")


def rows_of(catalog: Catalog, table: str) -> pl.DataFrame:
    frame = pl.from_arrow(catalog.load_table(table).scan().to_arrow())
    assert isinstance(frame, pl.DataFrame)
    return frame


def append(catalog: Catalog, table: str, rows: list[dict[str, Any]]) -> None:
    columns: pa.Table = sample_rows(table, rows)
    catalog.load_table(table).append(columns)


def expected_stable(live: pl.DataFrame) -> pl.DataFrame:
    """The first of each id of a namespace and type in each window; `live` has what matters, and `tagged`."""
    genuine = live.filter(~pl.col("tagged")).sort("submission_timestamp", "raw_object", "raw_object_position")
    kept: list[dict[str, Any]] = []
    for _, same in genuine.group_by(*IDENTITY, maintain_order=True):
        rows = same.to_dicts()
        for number, row in enumerate(rows):
            days = [(row["submission_date"] - before["submission_date"]).days for before in rows[:number]]
            if not any(days_before <= PRECEDING_DAYS for days_before in days):
                kept.append(row)
    return pl.DataFrame(kept, schema=live.schema).drop("tagged")


def places(catalog: Catalog) -> pl.DataFrame:
    """Where each row of live.pings is, and whether it is `tagged` as a test ping."""
    rows = catalog.load_table(LIVE_PINGS).scan().to_arrow()
    sent = [dict(headers or ()).get("x-source-tags", "") for headers in rows.column("headers").to_pylist()]
    tagged = ["automation" in [tag.strip().lower() for tag in tags.split(",")] for tags in sent]
    frame = pl.from_arrow(rows.select([*IDENTITY, "submission_timestamp", *PLACE]))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(tagged=pl.Series(tagged))


def with_measures(stable: pl.DataFrame) -> pl.DataFrame:
    """The same pings with their measures among their histograms."""
    of_table = stable.schema["histograms"]
    assert isinstance(of_table, pl.List)
    assert isinstance(of_table.inner, pl.Struct)
    names = [field.name for field in of_table.inner.fields]
    measures = [
        [{name: measure.get(name) for name in names} for measure in plain_measures(document)]
        for document in stable["document"]
    ]
    return stable.with_columns(histograms=pl.concat_list("histograms", pl.Series(measures, dtype=of_table)))


def expected_aggregates(stable: pl.DataFrame) -> pl.DataFrame:
    samples = (
        with_measures(stable)
        .with_columns(build_date=pl.col("app_build_id").str.slice(0, 8).str.to_date("%Y%m%d", strict=False))
        .with_row_index("ping")
        .explode("histograms", empty_as_null=True)
        .filter(pl.col("histograms").is_not_null())
        .unnest("histograms")
    )
    grain = ["submission_date", *GROUP, *DEFINITION]
    base = samples.group_by(grain).agg(
        pings=pl.len(),
        sum=pl.col("sum").filter((pl.col("sum") >= 0) & (pl.col("sum") % 1 == 0)).cast(pl.Int64).sum(),
    )
    split = pl.col("buckets", "counts").str.split(",").cast(pl.List(pl.Int64))
    each = samples.with_columns(split).explode("buckets", "counts", empty_as_null=True)
    each = each.filter(pl.col("counts") > 0)
    counts = each.group_by(*grain, "buckets").agg(counts=pl.col("counts").sum())
    of_clients = (
        each.filter(pl.col("client_id").is_not_null())
        .group_by(*grain, "client_id", "buckets")
        .agg(n=pl.col("counts").sum())
        .with_columns(weight=pl.col("n") / pl.col("n").sum().over(*grain, "client_id"))
    )
    normalized = of_clients.group_by(*grain, "buckets").agg(normalized=pl.col("weight").sum())
    clients = of_clients.group_by(grain).agg(clients=pl.col("client_id").n_unique())
    bounds = (
        base.select(DEFINITION)
        .unique()
        .with_columns(
            buckets=pl.struct("histogram_type", "range_low", "range_high", "bucket_count").map_elements(
                lambda of: list(
                    bucket_bounds(
                        BucketRange(
                            HistogramType(of["histogram_type"]),
                            of["range_low"],
                            of["range_high"],
                            of["bucket_count"],
                        )
                    )
                ),
                return_dtype=pl.List(pl.Int64),
            )
        )
    )
    return (
        base.join(bounds, on=DEFINITION, nulls_equal=True)
        .explode("buckets")
        .join(counts, on=[*grain, "buckets"], how="left", nulls_equal=True)
        .join(normalized, on=[*grain, "buckets"], how="left", nulls_equal=True)
        .join(clients, on=grain, how="left", nulls_equal=True)
        .with_columns(pl.col("counts", "normalized", "clients").fill_null(0))
        .sort(*grain, "buckets")
        .select(*grain, "pings", "clients", "sum", "buckets", "counts", "normalized")
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_table_is_what_polars_makes_of_the_same_pings(
    spark: SparkSession, catalog: Catalog, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    # Small shares, so that a client's pings come from several reads and sums from several shares.
    for limit, size in {"READ_MAX_PINGS": 64, "SHARE_PINGS": 50}.items():
        monkeypatch.setattr(aggregation, limit, size)
    rows = coinciding_pings(seed=6)
    append(catalog, LIVE_PINGS, rows[: PINGS // 2])
    # In a wrong order, one date twice, and before half of the pings are there.
    for day in (DAYS - 1, 0):
        one = DateRange(FIRST + timedelta(days=day), FIRST + timedelta(days=day))
        assert len(list(stable_pings(spark, one, preceding_days=PRECEDING_DAYS))) == 1
    append(catalog, LIVE_PINGS, rows[PINGS // 2 :])
    made = list(stable_pings(spark, DATES, preceding_days=PRECEDING_DAYS))
    assert [each.day for each in made] == list(DATES)
    assert not list(stable_pings(spark, DATES, preceding_days=PRECEDING_DAYS))

    live, stable = rows_of(catalog, LIVE_PINGS), rows_of(catalog, STABLE_PINGS)
    expected = expected_stable(places(catalog))
    assert 0 < len(expected) < len(live)
    whole = live.join(expected.select(PLACE), on=PLACE)
    assert sorted(stable.to_dicts(), key=str) == sorted(whole.to_dicts(), key=str)

    summed = list(histogram_aggregates(spark, settings, DATES))
    assert [each.day for each in summed] == list(DATES)
    assert not list(histogram_aggregates(spark, settings, DATES))
    found = rows_of(catalog, HISTOGRAM_AGGREGATES).explode("buckets", "counts", "normalized")
    oracle = expected_aggregates(stable)
    assert_frame_equal(
        found.select(oracle.columns).sort("submission_date", *GROUP, *DEFINITION, "buckets"),
        oracle,
        check_dtypes=False,
        abs_tol=1e-6,
    )

    volumes = {each.day: each.rows for each in ping_volumes(spark, DATES)}
    assert set(volumes) == set(DATES)
    counted = rows_of(catalog, "derived.ping_volumes").group_by("submission_date").agg(pl.col("pings").sum())
    per_day = live.group_by("submission_date").agg(pings=pl.len().cast(pl.Int64))
    assert_frame_equal(counted, per_day, check_row_order=False)

    # A late ping makes its date and those whose window it is in out of date, and then what was made of them.
    second = FIRST + timedelta(days=1)
    noon = datetime(second.year, second.month, second.day, 12, tzinfo=UTC)
    late = {"document_id": "late", "submission_date": second, "submission_timestamp": noon, "headers": {}}
    late = {**rows[0], **late}
    append(catalog, LIVE_PINGS, [late])
    remade = [each.day for each in stable_pings(spark, DATES, preceding_days=PRECEDING_DAYS)]
    assert remade == list(DATES)[1:]
    assert [each.day for each in histogram_aggregates(spark, settings, DATES)] == remade
    assert [each.day for each in ping_volumes(spark, DATES)] == remade[:1]
