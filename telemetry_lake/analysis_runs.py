"""A map-reduce run as somebody asks for it in a form, checked and made ready for `jobs/mapreduce.py`.

What a run needs is copied into the lake bucket first, so that it is there for a job on another machine and
stays with the run: the script with the modules beside it that it imports, and the filter document.
Nothing of a script is run here.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.fetch import fetched
from telemetry_lake.mapreduce.row_filter import load_filter
from telemetry_lake.mapreduce.script import pack_script
from telemetry_lake.object_keys import analysis_run_key
from telemetry_lake.object_store import ObjectStore, aws_failures, client_arguments
from telemetry_lake.settings import RunOn, Settings
from telemetry_lake.tables import table_definition

PASTED_SCRIPT: Final = "script.py"
SUFFIXES: Final = {"text": "txt", "csv": "csv", "parquet": "parquet"}
LINK_SECONDS: Final = 7 * 24 * 3_600
"""How long a link to an output of the local stack works: the longest that S3 signs."""
PREVIEW_BYTES: Final = 2_000

Optional = Annotated[str | None, Field(min_length=1)]


class Schedule(StrEnum):
    """How often an analysis is repeated."""

    ONCE = "once"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class AnalysisRequest(BaseModel):
    """What the form asks; its fields are those of the form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    script: Optional = None
    """A path on the machine that prepares the run, or s3://."""
    script_text: Optional = None
    filter: Optional = None
    """A filter document: its JSON, or where it is, s3://."""
    table: str = "stable"
    dates: Optional = None
    sample: Annotated[int, Field(ge=1, le=100)] = 100
    format: str = "text"
    output: Optional = None
    """s3://bucket/key, or a path where the job runs; without it the run's own place in the lake bucket."""
    num_reducers: Annotated[int, Field(ge=1, le=1_000)] | None = None
    workers: Annotated[int, Field(ge=1, le=100)] | None = None
    time_limit_minutes: Annotated[int, Field(ge=1, le=1_440)] = 60
    schedule: Schedule = Schedule.ONCE
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.script is None) == (self.script_text is None):
            raise ValueError("give either the place of a script or its text, not both and not neither")
        if self.schedule is not Schedule.ONCE and self.name is None:
            raise ValueError("an analysis that is repeated needs a name, by which it can be removed again")
        if self.schedule is not Schedule.ONCE and self.output is not None:
            raise ValueError("leave the output empty: each run of a schedule has a place of its own")
        return self


class PreparedRun(BaseModel):
    """A run whose files are in the lake bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arguments: list[str]
    """Those of `jobs/mapreduce.py`."""
    script: str
    filter: str | None
    output: str
    workers: int | None
    time_limit_minutes: int


def read_request(form: object) -> AnalysisRequest:
    """The request in a form; empty fields count as left out.

    Raises FatalError, which names the field and says what is wrong with it.
    """
    given = {name: value for name, value in dict(form).items() if value not in (None, "")}  # type: ignore[call-overload]
    try:
        return AnalysisRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise FatalError(f"the form cannot be used: {f'{field}: ' if field else ''}{message}") from error


def prepare_run(settings: Settings, request: AnalysisRequest, run: str) -> PreparedRun:
    """Check script and filter, and copy them into the lake bucket below the key of this run.

    Doing it again writes the same. Raises FatalError, which says what is wrong and where, and RetriableError
    when S3 does not answer.
    """
    if settings.spark.run_on is not RunOn.LOCAL and request.output and not request.output.startswith("s3://"):
        raise FatalError(f"the output {request.output} would be lost with the machine: give s3://bucket/key")
    bucket = settings.s3.lake_bucket

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
            load_filter(filter_file, table_definition(f"{request.table}.pings"))
            store.put(bucket, analysis_run_key(run, "filter.json"), filter_file.read_bytes())
        filter_ = place("filter.json")
    output = request.output or place(f"output.{SUFFIXES[request.format]}")
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
    """Where a browser shows an output in S3; empty for one elsewhere.

    On AWS it is the console, which asks who is there. The local stack has none: the link opens the file.
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
    """The size of an output and, of text, how it begins.

    Raises FatalError when there is none, and RetriableError when S3 does not answer.
    """
    parts = urlsplit(output)
    if parts.scheme != "s3":
        return f"the output is {output}, on the machine that ran the job"
    client = boto3.client("s3", **client_arguments(settings.s3))  # type: ignore[call-overload]
    bucket, key = parts.netloc, parts.path.lstrip("/")
    with aws_failures(f"reading the output {output}"):
        size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        if size == 0 or output.endswith(f".{SUFFIXES['parquet']}"):
            return f"{output} has {size:,} bytes"
        span = f"bytes=0-{PREVIEW_BYTES - 1}"
        begins = client.get_object(Bucket=bucket, Key=key, Range=span)["Body"].read()
    return f"{output} has {size:,} bytes and begins:\n{begins.decode(errors='replace')}"


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
