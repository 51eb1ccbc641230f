"""Map and reduce side without Spark between them: limits of memory, and what is read of a file."""

import pickle
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pyiceberg.table import Table

from lake_testing import mapreduce_reference
from lake_testing.mapreduce_phases import local_table, mapped, rows_of, run, task_of
from lake_testing.script_plans import PLANNED, PLANS, REDUCE
from telemetry_lake.mapreduce import pairs, records, reduce_phase
from telemetry_lake.mapreduce.reading import units
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import FilePart, ReadColumns, plan_units, read_unit
from telemetry_lake.mapreduce.reduce_phase import ManyValues
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.tables.definitions import table_definition

STABLE_PINGS = "stable.pings"
MANY = """
import json

def map(key, dimensions, value, context):
    for number in range(40):
        context.write(number % 7, (key, number))
        context.write(dimensions[2], [number, {"x": key}])
        context.write(("both", number % 2), json.loads(value).get("version"))

def combine(key, values, context):
    for value in values:
        context.write(key, value)

def reduce(key, values, context):
    first = list(values)
    assert len(values) == len(first) and list(values) == first and values[-1] == first[-1]
    assert [values[number] for number in range(0, len(values), 50)] == first[::50] == values[::50]
    for value in values:
        context.write(key, value)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return local_table(tmp_path_factory.mktemp("lake"))


def watched_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return a list that gets the columns of every row group that is read of a Parquet file from now on."""
    reads: list[tuple[str, ...]] = []

    class Watched(pq.ParquetFile):
        def iter_batches(
            self,
            batch_size: int = units.BATCH_ROWS,
            row_groups: list[int] | None = None,
            columns: list[str] | None = None,
            use_threads: bool = True,
            use_pandas_metadata: bool = False,
        ) -> Iterator[pa.RecordBatch]:
            assert row_groups is not None
            assert columns is not None
            reads.extend(tuple(columns) for _ in row_groups)
            return super().iter_batches(batch_size, row_groups, columns, use_threads, use_pandas_metadata)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return reads


@pytest.mark.parametrize("combines", [True, False])
def test_limits_of_memory_change_nothing(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, combines: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(MANY if combines else MANY.replace("def combine", "def unused"))
    expected = mapreduce_reference.run(load_script(script), rows_of(table))
    assert run(table, script)[0] == expected
    for module, name, limit in (
        (pairs, "PENDING_MAX_VALUES", 9),
        (pairs, "VALUES_PER_ROW", 2),
        (pairs, "SENT_ROWS", 3),
        (reduce_phase, "LIST_MAX_VALUES", 5),
        (records, "PAYLOAD_BYTES", 64),
        (records, "BLOCKS_IN_MEMORY_BYTES", 256),
        (units, "DOCUMENT_BATCH_ROWS", 3),
    ):
        monkeypatch.setattr(module, name, limit)
    assert run(table, script)[0] == expected
    monkeypatch.setattr(pairs, "PENDING_MAX_BYTES", 40)
    monkeypatch.setattr(reduce_phase, "LIST_MAX_BYTES", 40)
    assert run(table, script)[0] == expected


def test_pending_values_are_sent_before_there_are_too_many(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "def map(k, d, v, cx):\n    for n in range(10): cx.write((k, n), n)\n"
        "def reduce(k, v, cx): cx.write(k, sum(v))\ncombine = reduce\n"
    )
    monkeypatch.setattr(pairs, "PENDING_MAX_VALUES", 50)
    sent, summed = mapped(task_of(table, script))
    # Each key has one value and thus one row: a batch is what was pending when it was sent.
    assert 0 < max(batch.num_rows for batch in sent) <= 51
    assert sum(batch.num_rows for batch in sent) == 10 * summed.records
    assert run(table, script)[0] == mapreduce_reference.run(load_script(script), rows_of(table))


@pytest.mark.parametrize("combine", ["", "combine = reduce"])
def test_pending_values_are_sent_before_they_are_too_large(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, combine: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "def map(k, d, v, cx):\n    for n in range(10): cx.write((k, n), 'x' * 1000)\n"
        f"def reduce(k, v, cx): cx.write(k, len(v))\n{combine}\n"
    )
    monkeypatch.setattr(pairs, "PENDING_MAX_BYTES", 20_000)
    sent, summed = mapped(task_of(table, script))
    assert summed.records > 10
    # Also where `combine` has nothing to do, as every key has one value.
    assert max(batch.num_rows for batch in sent) <= 21


def test_row_groups_that_cannot_have_wanted_rows_are_not_read(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("def map(k, d, v, cx): cx.write(k, v)\n")
    reads = watched_reads(monkeypatch)
    one = RowFilter((FilterRule(field_name="app_update_channel", allowed_values=("nightly",)),))
    output, summed = run(table, script, one)
    assert output == "".join(f"{key}\t{value}\n" for key, d, value in rows_of(table) if d[2] == "nightly")
    groups = sum(
        pq.ParquetFile(task.file.file_path.removeprefix("file://")).num_row_groups
        for task in table.scan().plan_files()
    )
    # Histograms are read behind the other columns of the same row groups.
    assert 0 < sum(columns != ("histograms",) for columns in reads) < groups
    assert summed.records + summed.filtered == table.scan().count()


def test_units_cover_every_row_once_however_files_are_cut(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("def map(k, d, v, cx): cx.write(k, d)\n")
    whole, _ = run(table, script)
    for unit_bytes in (1_000, 7_777, 10**9):
        monkeypatch.setattr(units, "UNIT_BYTES", unit_bytes)
        assert run(table, script)[0] == whole
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    monkeypatch.setattr(units, "UNITS_MAX_COUNT", 4)
    assert len(plan_units(table, RowFilter()).units) <= 4 + 3


def test_histograms_are_not_read_unless_they_are_looked_at(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = watched_reads(monkeypatch)
    script = tmp_path / "script.py"
    script.write_text(
        "import json\ndef map(k, d, v, cx): cx.write(json.loads(v)['environment']['system'], 1)\n"
    )
    run(table, script)
    assert reads
    assert not any("histograms" in columns for columns in reads)
    script.write_text(
        "import json\ndef map(k, d, v, cx): cx.write(json.loads(v)['payload']['histograms']['B'], 1)\n"
    )
    run(table, script)
    assert ("histograms",) in reads


def test_columns_that_are_newer_than_a_file_are_nulls(tmp_path: Path) -> None:
    file = tmp_path / "old.parquet"
    pq.write_table(pa.table({"os": ["Linux", "Mac"]}), file)
    types = table_definition("stable.pings").arrow_schema(["os", "country", "sample_id", "histograms"])
    part = FilePart(file.as_uri(), 0, file.stat().st_size, 2)
    ((batch, left_out),) = read_unit([part], ReadColumns(types, documents=True), RowFilter(), {})
    assert left_out == 0
    assert batch.rows.to_pylist() == [
        {"os": name, "country": None, "sample_id": None, "histograms": None} for name in ("Linux", "Mac")
    ]


def test_histograms_are_the_same_as_in_the_table(table: Table) -> None:
    rows = table.scan(selected_fields=("document_id", "histograms")).to_arrow().to_pylist()
    expected = {row["document_id"]: row["histograms"] for row in rows}
    types = table_definition("stable.pings").arrow_schema(["document_id"])
    found: dict[str, Any] = {}
    for unit in plan_units(table, RowFilter()).units:
        wanted = ReadColumns(types, documents=True)
        for batch, _ in read_unit(unit, wanted, RowFilter(), dict(table.io.properties)):
            found.update(
                zip(map(str, batch.rows.column(0).to_pylist()), batch.histograms().to_pylist(), strict=True)
            )
    assert found == expected
    assert any(expected.values())


def test_only_the_columns_that_are_looked_at_are_read(table: Table, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    for text, names in (
        ("def map(k, d, v, cx): cx.write(1, 1)", []),
        ("def map(k, d, v, cx): cx.write(k, 1)", ["document_id"]),
        ("fields = ('os', 'country')\ndef map(k, d, v, cx): cx.write(v['os'], 1)", ["os", "country"]),
    ):
        script.write_text(text)
        task = task_of(table, script)
        assert task.read.types.names == names
        assert mapped(task)[1].records == table.scan().count()


def test_a_unit_gives_up_after_too_many_failures(table: Table, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def map(k, d, v, cx): 1 / 0\n")
    for allowed in (0, 3, 1_000):
        task = replace(task_of(table, script), max_failures=allowed)
        failures = mapped(task)[1].failures
        assert failures == min(table.scan().count(), allowed + 1)


def test_many_values_are_a_sequence() -> None:
    values = ManyValues()
    for part in ([1, 2, 3], [4], [5, 6]):
        values.append_part(pickle.dumps((b"", part)), len(part))
    assert list(values) == list(values) == [1, 2, 3, 4, 5, 6]
    assert (len(values), sum(values), values[3], values[-1], values[1:4], 5 in values) == (
        6,
        21,
        4,
        6,
        [2, 3, 4],
        True,
    )
    assert [values[number] for number in (5, 0, 4, 2)] == [6, 1, 5, 3]
    for outside in (6, -7):
        with pytest.raises(IndexError):
            values[outside]
    values.close()


def test_an_empty_filter_wants_everything() -> None:
    assert RowFilter().columns == ()
    assert RowFilter(first_date=date(2026, 1, 1)).columns == ()


@given(PLANS)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_any_keys_and_values(table: Table, tmp_path: Path, plan: list[tuple[int, Any, Any]]) -> None:
    rows = list(rows_of(table))
    planned: dict[str, list[Any]] = {}
    for number, key, value in plan:
        planned.setdefault(rows[number % len(rows)][0], []).append((key, value))
    (tmp_path / "plan.py").write_text(f"import pickle\nPLAN = pickle.loads({pickle.dumps(planned)!r})\n")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PLANNED + REDUCE))
    assert run(table, script)[0] == mapreduce_reference.run(load_script(script), rows)
