"""What the page is made of: parts whose metrics exist, texts of metrics, values as people read them."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ingest_server.counters import shared_counters
from ingest_server.health import NodeMetrics
from telemetry_lake.monitoring.exporter_metrics import WORKS
from telemetry_lake.monitoring.metric import Kind, Metric, Origin, Unit
from telemetry_lake.monitoring.metrics import BY_NAME, METRICS
from telemetry_lake.monitoring.volumes import VolumeRow, volumes_of
from telemetry_lake.settings import IngestSettings
from telemetry_lake.tables.definitions import table_names
from web.operations.charts import SERIES_SHOWN, Span, spark, volume_charts
from web.operations.formats import text_of
from web.operations.parts import ALL_PARTS, PARTS, Figure, How, Part, part_of
from web.operations.picture import PLANS, TEXT_MAX_CHARACTERS
from web.operations.prometheus import Point
from web.operations.reading import Samples, Unreadable
from web.operations.shown import value_of
from web.operations.watch import Known

NOW = datetime(2026, 11, 23, 9, 40, tzinfo=UTC)
every_part = pytest.mark.parametrize("part", ALL_PARTS, ids=[part.name for part in ALL_PARTS])
SAMPLES = {sample for metric in METRICS for sample in metric.samples}
NODE = "telemetry_lake_ingest_"


@every_part
def test_every_figure_is_of_a_metric_that_exists_with_its_labels(part: Part) -> None:
    for figure in part.figures:
        assert figure.metric in SAMPLES
        metric = BY_NAME[figure.base]
        for labels in figure.alternatives:
            assert set(labels) <= set(metric.label_names)
            for label in metric.labels:
                assert not label.values or labels.get(label.name, label.values[0]) in label.values
        assert figure.how is not How.RATE or metric.kind is not Kind.GAUGE
    assert set(re.findall(r"telemetry_lake_\w+", part.history)) <= SAMPLES


def test_every_table_and_every_work_is_of_one_part() -> None:
    works = [work for part in ALL_PARTS for work in part.works]
    assert sorted(works) == sorted(WORKS)
    tables = [table for part in ALL_PARTS for table in part.tables]
    assert len(set(tables)) == len(tables)
    assert set(table_names()) <= set(tables)


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_an_alarm_about_any_metric_is_about_a_part(metric: Metric) -> None:
    name = part_of({}, ("rate", metric.samples[0]))
    assert name in {part.name for part in ALL_PARTS}
    if metric.origin is Origin.NODE:
        assert name in ("edge", "spool")


@pytest.mark.parametrize(
    "labels,metrics,part",
    [
        ({"table": "stable.pings"}, ("telemetry_lake_table_commit_age_seconds",), "stable"),
        ({"work": "dashboard_cubes"}, ("telemetry_lake_work_late_seconds",), "cubes"),
        ({"job": "ingest"}, ("up", "job"), "edge"),
        ({"job": "exporter"}, ("up", "job"), "watchers"),
        ({"job": "ingest"}, (f"{NODE}spool_free_bytes",), "spool"),
        ({"job": "exporter"}, ("telemetry_lake_queue_messages",), "queue"),
        ({}, ("max", "telemetry_lake_live_newest_row_age_seconds", f"{NODE}requests_total"), "live"),
        ({}, (), "watchers"),
    ],
)
def test_an_alarm_is_about_what_its_labels_say_else_its_metrics(
    labels: dict[str, str], metrics: tuple[str, ...], part: str
) -> None:
    assert part_of(labels, metrics) == part


@pytest.mark.parametrize("plan", PLANS, ids=[plan.name for plan in PLANS])
def test_every_part_has_a_place_of_its_own_and_arrows_that_join_them(plan) -> None:
    assert set(plan.places) == {part.name for part in PARTS}
    assert len(set(plan.places.values())) == len(PARTS)
    assert {name for arrow in plan.arrows for name in arrow[:2]} == set(plan.places)
    assert {(source, target) for source, target, _ in plan.arrows} == {
        (source, target) for source, target, _ in PLANS[0].arrows
    }


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_the_figures_in_the_picture_have_room_for_their_titles(part: Part) -> None:
    assert all(len(figure.title) <= TEXT_MAX_CHARACTERS - len(": 9,999") for figure in part.figures[:2])


TEXT = """# HELP telemetry_lake_batches_open Batches.
# TYPE telemetry_lake_batches_open gauge
telemetry_lake_batches_open{hostile="a\\"b\\\\c\\nd<script>"} 3
telemetry_lake_batches_open NaN
# TYPE telemetry_lake_rows_total counter
telemetry_lake_rows_total{namespace="a"} 10
telemetry_lake_rows_total{namespace="b"} 5
"""


def test_the_text_of_metrics_is_read_with_what_is_escaped_in_it() -> None:
    samples = Samples.of_text(TEXT)
    [sample] = samples.of("telemetry_lake_batches_open")
    assert sample.labels == {"hostile": 'a"b\\c\nd<script>'}
    assert sample.value == 3


def test_what_a_node_shows_gives_every_figure_of_edge_and_spool() -> None:
    counters = shared_counters(1)
    for service in ("s3", "sqs"):
        counters.add(f"{service}_looks")
    registry = CollectorRegistry()
    registry.register(NodeMetrics(counters, IngestSettings()))
    nothing: Known[Samples] = Known()
    text = generate_latest(registry).decode()
    known = nothing.read(Samples.of_text(text), NOW).read(Samples.of_text(text), NOW + timedelta(seconds=1))
    figures = [figure for part in PARTS for figure in part.figures if figure.is_of_nodes]
    assert {
        figure.title: value_of(figure, known) for figure in figures if value_of(figure, known) is None
    } == {}
    assert len(figures) == len(PARTS[0].figures) + len(PARTS[1].figures)


@pytest.mark.parametrize("text", ["", "<html>", "a{", "up 1\n", 'telemetry_lake_x{a="'])
def test_other_texts_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(Unreadable, match=r"the answer (is not the text of metrics|has no metric)"):
        Samples.of_text(text)


def test_a_rate_is_between_two_readings_and_survives_a_start_of_its_program() -> None:
    def reading(a: float, b: float) -> Samples:
        series = 'telemetry_lake_rows_total{{namespace="{}"}} {}\n'
        return Samples.of_text(series.format("a", a) + series.format("b", b))

    rows = Figure("rows", "telemetry_lake_rows_total", How.RATE)
    nothing: Known[Samples] = Known()
    first = nothing.read(reading(10, 5), NOW)
    assert value_of(rows, first) is None
    second = first.read(reading(20, 5), NOW + timedelta(seconds=10))
    assert value_of(rows, second) == 1
    third = second.read(reading(4, 5), NOW + timedelta(seconds=20))
    assert value_of(rows, third) == 0.4
    away = third.failed("gone", NOW + timedelta(seconds=30)).failed("gone", NOW + timedelta(seconds=40))
    assert (away.away_since, away.value is third.value) == (NOW + timedelta(seconds=30), True)


def test_two_nodes_are_added_up_each_from_its_own_counter() -> None:
    def both(a: float, b: float) -> Samples:
        name = f"{NODE}shipped_pings_total"
        return Samples.together(
            {"1": Samples.of_text(f"{name} {a}\n"), "2": Samples.of_text(f"{name} {b}\n")}
        )

    assert both(11, 103).rises_since(both(10, 100), f"{NODE}shipped_pings_total", {}) == 4


@pytest.mark.parametrize(
    "value,unit,text",
    [
        (None, Unit.COUNT, "\N{EN DASH}"),
        (0, Unit.COUNT, "0"),
        (0.25, Unit.COUNT, "0.2"),
        (999_999, Unit.COUNT, "999,999"),
        (1_000_000, Unit.COUNT, "1.00 M"),
        (2.5e9, Unit.COUNT, "2.50 G"),
        (1_023, Unit.BYTES, "1,023 B"),
        (1_024, Unit.BYTES, "1.0 KiB"),
        (59.9, Unit.SECONDS, "59 s"),
        (60, Unit.SECONDS, "1 min 0 s"),
        (7_260, Unit.SECONDS, "2 h 1 min"),
        (3 * 86_400, Unit.SECONDS, "3 days 0 h"),
        (12.5, Unit.DOLLARS, "$12.50"),
        (1, Unit.YES_OR_NO, "yes"),
    ],
)
def test_values_are_shown_in_their_unit(value: float | None, unit: Unit, text: str) -> None:
    assert text_of(value, unit) == text


def test_bars_are_as_high_as_their_pings_and_small_channels_are_added_up() -> None:
    hour = NOW.replace(minute=0)
    rows = [VolumeRow(hour, f"c{n:02}", None, 100 - n, 1) for n in range(SERIES_SHOWN + 2)]
    rows += [VolumeRow(hour - timedelta(hours=2), "c00", None, 30, 1)]
    chart, errors = volume_charts(volumes_of(rows, [], NOW), Span.DAY)
    assert [line.name for line in chart.lines][-1] == "others"
    assert len(chart.lines) == SERIES_SHOWN
    assert chart.total == sum(row.pings for row in rows)
    assert errors.total == 0
    first, last = chart.bars[0], chart.bars[1]
    assert first.height / last.height == pytest.approx(0.3, abs=0.01)
    assert (first.is_last, last.is_last) == (False, True)
    assert chart.rows[0][0] == "2026-11-23 09:00"
    assert chart.rows[0][1][0] == 100
    year, _ = volume_charts(volumes_of([], [VolumeRow(NOW, "a", None, 5, 1)], NOW), Span.YEAR)
    assert (year.total, len(year.rows)) == (5, 365)


def test_a_line_needs_two_points_and_goes_from_least_to_greatest() -> None:
    assert spark([Point(NOW, 1)]) is None
    line = spark([Point(NOW, 1), Point(NOW + timedelta(hours=1), 3)])
    assert line is not None
    assert (line.path, line.least, line.greatest) == ("M0.0 42.0L240.0 2.0", 1, 3)
    flat = spark([Point(NOW, 1), Point(NOW + timedelta(hours=1), 1)])
    assert flat is not None
