"""Run a script over the pings of a file, in this process: what happens in the box when a script is tried.

`python -m telemetry_lake.analysis_jobs.sandbox.trial FOLDER` finds its task, the code and the pings in the
folder, and writes its report below `out`.
"""

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from telemetry_lake.analysis_jobs.sandbox.try_it import SHOWN_MAX_CHARACTERS, TrialReport, TrialTask
from telemetry_lake.mapreduce.map_phase import MAPPED, MapTask, columns_read, map_unit
from telemetry_lake.mapreduce.output import write_text
from telemetry_lake.mapreduce.pickles import unpickled
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.reading.units import FilePart
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.reduce_phase import ReduceTask, reduce_rows
from telemetry_lake.mapreduce.script.script import Script, ScriptError, load_script
from telemetry_lake.mapreduce.summaries import FAILURES_SHOWN_MAX, CallSummary, UnitSummary
from telemetry_lake.tables.definitions import table_definition


def run_trial(folder: Path) -> TrialReport:
    """Map and reduce; calls of the script that fail are left out of the output and told as its errors."""
    task = TrialTask.model_validate_json((folder / "task.json").read_bytes())
    code, sample = folder / "code", folder / "sample.parquet"
    sys.argv = [task.entry, *task.arguments]
    everything = RowFilter()
    output_format = OutputFormat.TEXT if task.is_text else OutputFormat.CSV
    try:
        script = load_script(code / task.entry)
        read = columns_read(script, table_definition(task.table), everything)
        units = ((FilePart(str(sample), 0, sample.stat().st_size, 0),),)
        mapping = MapTask(
            script.source,
            units,
            read,
            everything,
            {},
            None if script.reduce is not None else output_format,
            FAILURES_SHOWN_MAX - 1,
        )
        sent, units_summary = _mapped(mapping)
        result, keys = _reduced(script, sent, output_format)
    except ScriptError as error:
        return TrialReport(error=_shown(str(error), code))
    summaries = [units_summary, *([keys] if keys is not None else [])]
    errors = [line for summary in summaries for line in (summary.fatal, *summary.described) if line]
    text = result.decode()
    return TrialReport(
        error=_shown("\n".join(errors[:FAILURES_SHOWN_MAX]), code)[: 16 * 1024] if errors else None,
        output=text[:SHOWN_MAX_CHARACTERS],
        is_cut=len(text) > SHOWN_MAX_CHARACTERS,
        records=units_summary.records,
        written=summaries[-1].written,
        failures=sum(summary.failures for summary in summaries),
    )


def _mapped(task: MapTask) -> tuple[list[pa.RecordBatch], UnitSummary]:
    sent, summed = [], UnitSummary()
    for batch in map_unit(task, 0):
        if batch.column("summary").null_count:
            sent.append(batch)
        else:
            summed.add(unpickled(batch.column("summary")[0].as_py()))
    return sent, summed


def _reduced(
    script: Script, sent: list[pa.RecordBatch], output_format: OutputFormat
) -> tuple[bytes, CallSummary | None]:
    """Return the output, and the summary of the calls of `reduce` if the script has one."""
    output = io.BytesIO()
    if script.reduce is None:
        payloads: list[Any] = [content for batch in sent for content in batch.column("content").to_pylist()]
        write_text(output, payloads)
        return output.getvalue(), None
    in_order = pa.Table.from_batches(sent, MAPPED).sort_by(
        [(name, "ascending") for name in ("key", "unit", "number")]
    )
    summary = CallSummary()
    for batch in reduce_rows(
        ReduceTask(script.source, output_format, FAILURES_SHOWN_MAX - 1), in_order.to_batches()
    ):
        for row in batch.to_pylist():
            write_text(output, [row["content"]] if row["content"] is not None else [])
            if row["summary"] is not None:
                summary.add(unpickled(row["summary"]))
    return output.getvalue(), summary


def _shown(message: str, code: Path) -> str:
    """Return a message with the paths that its reader knows: those of the files that were given."""
    return message.replace(f"{code}/", "").replace(f"{code.parent}/", "")


def main() -> None:
    """Write the report of the trial in the folder that is named."""
    folder = Path(sys.argv[1])
    report = run_trial(folder)
    (folder / "out" / "result.json").write_text(report.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
