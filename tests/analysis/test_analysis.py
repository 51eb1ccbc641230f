"""The analysis module: what it reads, what it adds up, and what it refuses."""

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import substring

from jobs.spark_session import spark_failures
from lake_testing.sample_rows import sample_rows
from lake_testing.stored_histograms import TO_HUNDRED, TO_TEN, histogram
from telemetry_lake.analysis import (
    HistogramSum,
    add_up,
    histogram_sums,
    histograms_to_pandas,
    pings,
    plot_histograms,
    sum_histograms,
)
from telemetry_lake.analysis.plot import PLOTTED_MAX_COUNT
from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType
from telemetry_lake.tables.definitions import LIVE_PINGS, STABLE_PINGS

SUNDAY, MONDAY = date(2026, 11, 22), date(2026, 11, 23)
BOTH = "2026-11-22..2026-11-23"
YES_OR_NO = BucketRange(HistogramType.BOOLEAN, 1, 2, 3)


def summed(counts: tuple[int, ...], of: BucketRange = TO_TEN, **more: Any) -> HistogramSum:
    arguments = {"name": "GC_MS", "process": "parent", "key": None, "sum": None, "pings": 1, **more}
    return HistogramSum(definition=of, counts=counts, **arguments)


def fill(catalog: Catalog, *rows: dict[str, Any]) -> None:
    complete = [{"submission_date": MONDAY, "document_type": "main", **row} for row in rows]
    catalog.load_table(STABLE_PINGS).append(sample_rows(STABLE_PINGS, complete))


def read(spark: SparkSession, **arguments: Any) -> list[str]:
    """The document ids of the pings that the arguments choose, sorted."""
    return sorted(row.document_id for row in pings(spark, **arguments).select("document_id").collect())


def columns_read(frame: DataFrame) -> dict[str, str]:
    """What Spark's plan reads of the table, by column, with types."""
    scan = frame._jdf.queryExecution().optimizedPlan().collectLeaves().apply(0)
    return {field.name(): field.dataType().simpleString() for field in scan.schema().fields()}


def test_pings_are_chosen_by_type_date_channel_and_sample(spark: SparkSession, catalog: Catalog):
    names = ("document_id", "submission_date", "document_type", "app_update_channel", "sample_id")
    rows = [
        dict(zip(names, values, strict=True))
        for values in (
            ("a", SUNDAY, "main", "release", 0),
            ("b", SUNDAY, "main", "beta", 41),
            ("c", SUNDAY, "crash", "beta", 42),
            ("d", MONDAY, "main", "release", None),
            ("e", MONDAY, "main", "nightly", 99),
        )
    ]
    fill(catalog, *rows)
    catalog.load_table(LIVE_PINGS).append(sample_rows(LIVE_PINGS, rows[:1]))
    assert read(spark, document_type="main", dates=BOTH) == ["a", "b", "d", "e"]
    assert read(spark, document_type=["main", "crash"], dates="2026-11-22") == ["a", "b", "c"]
    assert read(spark, document_type="main", dates=MONDAY) == ["d", "e"]
    assert read(spark, document_type="main", dates=(SUNDAY, "2026-11-23"), channel="release") == ["a", "d"]
    assert read(spark, document_type="main", dates=BOTH, channel=("beta", "nightly")) == ["b", "e"]
    assert read(spark, document_type=["main", "crash"], dates=BOTH, sample=42) == ["a", "b"]
    assert read(spark, document_type="main", dates=BOTH, sample=100) == ["a", "b", "d", "e"]
    assert read(spark, document_type="main", dates=BOTH, sample=99) == ["a", "b"]
    assert read(spark, document_type="main", dates=BOTH, table="live") == ["a"]


def test_files_of_other_dates_types_and_channels_are_not_even_opened(spark: SparkSession, catalog: Catalog):
    table = catalog.load_table(STABLE_PINGS)
    files: dict[str, str] = {}
    for document_id, day, document_type, channel in (
        ("wanted", MONDAY, "main", "release"),
        ("other date", SUNDAY, "main", "release"),
        ("other type", MONDAY, "crash", "release"),
        ("other channel", MONDAY, "main", "beta"),
    ):
        row = {
            "document_id": document_id,
            "submission_date": day,
            "document_type": document_type,
            "app_update_channel": channel,
        }
        table.append(sample_rows(STABLE_PINGS, [row]))
        (files[document_id],) = {task.file.file_path for task in table.scan().plan_files()} - {
            *files.values()
        }
    # What is not there any more cannot be read: whoever looks into one of these files fails.
    for document_id, file in files.items():
        if document_id != "wanted":
            table.io.delete(file)
    assert read(spark, document_type="main", dates=MONDAY, channel="release") == ["wanted"]
    for too_much in (
        {"document_type": "main", "dates": MONDAY},
        {"document_type": ["main", "crash"], "dates": MONDAY, "channel": "release"},
        {"document_type": "main", "dates": BOTH, "channel": "release"},
    ):
        with pytest.raises(FatalError, match="Spark failed"), spark_failures():
            read(spark, **too_much)


def test_only_the_columns_that_are_used_are_read(spark: SparkSession, catalog: Catalog):
    fill(catalog, {})
    chosen = pings(spark, document_type="main", dates=MONDAY)
    assert set(columns_read(chosen.select("os"))) == {"os", "submission_date", "document_type"}
    of_histograms = columns_read(histogram_sums.bucket_sums(chosen, "GC_MS", ["os"]))
    assert set(of_histograms) == {"os", "histograms", "submission_date", "document_type"}
    # The logarithms, which nobody adds up, are half of the stored bytes.
    assert "counts" in of_histograms["histograms"]
    assert "log_sum" not in of_histograms["histograms"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"table": "derived"}, "stable and live"),
        ({"sample": 0}, "1 to 100"),
        ({"sample": 101}, "1 to 100"),
        ({"sample": 0.5}, "whole number"),
        ({"sample": True}, "whole number"),
        ({"document_type": ""}, "document_type=''"),
        ({"document_type": []}, "at least one name"),
        ({"document_type": [1]}, "a name or several"),
        ({"channel": ["beta", ""]}, "channel"),
        ({"dates": "yesterday"}, "'yesterday' is not a date"),
        ({"dates": "2026-11-23..2026-11-22"}, "is before"),
        ({"dates": ""}, "'' is not a date"),
        ({"dates": (MONDAY,)}, "a first and a last"),
        ({"dates": datetime(2026, 11, 23, tzinfo=UTC)}, "is not a date"),
        ({"dates": 20261123}, "is not a date"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(wrong: dict[str, Any], message: str):
    arguments: dict[str, Any] = {"document_type": "main", "dates": MONDAY, **wrong}
    with pytest.raises((ValueError, TypeError), match=message):
        pings(cast("SparkSession", None), **arguments)


def test_histograms_are_added_up_by_process_key_group_and_definition(spark: SparkSession, catalog: Catalog):
    fill(
        catalog,
        {"os": "Linux", "app_build_id": "20261101", "histograms": [histogram("GC_MS", {0: 1, 4: 2})]},
        {
            "os": "Linux",
            "app_build_id": "20261102",
            "histograms": [
                histogram("GC_MS", {4: 5, 10: 1}),
                histogram("GC_MS", {1: 9}, process="content"),
                histogram("GC_MS", {1: 7}, key="addon"),
                histogram("OTHER", {1: 1000}),
            ],
        },
        # The same name with other buckets, and once without any sample at all.
        {"os": "Linux", "histograms": [histogram("GC_MS", {10: 4}, TO_HUNDRED)]},
        {"os": None, "histograms": [histogram("GC_MS", {})]},
        # What only broken clients send: no sum, a count below zero, counts that no 64 bits hold together.
        {"os": "WINNT", "histograms": [histogram("GC_MS", {0: 2**63 - 1, 1: -5}, sum=-1.0)]},
        {"os": "WINNT", "histograms": [histogram("GC_MS", {0: 2**63 - 1})]},
        {"os": "WINNT", "histograms": []},
    )
    chosen = pings(spark, document_type="main", dates=MONDAY)
    linux = {"os": "Linux"}
    assert sum_histograms(chosen, "GC_MS", by=["os"]) == [
        summed((0, 0, 0, 0, 0), sum=0.0, group={"os": None}),
        summed((0, 9, 0, 0, 0), process="content", sum=9.0, group=linux),
        summed((0, 0, 4, 0), TO_HUNDRED, sum=40.0, group=linux),
        summed((1, 0, 7, 0, 1), sum=38.0, pings=2, group=linux),
        summed((0, 7, 0, 0, 0), key="addon", sum=7.0, group=linux),
        summed((2**64 - 2, 0, 0, 0, 0), pings=2, group={"os": "WINNT"}),
    ]
    by_month = chosen.where("os = 'Linux'").withColumn("month", substring("app_build_id", 1, 6))
    (found,) = sum_histograms(by_month, "OTHER", by="month")
    assert (found.group, found.counts) == ({"month": "202611"}, (0, 1000, 0, 0, 0))
    assert sum_histograms(chosen, "NOBODY_HAS_IT") == []


def test_columns_to_group_by_must_be_there_and_few_enough(
    spark: SparkSession, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    fill(catalog, {"os": "Linux", "histograms": [histogram("GC_MS", {0: 1, 4: 2})]})
    chosen = pings(spark, document_type="main", dates=MONDAY)
    with pytest.raises(ValueError, match=r"no columns \['oss'\]"):
        sum_histograms(chosen, "GC_MS", by=["oss"])
    with pytest.raises(ValueError, match=r"rename \['key'\]"):
        sum_histograms(chosen.withColumnRenamed("os", "key"), "GC_MS", by=["key"])
    monkeypatch.setattr(histogram_sums, "COLLECTED_MAX_ROWS", 2)
    assert len(sum_histograms(chosen, "GC_MS")) == 1
    monkeypatch.setattr(histogram_sums, "COLLECTED_MAX_ROWS", 1)
    with pytest.raises(ValueError, match="group by less"):
        sum_histograms(chosen, "GC_MS")


@pytest.mark.parametrize(
    "counts, percent, expected",
    [
        # 4 samples, all in the bucket from 4 to 7: they lie evenly in it.
        ((0, 0, 4, 0, 0), 25, 4.75),
        ((0, 0, 4, 0, 0), 50, 5.5),
        ((0, 0, 4, 0, 0), 99, 6.97),
        # 10 samples: the 5th is the last one in the first bucket, the 6th is the first of the bucket from 7.
        ((5, 0, 0, 5, 0), 50, 1.0),
        ((5, 0, 0, 5, 0), 60, 7.6),
        # The last bucket has no end.
        ((1, 0, 0, 0, 9), 50, 10.0),
        ((1, 0, 0, 0, 9), 5, 0.5),
    ],
)
def test_a_percentile_lies_inside_its_bucket(counts: tuple[int, ...], percent: float, expected: float):
    assert summed(counts).percentile(percent) == pytest.approx(expected)


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5).filter(any), st.data())
def test_percentiles_rise_and_lie_where_samples_are(counts: list[int], data: st.DataObject):
    low, high = sorted(data.draw(st.lists(st.floats(0.1, 99.9), min_size=2, max_size=2)))
    one = summed(tuple(counts))
    values = one.percentile(low), one.percentile(high)
    assert values[0] <= values[1]
    filled = [index for index, count in enumerate(counts) if count]
    ends = (*one.bounds[1:], one.bounds[-1])
    assert one.bounds[filled[0]] <= values[0]
    assert values[1] <= ends[filled[-1]]


def test_there_are_no_percentiles_of_nothing_and_of_answers():
    assert math.isnan(summed((0, 0, 0, 0, 0)).percentile(50))
    for percent in (0, 100, -1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 100"):
            summed((1, 0, 0, 0, 0)).percentile(percent)
    with pytest.raises(ValueError, match="boolean histogram"):
        summed((1, 1, 0), YES_OR_NO).percentile(50)


def test_sums_are_added_up_only_when_their_buckets_mean_the_same():
    parent = summed((1, 0, 2, 0, 0), sum=8.0, group={"os": "Linux", "day": 1})
    content = summed((0, 3, 0, 0, 0), process="content", sum=3.0, pings=2, group={"os": "Linux", "day": 2})
    both = add_up([parent, content])
    assert both == summed((1, 3, 2, 0, 0), process="parent+content", sum=11.0, pings=3, group={"os": "Linux"})
    assert add_up([both, summed((1, 0, 0, 0, 0))]).sum is None
    other_buckets = summed((1, 0, 0, 0), TO_HUNDRED)
    with pytest.raises(ValueError, match=r"5 linear buckets from 1 to 10, .* 4 exponential buckets"):
        add_up([parent, other_buckets])
    with pytest.raises(ValueError, match="OTHER"):
        add_up([parent, summed((1, 0, 0, 0, 0), name="OTHER")])
    with pytest.raises(ValueError, match="no histograms"):
        add_up([])
    with pytest.raises(ValueError, match="cannot be added up"):
        plot_histograms([parent, other_buckets], unit="ms")


def test_sums_become_a_pandas_frame_with_a_row_for_each_bucket():
    one = summed((1, 0, 3, 0, 0), key="addon", pings=2, group={"os": "Linux"})
    frame = histograms_to_pandas([one, summed((0, 0, 0, 0), TO_HUNDRED, group={"os": "WINNT"})])
    assert list(frame.columns) == [
        *("os", "name", "process", "key", "histogram_type", "bucket_count", "range_low", "range_high"),
        *("pings", "bucket_from", "bucket_to", "samples", "share"),
    ]
    assert list(frame.iloc[2]) == [
        "Linux",
        "GC_MS",
        "parent",
        "addon",
        "linear",
        5,
        1,
        10,
        2,
        4,
        7.0,
        3,
        0.75,
    ]
    assert frame["bucket_to"].iloc[4] == math.inf
    assert len(frame) == 5 + 4
    assert frame["share"].iloc[5:].isna().all()


def test_a_plot_says_what_it_shows(tmp_path: Path):
    linux = summed((10, 30, 60, 0), TO_HUNDRED, pings=7, group={"os": "Linux"})
    windows = summed((0, 1, 3, 0), TO_HUNDRED, pings=2, group={"os": "WINNT"})
    empty = summed((0, 0, 0, 0), TO_HUNDRED, group={"os": "Darwin"})
    figure = plot_histograms([linux, windows, empty], unit="ms")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "GC_MS (ms)"
    assert axes.get_ylabel() == "samples in the bucket (% of all)"
    assert axes.get_title() == "GC_MS"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Linux, parent (100 samples of 7 pings)",
        "WINNT, parent (4 samples of 2 pings)",
    ]
    steps = [patch.get_data() for patch in axes.patches]  # type: ignore[attr-defined]
    assert [list(step.values) for step in steps] == [[10.0, 30.0, 60.0], [0.0, 25.0, 75.0]]
    assert list(steps[0].edges) == [0, 1, 10, 100]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_answers_are_drawn_side_by_side_and_the_last_bucket_has_a_width():
    (answers,) = plot_histograms([summed((3, 1, 0), YES_OR_NO)], unit="answer").axes
    assert [label.get_text() for label in answers.get_xticklabels()] == ["0", "1"]
    (linear,) = plot_histograms([summed((1, 0, 0, 0, 1))], unit="ms").axes
    assert list(linear.patches[0].get_data().edges) == [0, 1, 4, 7, 10, 13]  # type: ignore[attr-defined]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        plot_histograms([summed((0, 0, 0, 0, 0))], unit="ms")
    with pytest.raises(ValueError, match="distinguished"):
        plot_histograms([summed((1, 0, 0, 0, 0))] * (PLOTTED_MAX_COUNT + 1), unit="ms")
