"""Run a map-reduce script over the pings of a table: the command for analysts. See docs/mapreduce.md."""

import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

if not __package__:  # started as a file: its folder is on the path, the project's is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.command_line import chosen_dates, reported_failures
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.mapreduce.fetch import fetched
from telemetry_lake.mapreduce.map_phase import FAILURES_SHOWN_MAX, MapTask, UnitSummary, columns_read
from telemetry_lake.mapreduce.output import new_output, write_parquet, write_text
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.reduce_phase import ReduceTask
from telemetry_lake.mapreduce.row_filter import SAMPLE_PERCENT_MAX, FilterRule, RowFilter, load_filter
from telemetry_lake.mapreduce.script import Script, described, load_script
from telemetry_lake.mapreduce.units import Plan, plan_units
from telemetry_lake.settings import MIB, PROJECT_ROOT, Settings, load_settings
from telemetry_lake.tables import table_definition

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

BYTES_PER_REDUCER: Final = 64 * MIB
REDUCERS_MAX_COUNT: Final = 1_000
ARROW_BATCH_ROWS: Final = 10_000
ARROW_BATCH_BYTES: Final = 32 * MIB
"""A row on its way to `reduce` holds up to some thousand values of a key."""
PROGRESS_SECONDS: Final = 0.5
PROGRESS_LINE_SECONDS: Final = 10.0
"""How often progress is told where no bar can be drawn."""

WORKER_IMPORTS: Final = (
    "pandas",
    "telemetry_lake.mapreduce.map_phase",
    "telemetry_lake.mapreduce.reduce_phase",
)
"""What the workers of a run need, for `open_session`; pyarrow imports pandas when it first makes an array."""

_MAPPED: Final = "unit int, number int, key binary, content binary, summary binary"
_REDUCED: Final = "content binary, summary binary"


class Table(StrEnum):
    """The tables of pings."""

    STABLE = "stable"
    LIVE = "live"

    @property
    def table_name(self) -> str:
        """The table's full name."""
        return f"{self.value}.pings"


@dataclass(frozen=True, slots=True)
class Run:
    """What to run on what, and where the result goes; `num_reducers` None takes as many as the data needs."""

    script: Script
    table: Table
    row_filter: RowFilter
    output: str
    output_format: OutputFormat
    num_reducers: int | None
    max_failures: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did: `records` were mapped, `filtered` read and left out, `written` are in the output."""

    records: int
    filtered: int
    failures: int
    failures_shown: tuple[str, ...]
    written: int
    bytes: int
    """Of the files that were read."""
    files: int
    output: str

    def lines(self, seconds: float) -> list[str]:
        """The summary for a person."""
        shown = [f"  {line}" for line in self.failures_shown]
        if self.failures > len(shown):
            shown.append(f"  … and {self.failures - len(shown)} more")
        rate = f" ({self.records / seconds:,.0f} a second)" if seconds > 0 else ""
        return [
            f"records   {self.records:,} mapped{rate} of {self.files:,} files, {_mebibytes(self.bytes)}",
            f"filtered  {self.filtered:,} read and left out",
            f"failures  {self.failures:,}",
            *shown,
            f"seconds   {seconds:.1f}",
            f"output    {self.output}: {self.written:,} records",
        ]


class Progress:
    """Rows and bytes that the map side has read, told by Spark as its tasks end."""

    def __init__(self, session: "SparkSession", plan: Plan) -> None:
        self._plan = plan
        # Spark has a bar of its own, which would be drawn over ours.
        bar = session.sparkContext._jsc.sc().progressBar()
        if bar.isDefined():
            bar.get().stop()
        self._rows = session.sparkContext.accumulator(0)
        self._bytes = session.sparkContext.accumulator(0)

    def counting(self) -> Callable[[int, int], None]:
        """What the map side calls; it travels there."""
        rows, size = self._rows, self._bytes

        def count(new_rows: int, new_bytes: int) -> None:
            rows.add(new_rows)
            size.add(new_bytes)

        return count

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it on standard error for the length of the block: a bar on a terminal, else lines."""
        ended = threading.Event()
        show = self._bar if sys.stderr.isatty() else self._lines
        shower = threading.Thread(target=show, args=(ended,), daemon=True)
        shower.start()
        try:
            yield
        finally:
            ended.set()
            shower.join()

    def _text(self) -> str:
        plan = self._plan
        return (
            f"{self._rows.value:,} of {plan.rows:,} records, "
            f"{_mebibytes(self._bytes.value)} of {_mebibytes(plan.bytes)}"
        )

    def _lines(self, ended: threading.Event) -> None:
        while not ended.wait(PROGRESS_LINE_SECONDS):
            typer.echo(f"mapping: {self._text()}", err=True)

    def _bar(self, ended: threading.Event) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("mapping"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self._text(), total=max(self._plan.bytes, 1))
            while not ended.wait(PROGRESS_SECONDS):
                bar.update(task, description=self._text(), completed=self._bytes.value)


def run_script(session: "SparkSession", settings: Settings, run: Run) -> RunSummary:
    """Map, reduce and write; the output appears when everything is done.

    Raises FatalError when the script or the table is wrong or more calls fail than may, and RetriableError
    when the catalog or the object store is away.
    """
    read = columns_read(run.script, table_definition(run.table.table_name), run.row_filter)
    with new_output(run.output, settings.s3) as file:
        plan, io_properties = _planned(settings, run)
        task = MapTask(
            run.script.source,
            plan.units,
            read,
            run.row_filter,
            io_properties,
            None if run.script.reduce is not None else run.output_format,
            run.max_failures,
        )
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(ARROW_BATCH_ROWS))
        session.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(ARROW_BATCH_BYTES))
        with _spark_failures(), ExitStack() as kept:
            mapped = kept.enter_context(_kept(_mapped(session, task, progress := Progress(session, plan))))
            with progress.shown():
                of_map = _summed(mapped, run.max_failures)
            result, of_result = mapped, of_map
            if run.script.reduce is not None:
                reduced = _reduced(mapped, run, of_map.sent_bytes)
                result = kept.enter_context(_kept(reduced))
                of_result = _summed(result, run.max_failures - of_map.failures)
            payloads = _payloads(result)
            if run.output_format is OutputFormat.PARQUET:
                write_parquet(file, payloads, of_result.layout)
            else:
                write_text(file, payloads)
    described = of_map.described if result is mapped else [*of_map.described, *of_result.described]
    return RunSummary(
        of_map.records,
        of_map.filtered,
        of_map.failures if result is mapped else of_map.failures + of_result.failures,
        tuple(described[:FAILURES_SHOWN_MAX]),
        of_result.written,
        plan.bytes,
        plan.files,
        run.output,
    )


def _planned(settings: Settings, run: Run) -> tuple[Plan, dict[str, str]]:
    """What is read of the table as it is now, and how its files are reached."""
    from pyiceberg.exceptions import NoSuchTableError
    from requests import RequestException

    from telemetry_lake.catalog import load_lake_catalog
    from telemetry_lake.table_files import READ_ONLY_FILE_IO

    try:
        table = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(run.table.table_name)
        return plan_units(table, run.row_filter), dict(table.io.properties)
    except NoSuchTableError as error:
        raise FatalError(
            f"there is no table {run.table.table_name}: `python -m telemetry_lake create-tables` makes it"
        ) from error
    except (RequestException, OSError) as error:
        raise RetriableError(
            f"the Iceberg catalog or the object store does not answer ({described(error)}). "
            "`make run` starts the local stack, `make status` shows what runs"
        ) from error


def _mapped(session: "SparkSession", task: MapTask, progress: Progress) -> "DataFrame":
    """The rows of all units, a partition each, with the schema `MAPPED`."""
    units, seen, project = len(task.units), progress.counting(), _project_folder()
    packed = pickle.dumps(task)

    # Defined here, so that it travels as code: where it runs, this program may not be a module. The task
    # travels as bytes, because nobody there can read it before the project's folder is known.
    def map_units(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import sys

        if project is not None and project not in sys.path:
            sys.path.append(project)
        from telemetry_lake.mapreduce.map_phase import map_unit

        task = pickle.loads(packed)  # noqa: S301 (our own)
        for batch in batches:
            numbers: list[Any] = batch.column(0).to_pylist()
            for number in numbers:
                yield from map_unit(task, number, seen)

    return session.range(0, units, 1, max(units, 1)).mapInArrow(map_units, _MAPPED)


def _reduced(mapped: "DataFrame", run: Run, sent_bytes: int) -> "DataFrame":
    """The output in the order of keys, with the schema `REDUCED`; the same for any number of reducers."""
    packed = pickle.dumps(ReduceTask(run.script.source, run.output_format, run.max_failures))
    project = _project_folder()

    def reduce_keys(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import sys

        if project is not None and project not in sys.path:
            sys.path.append(project)
        from telemetry_lake.mapreduce.reduce_phase import reduce_rows

        yield from reduce_rows(pickle.loads(packed), batches)  # noqa: S301 (our own)

    reducers = run.num_reducers or min(-(-sent_bytes // BYTES_PER_REDUCER) or 1, REDUCERS_MAX_COUNT)
    pairs = mapped.where("key IS NOT NULL").select("key", "unit", "number", "content")
    parted = pairs.coalesce(1) if reducers == 1 else pairs.repartitionByRange(reducers, "key")
    return parted.sortWithinPartitions("key", "unit", "number").mapInArrow(reduce_keys, _REDUCED)


@contextmanager
def _kept(rows: "DataFrame") -> "Iterator[DataFrame]":
    """Rows that Spark computes once and keeps on its disks for the length of the block."""
    from pyspark import StorageLevel

    rows.persist(StorageLevel.DISK_ONLY)
    try:
        yield rows
    finally:
        rows.unpersist()


def _summed(rows: "DataFrame", max_failures: int) -> UnitSummary:
    """Compute `rows`, and what they say of themselves; raises FatalError when that is that they failed."""
    summed = UnitSummary()
    for row in rows.where("summary IS NOT NULL").select("summary").collect():
        one: UnitSummary = pickle.loads(row.summary)  # noqa: S301 (of our own workers)
        summed.add(one)
    if summed.fatal is not None:
        raise FatalError(summed.fatal)
    if summed.failures > max_failures:
        count = f"{summed.failures:,} calls of the script failed, more than --max-failures allows"
        lines = [f"{count}. Nothing was written. The first ones:", *summed.described]
        raise FatalError("\n  ".join(lines))
    return summed


def _payloads(rows: "DataFrame") -> Iterator[bytes]:
    """The output in its order, a partition at a time."""
    content = rows.where("content IS NOT NULL").select("content")
    return (bytes(row.content) for row in content.toLocalIterator(prefetchPartitions=True))


@contextmanager
def _spark_failures() -> Iterator[None]:
    """As `spark_failures`; of an exception in a Python worker its own last line is told."""
    from pyspark.errors import PythonException

    from jobs.spark_session import spark_failures

    with spark_failures():
        try:
            yield
        except PythonException as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            ends = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
            of_trace = [line for line in lines[ends[-1] + 1 :] if not line.startswith(" ")] if ends else lines
            raise RetriableError(
                f"a worker could not go on: {of_trace[0] if of_trace else lines[0]}"
            ) from error


def _project_folder() -> str | None:
    """Where workers on this machine find our modules; None when these came in a package, as on EMR."""
    return str(PROJECT_ROOT) if (PROJECT_ROOT / "telemetry_lake").is_dir() else None


def _mebibytes(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"


def main(
    script: Annotated[
        str, typer.Option(help="The script: a Python file with `map` and perhaps `reduce`; a path or s3://.")
    ],
    output: Annotated[str, typer.Option(help="The file to write: a path or s3://bucket/key.")],
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="A filter document: a path or s3://. Without it, every ping."),
    ] = None,
    table: Annotated[
        Table, typer.Option(help="stable: each ping once. live: minutes fresh, repeated pings included.")
    ] = Table.STABLE,
    dates: Annotated[
        str | None,
        typer.Option(help="Submission dates (UTC): FIRST..LAST or one date; YYYY-MM-DD, today or yesterday."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=SAMPLE_PERCENT_MAX,
            help="Only the pings of so many percent of clients, always the same.",
        ),
    ] = None,
    output_format: Annotated[
        OutputFormat, typer.Option("--format", help="text as scripts write it, csv or parquet.")
    ] = OutputFormat.TEXT,
    num_reducers: Annotated[
        int | None,
        typer.Option(min=1, max=REDUCERS_MAX_COUNT, help="Reducers; without it as many as the data needs."),
    ] = None,
    max_failures: Annotated[
        int,
        typer.Option(min=0, help="So many calls of the script may fail; what they were given is left out."),
    ] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show Spark's own log and whole traces.")] = False,
) -> None:
    """Run a map-reduce script over the pings of a table. The output appears all at once or not at all.

    \b
    python jobs/mapreduce.py --script os.py --dates 2026-11-01..2026-11-07 --output os.txt
    python jobs/mapreduce.py --script os.py --filter nightly.json --sample 10 --format csv --output os.csv
    spark-submit --driver-class-path 'java/lib/spark/*' jobs/mapreduce.py --script os.py --output s3://bucket/os
    """
    chosen = None if dates is None else chosen_dates(dates)
    with reported_failures(debug=debug):
        settings = load_settings()
        with fetched(script, settings.s3) as script_file:
            loaded = load_script(script_file)
        rules: tuple[FilterRule, ...] = ()
        if filter_ is not None:
            with fetched(filter_, settings.s3) as filter_file:
                rules = load_filter(filter_file, table_definition(table.table_name))
        first, last = (None, None) if chosen is None else (chosen.first, chosen.last)
        run = Run(
            loaded,
            table,
            RowFilter(rules, first, last, None if sample == SAMPLE_PERCENT_MAX else sample),
            output,
            output_format,
            num_reducers,
            max_failures,
        )
        _run(settings, run, debug=debug)


def _run(settings: Settings, run: Run, *, debug: bool) -> None:
    from jobs.spark_session import open_session

    started = time.monotonic()
    typer.echo("starting Spark", err=True)
    # On this machine the work is done in Python; short leaves the JVM's optimising compiler out.
    name = f"mapreduce {Path(run.script.source.file).name}"
    session = open_session(settings, name, short=True, debug=debug, worker_imports=WORKER_IMPORTS)
    try:
        ready = time.monotonic()
        typer.echo(f"Spark is up after {ready - started:.1f} s; reading {run.table.table_name}", err=True)
        summary = run_script(session, settings, run)
        typer.echo("\n".join(summary.lines(time.monotonic() - ready)))
    finally:
        session.stop()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
