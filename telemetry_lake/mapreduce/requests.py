"""Preparation of a run that the form asks for, up to the arguments of `jobs/mapreduce.py`, and its output.

What a run needs is copied into the lake bucket first, so that a job on another machine finds it and it stays
with the run: the script with the modules beside it that it imports, and the filter document.
Nothing of a script is run here.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from pydantic import BaseModel, ConfigDict

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import AnalysisRequest, refuse_live_pings
from telemetry_lake.mapreduce.reading.filter_rules import load_filter
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.script.fetch import fetched, scripts_prefix
from telemetry_lake.mapreduce.script.script import pack_script
from telemetry_lake.settings import RunOn, Settings
from telemetry_lake.storage.aws import aws_failures, client_arguments
from telemetry_lake.storage.object_keys import analysis_run_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.definitions import table_definition

PASTED_SCRIPT: Final = "script.py"
LINK_SECONDS: Final = 7 * 24 * 3_600
"""How long a link to an output of the local stack works: the longest that S3 signs."""
PREVIEW_BYTES: Final = 2_000


class PreparedRun(BaseModel):
    """A run whose files are in the lake bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arguments: list[str]
    """The arguments of `jobs/mapreduce.py`."""
    script: str
    filter: str | None
    output: str
    workers: int | None
    time_limit_minutes: int


def prepare_run(
    settings: Settings, request: AnalysisRequest, run: str, *, trusted: tuple[str, ...] = ()
) -> PreparedRun:
    """Check script and filter, and copy them into the lake bucket below the key of this run.

    A script may also be below one of the places `trusted`, which a form cannot name. A repetition writes the
    same objects. Raises FatalError, which says what is wrong and where, and
    RetriableError when S3 does not answer.
    """
    _raise_unless_free(settings, request.output)
    refuse_live_pings(request.table)
    bucket = settings.s3.lake_bucket
    for given in (request.script, request.filter):
        if given is not None:
            _raise_unless_allowed(settings, given, trusted)

    def place(name: str) -> str:
        return f"s3://{bucket}/{analysis_run_key(run, name)}"

    store = ObjectStore(settings.s3)
    with _script_file(settings, request) as script_file:
        source = pack_script(script_file)
        for module in source.modules.values():
            file = Path(module.file)
            name = f"script/{file.relative_to(script_file.parent).as_posix()}"
            store.put(bucket, analysis_run_key(run, name), file.read_bytes())
        script = place(f"script/{script_file.name}")
    filter_ = None
    if request.filter is not None:
        with _filter_file(settings, request.filter) as filter_file:
            load_filter(
                filter_file,
                table_definition(request.table.table_name),
                has_dates=request.dates is not None,
            )
            store.put(bucket, analysis_run_key(run, "filter.json"), filter_file.read_bytes())
        filter_ = place("filter.json")
    output = request.output or place(f"output.{request.format.suffix}")
    options = {
        "--script": script,
        "--filter": filter_,
        "--table": request.table,
        "--dates": request.dates,
        "--sample": str(request.sample),
        "--format": request.format,
        "--num-reducers": None if request.num_reducers is None else str(request.num_reducers),
        "--output": output,
    }
    return PreparedRun(
        # One word each, so that no value can be taken for an option.
        arguments=[f"{name}={value}" for name, value in options.items() if value is not None],
        script=script,
        filter=filter_,
        output=output,
        workers=request.workers,
        time_limit_minutes=request.time_limit_minutes,
    )


def output_link(settings: Settings, output: str) -> str:
    """Return the link under which a browser shows an output in S3; empty for an output elsewhere.

    On AWS it leads to the console, which asks for a login. The local stack has no console: the link opens the
    file for `LINK_SECONDS`.
    """
    parts = urlsplit(output)
    if parts.scheme != "s3":
        return ""
    key = parts.path.lstrip("/")
    if settings.s3.endpoint_url is None:
        region = settings.s3.region
        return (
            f"https://{region}.console.aws.amazon.com/s3/object/{parts.netloc}?region={region}&prefix={key}"
        )
    signing = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = boto3.client("s3", **{**client_arguments(settings.s3), "config": signing})  # type: ignore[call-overload]
    return str(
        client.generate_presigned_url(
            "get_object",
            Params={"Bucket": parts.netloc, "Key": key, "ResponseContentType": "text/plain; charset=utf-8"},
            ExpiresIn=LINK_SECONDS,
        )
    )


def output_summary(settings: Settings, output: str) -> str:
    """Describe an output for the log: its size and, of text, its first `PREVIEW_BYTES`.

    Raises FatalError when there is no output, and RetriableError when S3 does not answer.
    """
    parts = urlsplit(output)
    if parts.scheme != "s3":
        return f"the output is {output}, on the machine that ran the job"
    client = boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]
    bucket, key = parts.netloc, parts.path.lstrip("/")
    with aws_failures(f"reading the output {output}"):
        size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        if size == 0 or output.endswith(f".{OutputFormat.PARQUET.suffix}"):
            return f"{output} has {size:,} bytes"
        span = f"bytes=0-{PREVIEW_BYTES - 1}"
        begins = client.get_object(Bucket=bucket, Key=key, Range=span)["Body"].read()
    return f"{output} has {size:,} bytes and begins:\n{begins.decode(errors='replace')}"


def _raise_unless_allowed(settings: Settings, given: str, trusted: tuple[str, ...]) -> None:
    """Raise FatalError when a script or filter is at a place that the form may not read.

    It is read on the worker, for everyone who may fill in the form. Files of the worker and objects that are
    not meant to be scripts must not come out in the copy of a run.
    """
    if given.startswith("/") and settings.spark.run_on is not RunOn.LOCAL:
        raise FatalError(
            f"{given} would be read on the Airflow worker: jobs run on EMR, so put the script below "
            f"{scripts_prefix(settings)}, or paste its text"
        )
    if not given.startswith("s3://"):
        return
    prefixes = (scripts_prefix(settings), *trusted)
    parts = given.removeprefix("s3://").split("/")
    if not given.startswith(prefixes) or {"", ".", ".."} & set(parts):
        raise FatalError(f"{given} may not be read: put scripts and filters below {prefixes[0]}")


def _raise_unless_free(settings: Settings, output: str | None) -> None:
    """Raise FatalError when an output could be in the place of something else.

    It is written by a process that may write all results, and is on the machine of the Airflow worker.
    """
    if output is None:
        return
    parts = urlsplit(output)
    if parts.scheme != "s3" or not parts.netloc:
        raise FatalError(f"the output {output} is not in S3: give s3://bucket/key, or leave it empty")
    if parts.netloc in (settings.s3.lake_bucket, settings.s3.raw_bucket):
        raise FatalError(
            f"the output {output} could be in the place of what others made: leave it empty for a place of "
            "the run's own, or name another bucket"
        )


@contextmanager
def _script_file(settings: Settings, request: AnalysisRequest) -> Iterator[Path]:
    if request.script is not None:
        with fetched(request.script, settings.s3) as file:
            yield file
        return
    assert request.script_text is not None
    with tempfile.TemporaryDirectory(prefix="mapreduce-") as folder:
        file = Path(folder, PASTED_SCRIPT)
        # A form may send the ends of lines of any system.
        text = request.script_text.replace("\r\n", "\n").replace("\r", "\n")
        file.write_text(f"{text}\n", encoding="utf-8", newline="\n")
        yield file


@contextmanager
def _filter_file(settings: Settings, given: str) -> Iterator[Path]:
    if given.startswith("s3://"):
        with fetched(given, settings.s3) as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="mapreduce-") as folder:
        file = Path(folder, "filter.json")
        file.write_text(given, encoding="utf-8")
        yield file
