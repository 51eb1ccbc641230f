"""The engine gives with Spark what the reference gives without, whatever the script does."""

import csv
import io
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from jobs.mapreduce import Run, RunSummary, run_script
from lake_testing import mapreduce_reference
from lake_testing.compact_documents import value_of
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY
from lake_testing.script_plans import PLANNED, PLANS, REDUCE
from telemetry_lake.columns import DIMENSIONS
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.mapreduce.form import Table
from telemetry_lake.mapreduce.reading import units
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore

Pings = list[dict[str, Any]]
COUNT = DAYS * PINGS_PER_DAY


class Engine:
    """Runs scripts over all pings with Spark, and with the mapreduce_reference."""

    def __init__(self, spark: SparkSession, settings: Settings, pings: Pings, folder: Path) -> None:
        self.spark, self.settings, self.pings, self.folder = spark, settings, pings, folder
        self.output = folder / "output"
        self.summary: RunSummary | None = None

    def script(self, text: str) -> Path:
        file = self.folder / "script.py"
        file.write_text(textwrap.dedent(text))
        return file

    def run(self, text: str, **changes: Any) -> str:
        """The output of a script; changes of the `Run` are given by name."""
        run = Run(
            load_script(self.script(text)),
            Table.STABLE,
            RowFilter(),
            str(self.output),
            OutputFormat.TEXT,
            None,
            0,
        )
        run = replace(run, **changes)
        self.summary = run_script(self.spark, self.settings, run)
        is_text = self.output.is_file() and run.output_format is not OutputFormat.PARQUET
        return self.output.read_text() if is_text else ""

    def expected(self, text: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> str:
        """What the reference gives for the same script."""
        rows = [(row["document_id"], dimensions_of(row), value_of(row)) for row in self.pings if wanted(row)]
        return mapreduce_reference.run(load_script(self.script(text)), rows)

    def assert_as_expected(self, text: str, **changes: Any) -> None:
        assert self.run(text, **changes) == self.expected(text) != ""

    def refused(self, text: str, **changes: Any) -> str:
        """Why a run fails; it must not write anything."""
        before = self.output.read_bytes() if self.output.exists() else None
        with pytest.raises(FatalError) as caught:
            self.run(text, **changes)
        assert (self.output.read_bytes() if self.output.exists() else None) == before
        assert {file.name for file in self.folder.iterdir()} <= {"script.py", "output", "plan.py"}
        return str(caught.value)


@pytest.fixture
def engine(spark: SparkSession, settings: Settings, pings: Pings, tmp_path: Path) -> Engine:
    return Engine(spark, settings, pings, tmp_path)


@pytest.fixture(autouse=True)
def _several_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 60_000)


def dimensions_of(row: dict[str, Any]) -> list[str]:
    return [*(row[name] for name in DIMENSIONS[:-1]), row["submission_date"].strftime("%Y%m%d")]


@given(PLANS, st.sampled_from([None, 1, 3]))
@hypothesis_settings(
    max_examples=2, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)
def test_any_keys_and_values(
    engine: Engine, plan: list[tuple[int, Any, Any]], num_reducers: int | None
) -> None:
    planned: dict[str, list[Any]] = {}
    for number, key, value in plan:
        planned.setdefault(engine.pings[number]["document_id"], []).append((key, value))
    (engine.folder / "plan.py").write_text(f"import pickle\nPLAN = pickle.loads({pickle.dumps(planned)!r})\n")
    engine.assert_as_expected(PLANNED + REDUCE, num_reducers=num_reducers)


def test_map_only_keeps_the_order_of_the_pings(engine: Engine) -> None:
    engine.assert_as_expected(
        """
        def map(key, dimensions, value, context):
            context.write(key, dimensions)
            context.write(len(value), value)
        """
    )
    assert engine.summary is not None
    assert (engine.summary.records, engine.summary.written, engine.summary.filtered) == (COUNT, 2 * COUNT, 0)


COUNT_BY_CHANNEL = """
    import json

    def map(key, dimensions, value, context):
        document = json.loads(value)
        histograms = document.get("payload", {}).get("histograms", {})
        context.write((dimensions[2], dimensions[5]), sum(histograms.get("A_MS", [0])[:5]))
        context.write(document.get("clientId"), 1)

    def setup_reduce(context):
        context.field_separator = " = "
        context.record_separator = ";\\n"

    def reduce(key, values, context):
        context.write(key, sum(values))
        context.writecsv([key, "with, comma", 'and "quotes"', 1.5, None])
        context.writeline(len(values))
"""


def test_context_of_reduce(engine: Engine) -> None:
    engine.assert_as_expected(COUNT_BY_CHANNEL)


def test_combine_sees_values_first(engine: Engine) -> None:
    script = """
        def map(key, dimensions, value, context):
            for part in range(50):
                context.write((dimensions[2], part % 3), part)

        def reduce(key, values, context):
            context.write(key, sum(values))
    """
    combined = engine.run(script + "\n        combine = reduce")
    assert combined == engine.expected(script)
    # One value of each key and unit, not one for each call.
    counted = script.replace("sum(values)", "len(values)").replace("reduce", "combine", 1)
    counts = engine.run(
        counted + "\n        def reduce(key, values, context): context.write('parts', len(values))"
    )
    assert sum(int(line.split("\t")[1]) for line in counts.splitlines()) < COUNT


def test_fields_are_columns(engine: Engine) -> None:
    script = """
        fields = ("os", "sample_id", "headers", "submission_date", "histograms")

        def map(key, dimensions, value, context):
            assert list(value) == list(fields)
            context.write(key, (value["os"], value["sample_id"], value["submission_date"].isoformat(),
                                len(value["histograms"]), type(value["headers"]).__name__))
    """
    lines = engine.run(script).splitlines()
    assert lines == [
        f"{row['document_id']}\t"
        f"{(row['os'], row['sample_id'], row['submission_date'].isoformat(), len(row['histograms']), 'dict')}"
        for row in engine.pings
    ]
    said = engine.refused("fields = ('os', 'no_such')\ndef map(k, d, v, cx): pass")
    assert "script.py: `fields` names 'no_such'; the columns of stable.pings are document_id" in said


def test_csv_and_parquet_spread_tuples_over_fields(engine: Engine) -> None:
    script = """
        def map(key, dimensions, value, context):
            context.write((dimensions[2], dimensions[5]), 1)

        def reduce(key, values, context):
            context.write(key, [len(values), len(values) / 2, None if key[0] == "beta" else b"x"])
    """
    text = engine.run(script, output_format=OutputFormat.CSV)
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)
    assert sum(int(row[2]) for row in rows) == COUNT
    engine.run(script, output_format=OutputFormat.PARQUET)
    table = pq.read_table(engine.output)
    assert {field.name: str(field.type) for field in table.schema} == {
        "key_1": "string",
        "key_2": "string",
        "value_1": "int64",
        "value_2": "double",
        "value_3": "binary",
    }
    assert [[row["key_1"], row["key_2"], str(row["value_1"])] for row in table.to_pylist()] == [
        row[:3] for row in rows
    ]


def test_parquet_of_several_types_is_text(engine: Engine) -> None:
    script = """
        def map(key, dimensions, value, context):
            context.write(dimensions[2], 1 if dimensions[2] == "beta" else "one")
            context.writeline({"a": 2 ** 70})
    """
    engine.run(script, output_format=OutputFormat.PARQUET)
    table = pq.read_table(engine.output)
    assert table.schema.names == ["key", "value"]
    assert set(table["value"].to_pylist()) == {"1", "one", str({"a": 2**70})}


def test_filters_dates_and_samples_leave_rows_and_files_out(engine: Engine, catalog: Catalog) -> None:
    script = "def map(k, d, v, cx): cx.write(k, d)"
    first = date(2026, 11, 23)
    rules = (
        FilterRule(field_name="document_type", allowed_values="main"),
        FilterRule(field_name="appUpdateChannel", allowed_values=("beta", "nightly")),
        FilterRule(field_name="appVersion", allowed_values={"min": "13", "max": "23.5"}),
        FilterRule(field_name="reason", allowed_values="*"),
    )
    row_filter = RowFilter(rules, date(2026, 11, 24), date(2026, 11, 24), 80)

    def wanted(row: dict[str, Any]) -> bool:
        return (
            row["document_type"] == "main"
            and row["app_update_channel"] in ("beta", "nightly")
            and row["app_version"] in ("130.0", "23.0")
            and row["submission_date"] == date(2026, 11, 24)
            and row["sample_id"] is not None
            and row["sample_id"] < 80
        )

    assert engine.run(script, row_filter=row_filter) == engine.expected(script, wanted) != ""
    assert engine.summary is not None
    assert engine.summary.files == 1
    assert engine.summary.records + engine.summary.filtered == PINGS_PER_DAY / 2

    engine.run(script, row_filter=RowFilter(first_date=first, last_date=first))
    assert (engine.summary.files, engine.summary.records) == (3, PINGS_PER_DAY)
    # Files that the metadata rules out by their least and greatest values are not opened either.
    nothing = FilterRule(field_name="app_build_id", allowed_values="19990101")
    assert engine.run(script, row_filter=RowFilter((nothing,))) == ""
    assert (engine.summary.files, engine.summary.records, engine.summary.filtered) == (0, 0, 0)


def test_the_live_table_and_an_empty_table(engine: Engine) -> None:
    assert engine.run("def map(k, d, v, cx): cx.write(k, 1)", table=Table.LIVE) == ""
    assert engine.run(PLANNED.replace("plan", "json") + REDUCE, table=Table.LIVE) == ""


FAILING = """
    import json

    def map(key, dimensions, value, context):
        context.write("seen", 1)
        if dimensions[1] == "org-app":
            json.loads(value)["no such"]

    def reduce(key, values, context):
        context.write(key, sum(values))
"""


def test_failures_are_counted_and_described(engine: Engine) -> None:
    failing = [row for row in engine.pings if row["app_name"] == "org-app"]
    said = engine.refused(FAILING, max_failures=len(failing) - 1).splitlines()
    assert said[0] == (
        f"{len(failing)} calls of the script failed, more than --max-failures allows. Nothing was written. "
        "The first ones:"
    )
    assert "script.py:7 (json.loads(value)[\"no such\"]): KeyError: 'no such': document " in said[1]
    assert f"document {failing[0]['document_id']} (s3://" in said[1]
    assert ".parquet, row 0 of row group 0)" in said[1]
    assert engine.run(FAILING, max_failures=len(failing)) == f"seen\t{COUNT}\n"
    assert engine.summary is not None
    assert engine.summary.failures == len(failing)
    lines = engine.summary.lines(1.0)
    assert lines[2] == f"failures  {len(failing)}"
    assert f"  … and {len(failing) - 5} more" in lines


NOTHING_REDUCED = "def map(k, d, v, cx): cx.write('all', 1)\ndef reduce(k, v, cx): pass\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "def map(k, d, v, cx): raise SystemExit(2)",
            "script.py:1 (def map(k, d, v, cx): raise SystemExit(2))",
        ),
        ("def map(k, d, v, cx): cx.write(k, lambda: 1)", "pickle"),
        ("def map(k, d, v, cx): cx.write((x for x in 'abc'), 1)\ndef reduce(k, v, cx): pass", "generator"),
        (
            "def map(k, d, v, cx): cx.write('all', 1)\ndef reduce(k, v, cx):\n    len(3)",
            "script.py:3 (len(3)): TypeError: object of type 'int' has no len(): reduce of the key 'all'",
        ),
        (
            NOTHING_REDUCED + "def combine(k, v, cx):\n    1 / 0",
            "script.py:4 (1 / 0): ZeroDivisionError: division by zero: combine of the key 'all'",
        ),
        (
            NOTHING_REDUCED + "def setup_reduce(cx):\n    cx.nothing()",
            "script.py:4 (cx.nothing()): AttributeError",
        ),
    ],
)
def test_what_goes_wrong_in_a_script_names_its_line(engine: Engine, text: str, said: str) -> None:
    if "lambda" in text:
        text += "\ndef reduce(k, v, cx): pass"
    message = engine.refused(text)
    assert said in message
    assert "Traceback" not in message
    assert "org.apache" not in message


def test_a_key_whose_reduce_fails_writes_nothing(engine: Engine) -> None:
    script = """
        def map(key, dimensions, value, context):
            context.write(dimensions[2], 1)

        def reduce(key, values, context):
            context.writeline(key)
            if key == "beta":
                raise ValueError("no beta")
    """
    assert engine.run(script, max_failures=1) == "nightly\nrelease\n"
    assert "reduce of the key 'beta'" in engine.refused(script)


def test_output_in_s3(engine: Engine) -> None:
    bucket = engine.settings.s3.lake_bucket
    engine.run(COUNT_BY_CHANNEL, output=f"s3://{bucket}/results/by_channel.txt")
    written = ObjectStore(engine.settings.s3).get(bucket, "results/by_channel.txt").decode()
    assert written == engine.expected(COUNT_BY_CHANNEL)
    engine.refused(FAILING, output=f"s3://{bucket}/results/failed.txt")
    assert ObjectStore(engine.settings.s3).get_or_none(bucket, "results/failed.txt") is None
    assert "bucket of the output" in engine.refused(FAILING, output="s3://no-such-bucket/a")


def test_a_file_that_is_gone_is_told_in_one_line(engine: Engine, catalog: Catalog) -> None:
    live = catalog.load_table("live.pings")
    live.append(live.schema().as_arrow().empty_table())
    copied = catalog.load_table("stable.pings").scan(limit=5).to_arrow()
    live.append(copied)
    (location, *_) = (file["file_path"] for file in live.inspect.files().to_pylist())
    live.io.delete(location)
    try:
        with pytest.raises(RetriableError) as caught:
            engine.run("def map(k, d, v, cx): cx.write(k, v)", table=Table.LIVE)
    finally:
        live.delete()
    assert "a worker failed: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
