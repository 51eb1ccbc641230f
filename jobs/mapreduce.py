"""Run a map-reduce script over the pings of a table: the command for analysts. See docs/mapreduce.md."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

if not __package__:  # see jobs/__init__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from jobs.spark.command_line import chosen_dates, dates_option, debug_option, program, reported_failures
from telemetry_lake.failures import FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.mapreduce.form import REDUCERS_MAX_COUNT, SAMPLE_PERCENT_MAX, Table, form_fields
from telemetry_lake.mapreduce.map_phase import MapTask, columns_read
from telemetry_lake.mapreduce.output import new_output, write_parquet, write_text
from telemetry_lake.mapreduce.pickles import pickled, unpickled
from telemetry_lake.mapreduce.progress import AS_LINES, Phase, ProgressReport
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule, load_filter
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import Plan, plan_units
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.reduce_phase import ReduceTask
from telemetry_lake.mapreduce.script.fetch import fetched
from telemetry_lake.mapreduce.script.script import Script, load_script
from telemetry_lake.mapreduce.summaries import FAILURES_SHOWN_MAX, CallSummary, UnitSummary
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role, Settings, load_settings
from telemetry_lake.tables.definitions import table_definition
from telemetry_lake.units import MIB

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

BYTES_PER_REDUCER: Final = 64 * MIB
ARROW_BATCH_ROWS: Final = 10_000
ARROW_BATCH_BYTES: Final = 32 * MIB
"""A row on its way to `reduce` holds up to several thousand values of a key."""
PROGRESS_SECONDS: Final = 0.5
PROGRESS_LINE_SECONDS: Final = 10.0
"""How often progress is printed where no bar can be drawn."""
REPORT_SECONDS: Final = 2.0
"""How often it is reported to who watches the run elsewhere."""

WORKER_IMPORTS: Final = (
    "pandas",
    "telemetry_lake.mapreduce.map_phase",
    "telemetry_lake.mapreduce.reduce_phase",
)
"""What the workers of a run need, for `open_session`; pyarrow imports pandas when it first makes an array."""

Summary = TypeVar("Summary", UnitSummary, CallSummary)

_MAPPED: Final = "unit int, number int, key binary, content binary, summary binary"
_REDUCED: Final = "content binary, summary binary"


@dataclass(frozen=True, slots=True)
class Run:
    """What to run on what, and where the result goes; without `num_reducers`, as many as the data needs."""

    script: Script
    table: Table
    row_filter: RowFilter
    output: str
    output_format: OutputFormat
    num_reducers: int | None
    max_failures: int
    lazy: bool = True
    """The switch of `telemetry_lake.mapreduce.lazy`."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did: `records` were mapped, `filtered` read and left out, `written` are in the output."""

    records: int
    filtered: int
    failures: int
    failures_shown: tuple[str, ...]
    written: int
    bytes: int
    """The size of the files that were read."""
    files: int
    output: str

    def lines(self, seconds: float) -> list[str]:
        """Return the summary as lines of text, for a run that took this long."""
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
    """Rows and bytes that the map side has read, which Spark adds up as its tasks end."""

    def __init__(self, session: "SparkSession", plan: Plan, report: ProgressReport) -> None:
        self._plan = plan
        self._report = report
        # Spark has a bar of its own, which would be drawn over ours.
        bar = session.sparkContext._jsc.sc().progressBar()
        if bar.isDefined():
            bar.get().stop()
        self._rows = session.sparkContext.accumulator(0)
        self._bytes = session.sparkContext.accumulator(0)

    def counting(self) -> Callable[[int, int], None]:
        """Return what the map side calls with what it has read; the function travels there."""
        rows, size = self._rows, self._bytes

        def count(new_rows: int, new_bytes: int) -> None:
            rows.add(new_rows)
            size.add(new_bytes)

        return count

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it on standard error for the length of the block: a bar on a terminal, else lines.

        It is reported, too, if a report is wanted.
        """
        ended = threading.Event()
        shows = [self._bar if sys.stderr.isatty() else self._lines]
        if self._report.is_wanted:
            self._say(Phase.MAPPING)
            shows.append(self._reports)
        showers = [threading.Thread(target=show, args=(ended,), daemon=True) for show in shows]
        for shower in showers:
            shower.start()
        try:
            yield
        finally:
            ended.set()
            for shower in showers:
                shower.join()
        self._say(Phase.REDUCING)

    def _reports(self, ended: threading.Event) -> None:
        while not ended.wait(REPORT_SECONDS):
            self._say(Phase.MAPPING)

    def _say(self, phase: Phase) -> None:
        plan = self._plan
        self._report.report(
            phase,
            records=self._rows.value,
            records_total=plan.rows,
            bytes=self._bytes.value,
            bytes_total=plan.bytes,
        )

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


def run_script(
    session: "SparkSession", settings: Settings, run: Run, report: ProgressReport | None = None
) -> RunSummary:
    """Map, reduce and write; the output appears when everything is done.

    `report` is told how far it has come. Raises FatalError when the script or the table is wrong or more
    calls fail than may, and RetriableError when the catalog or the object store is unavailable.
    """
    report = report or ProgressReport(None, settings.s3)
    table = table_definition(run.table.table_name)
    read = columns_read(run.script, table, run.row_filter, lazy=run.lazy)
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
            run.lazy,
        )
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(ARROW_BATCH_ROWS))
        session.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(ARROW_BATCH_BYTES))
        with _spark_failures(), ExitStack() as kept:
            mapped = kept.enter_context(
                _kept(_mapped(session, task, progress := Progress(session, plan, report)))
            )
            with progress.shown():
                units = _summed(mapped, UnitSummary(), run.max_failures)
            # A script without `reduce` has no keys: `map` wrote the output.
            result, keys = mapped, CallSummary(written=units.written, layout=units.layout)
            if run.script.reduce is not None:
                result = kept.enter_context(_kept(_reduced(mapped, run, units.sent_bytes)))
                keys = _summed(result, CallSummary(), run.max_failures - units.failures)
            payloads = _payloads(result)
            if run.output_format is OutputFormat.PARQUET:
                write_parquet(file, payloads, keys.layout)
            else:
                write_text(file, payloads)
    return RunSummary(
        units.records,
        units.filtered,
        units.failures + keys.failures,
        tuple([*units.described, *keys.described][:FAILURES_SHOWN_MAX]),
        keys.written,
        plan.bytes,
        plan.files,
        run.output,
    )


def _planned(settings: Settings, run: Run) -> tuple[Plan, dict[str, str]]:
    """Return what is read of the table as it is now, and the properties by which its files are reached."""
    from telemetry_lake.tables.catalog import load_lake_catalog
    from telemetry_lake.tables.catalog_failures import catalog_failures
    from telemetry_lake.tables.files import READ_ONLY_FILE_IO

    with catalog_failures(f"reading the table {run.table.table_name}"):
        table = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(run.table.table_name)
        return plan_units(table, run.row_filter), dict(table.io.properties)


def _mapped(session: "SparkSession", task: MapTask, progress: Progress) -> "DataFrame":
    """Return the rows of all units, a partition each, with the schema `MAPPED`."""
    units, seen, project = len(task.units), progress.counting(), _project_folder()
    packed = pickled(task)

    # Defined here, so that it travels as code: where it runs, this program may not be a module. The task
    # travels as bytes, because it cannot be unpickled there before the project's folder is known.
    def map_units(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import sys

        if project is not None and project not in sys.path:
            sys.path.append(project)
        from telemetry_lake.mapreduce.map_phase import map_unit
        from telemetry_lake.mapreduce.pickles import unpickled

        task = unpickled(packed)
        for batch in batches:
            numbers: list[Any] = batch.column(0).to_pylist()
            for number in numbers:
                yield from map_unit(task, number, seen)

    return session.range(0, units, 1, max(units, 1)).mapInArrow(map_units, _MAPPED)


def _reduced(mapped: "DataFrame", run: Run, sent_bytes: int) -> "DataFrame":
    """Return the output in the order of keys, with the schema `REDUCED`."""
    packed = pickled(ReduceTask(run.script.source, run.output_format, run.max_failures))
    project = _project_folder()

    def reduce_keys(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import sys

        if project is not None and project not in sys.path:
            sys.path.append(project)
        from telemetry_lake.mapreduce.pickles import unpickled
        from telemetry_lake.mapreduce.reduce_phase import reduce_rows

        yield from reduce_rows(unpickled(packed), batches)

    reducers = run.num_reducers or min(-(-sent_bytes // BYTES_PER_REDUCER) or 1, REDUCERS_MAX_COUNT)
    pairs = mapped.where("key IS NOT NULL").select("key", "unit", "number", "content")
    parted = pairs.coalesce(1) if reducers == 1 else pairs.repartitionByRange(reducers, "key")
    return parted.sortWithinPartitions("key", "unit", "number").mapInArrow(reduce_keys, _REDUCED)


@contextmanager
def _kept(rows: "DataFrame") -> "Iterator[DataFrame]":
    """Yield rows that Spark computes once and keeps on its disks for the length of the block."""
    from pyspark import StorageLevel

    rows.persist(StorageLevel.DISK_ONLY)
    try:
        yield rows
    finally:
        rows.unpersist()


def _summed(rows: "DataFrame", total: Summary, max_failures: int) -> Summary:
    """Compute `rows`, add the summaries among them to `total`, and return it.

    Raises FatalError when the run cannot go on, or when more than `max_failures` calls failed.
    """
    for row in rows.where("summary IS NOT NULL").select("summary").collect():
        total.add(unpickled(row.summary))
    if total.fatal is not None:
        raise FatalError(total.fatal)
    if total.failures > max_failures:
        count = f"{total.failures:,} calls of the script failed, more than --max-failures allows"
        lines = [f"{count}. Nothing was written. The first ones:", *total.described]
        raise FatalError("\n  ".join(lines))
    return total


def _payloads(rows: "DataFrame") -> Iterator[bytes]:
    """Yield the output in its order, a partition at a time."""
    content = rows.where("content IS NOT NULL").select("content")
    return (bytes(row.content) for row in content.toLocalIterator(prefetchPartitions=True))


@contextmanager
def _spark_failures() -> Iterator[None]:
    """Do what `spark_failures` does; of an exception in a Python worker report only its last line."""
    from pyspark.errors import PythonException

    from jobs.spark_session import spark_failures

    with spark_failures():
        try:
            yield
        except PythonException as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            traces = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
            last_trace = lines[traces[-1] + 1 :] if traces else lines
            messages = [line for line in last_trace if not line.startswith(" ")]
            raise RetriableError(f"a worker failed: {messages[0] if messages else lines[0]}") from error


def _project_folder() -> str | None:
    """Return where workers on this machine find our modules; None when these came in a package, as on EMR."""
    return str(PROJECT_ROOT) if (PROJECT_ROOT / "telemetry_lake").is_dir() else None


def _mebibytes(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"


def _field_option(field: str, *names: str) -> Any:
    """Return the option for a field of the form, with the bounds and the description that the field has."""
    schema = form_fields()[field]
    return typer.Option(
        *names, min=schema.get("minimum"), max=schema.get("maximum"), help=schema["description"]
    )


def main(
    script: Annotated[
        str, typer.Option(help="The script: a Python file with `map` and perhaps `reduce`; a path or s3://.")
    ],
    output: Annotated[str, typer.Option(help="The file to write: a path or s3://bucket/key.")],
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="A filter document: a path or s3://. Without it, every ping."),
    ] = None,
    table: Annotated[Table, _field_option("table")] = Table.STABLE,
    dates: Annotated[str | None, dates_option("read")] = None,
    sample: Annotated[int, _field_option("sample")] = SAMPLE_PERCENT_MAX,
    output_format: Annotated[OutputFormat, _field_option("format", "--format")] = OutputFormat.TEXT,
    num_reducers: Annotated[int | None, _field_option("num_reducers")] = None,
    max_failures: Annotated[
        int,
        typer.Option(
            min=0, help="The most calls of the script that may fail; their rows or keys are left out."
        ),
    ] = 0,
    lazy: Annotated[
        bool, typer.Option(help="Make only what the script looks at. Without it runs are slow, and the same.")
    ] = True,
    argument: Annotated[
        list[str] | None, typer.Option(help="What the script finds in sys.argv[1:]; may be given repeatedly.")
    ] = None,
    progress: Annotated[
        str | None,
        typer.Option(
            help=f"Where to say how far the run has come: s3://bucket/key, or {AS_LINES} for lines of JSON."
        ),
    ] = None,
    debug: Annotated[bool, debug_option()] = False,
) -> None:
    """Run a map-reduce script over the pings of a table. The output appears all at once or not at all.

    \b
    python jobs/mapreduce.py --script os.py --dates 2026-11-01..2026-11-07 --output os.txt
    python jobs/mapreduce.py --script os.py --filter nightly.json --sample 10 --format csv --output os.csv
    spark-submit --driver-class-path 'java/lib/spark/*' jobs/mapreduce.py --script os.py --output s3://bucket/os
    """
    chosen = None if dates is None else chosen_dates(dates)
    with reported_failures(debug=debug):
        settings = load_settings(role=Role.ANALYST)
        report = ProgressReport(progress, settings.s3)
        report.report(Phase.STARTING)
        with _reported_to(report), fetched(script, settings.s3) as script_file:
            loaded = load_script(script_file, argument or ())
        rules: tuple[FilterRule, ...] = ()
        if filter_ is not None:
            with fetched(filter_, settings.s3) as filter_file:
                rules = load_filter(
                    filter_file, table_definition(table.table_name), has_dates=chosen is not None
                )
        first, last = (None, None) if chosen is None else (chosen.first, chosen.last)
        run = Run(
            loaded,
            table,
            RowFilter(rules, first, last, None if sample == SAMPLE_PERCENT_MAX else sample),
            output,
            output_format,
            num_reducers,
            max_failures,
            lazy,
        )
        with _reported_to(report):
            _run(settings, run, report, debug=debug)


@contextmanager
def _reported_to(report: ProgressReport) -> Iterator[None]:
    """Say why the run ends, when it fails."""
    try:
        yield
    except TelemetryLakeError as error:
        report.failed(str(error))
        raise


def _run(settings: Settings, run: Run, report: ProgressReport, *, debug: bool) -> None:
    from jobs.spark_session import open_session

    started = time.monotonic()
    typer.echo("starting Spark", err=True)
    # On this machine the work is done in Python; short leaves the JVM's optimising compiler out.
    name = f"mapreduce {Path(run.script.source.file).name}"
    session = open_session(settings, name, short=True, debug=debug, worker_imports=WORKER_IMPORTS)
    try:
        ready = time.monotonic()
        typer.echo(f"Spark is up after {ready - started:.1f} s; reading {run.table.table_name}", err=True)
        summary = run_script(session, settings, run, report)
        report.report(
            Phase.ENDED,
            records=summary.records,
            bytes=summary.bytes,
            written=summary.written,
            failures=summary.failures,
        )
        typer.echo("\n".join(summary.lines(time.monotonic() - ready)))
    finally:
        session.stop()


if __name__ == "__main__":
    program(main)()
