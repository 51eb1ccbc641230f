"""What a map-reduce run can be asked for: the fields, their bounds, defaults and descriptions, stated once.

The trigger form of the DAG (`dags/mapreduce.py`) and the options of the command (`jobs/mapreduce.py`) are
made from `form_fields`. Airflow imports this module whenever it parses DAGs, so it imports nothing large.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.units import DATES_PATTERN, MIB

TIME_LIMIT_MAX_MINUTES: Final = 24 * 60
REDUCERS_MAX_COUNT: Final = 1_000
CLUSTER_MAX_WORKERS: Final = 100
SAMPLE_PERCENT_MAX: Final = 100
TEXT_MAX_CHARACTERS: Final = MIB
"""The most that a field takes into which a whole document is pasted."""
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"

_OPENS_WITH: Final = "opens_with"
"""The key in a field's schema for what the form shows in it when it opens, if that is not the default."""
_MULTILINE: Final[dict[str, Any]] = {"format": "multiline"}


class Schedule(StrEnum):
    """How often an analysis is repeated."""

    ONCE = "once"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Table(StrEnum):
    """The tables of pings."""

    STABLE = "stable"
    LIVE = "live"

    @property
    def table_name(self) -> str:
        """The table's full name."""
        return f"{self.value}.pings"


def refuse_live_pings(table: Table) -> None:
    """Raise FatalError when a script that the lake runs asks for pings as they arrived."""
    if table is Table.LIVE:
        raise FatalError(
            f"scripts that the lake runs cannot read {table.table_name}, where pings are as they arrived: "
            f"choose {Table.STABLE}, or run `python jobs/mapreduce.py` with a key of your own"
        )


class AnalysisRequest(BaseModel):
    """What the form asks; its fields are those of the form, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    script: Annotated[str, Field(pattern=r"^(s3://[^/]+/.+|/.+)\.py$")] | None = Field(
        None,
        title="Script",
        description="Where it is: s3://<lake bucket>/analyses/scripts/….py or, where jobs run on the "
        "Airflow worker, a path there. The modules beside it that it imports come along.",
    )
    script_text: Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)] | None = Field(
        None,
        title="or its text",
        description="Paste a script here instead: def map(key, dimensions, value, context): …",
        json_schema_extra=_MULTILINE,
    )
    filter: Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)] | None = Field(
        None,
        title="Filter",
        description="A filter document, or where it is: s3://<lake bucket>/analyses/scripts/…. Without one, "
        "every ping.",
        json_schema_extra=_MULTILINE,
    )
    table: Table = Field(
        Table.STABLE,
        title="Table",
        description="stable: each ping once, up to yesterday. live: minutes fresh, repetitions included, and "
        "for the command line only.",
    )
    dates: Annotated[str, Field(pattern=DATES_PATTERN)] | None = Field(
        None,
        title="Submission dates (UTC)",
        description="FIRST..LAST, both included, or one date: YYYY-MM-DD, today or yesterday. Runs of a "
        "schedule take the day, week or month that has ended.",
        json_schema_extra={_OPENS_WITH: "yesterday"},
    )
    sample: int = Field(
        SAMPLE_PERCENT_MAX,
        ge=1,
        le=SAMPLE_PERCENT_MAX,
        title="Sample (percent of clients)",
        description="Only the pings of this many percent of clients, always the same clients.",
    )
    format: OutputFormat = Field(
        OutputFormat.TEXT,
        title="Format of the output",
        description="text as scripts write it, csv or parquet.",
    )
    output: Annotated[str, Field(pattern=r"^s3://[^/]+/.+$")] | None = Field(
        None,
        title="Output",
        description="s3://bucket/key, in another bucket. Empty: a place of the run's own in the lake bucket.",
    )
    num_reducers: Annotated[int, Field(ge=1, le=REDUCERS_MAX_COUNT)] | None = Field(
        None,
        title="Reducers",
        description="As many as the data needs, unless given. The output is the same.",
    )
    workers: Annotated[int, Field(ge=1, le=CLUSTER_MAX_WORKERS)] | None = Field(
        None,
        title="Cluster size",
        description="Machines of a cluster, or executors of EMR Serverless. Empty: as the settings say. A "
        "job on one machine takes its cores.",
    )
    time_limit_minutes: int = Field(
        60,
        ge=1,
        le=TIME_LIMIT_MAX_MINUTES,
        title="Time limit (minutes)",
        description="The job is stopped after that, without an output.",
    )
    schedule: Schedule = Field(
        Schedule.ONCE,
        title="Schedule",
        description="Other than once: this run now, then one for each day, week or month that ends.",
    )
    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = Field(
        None, title="Name", description="For a schedule: small letters, digits, - and _."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.script is None) == (self.script_text is None):
            raise ValueError("give either the place of a script or its text, not both and not neither")
        if self.schedule is not Schedule.ONCE and self.name is None:
            raise ValueError("an analysis that is repeated needs a name, by which it can be removed again")
        if self.schedule is not Schedule.ONCE and self.output is not None:
            raise ValueError("leave the output empty: each run of a schedule has a place of its own")
        return self


def read_request(form: Mapping[str, object]) -> AnalysisRequest:
    """Return the request in a form; empty fields count as left out.

    Raises FatalError, which names the field and says what is wrong with it.
    """
    given = {name: value for name, value in dict(form).items() if value not in (None, "")}
    try:
        return AnalysisRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise FatalError(f"the form cannot be used: {f'{field}: ' if field else ''}{message}") from error


def form_fields() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each field of `AnalysisRequest`, as a form or a command line shows it.

    A schema stands for itself: references are resolved, and a field that may be left empty has the type
    `["null", …]` instead of alternatives. `default` is what the field holds at first.
    """
    schema = AnalysisRequest.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema["$defs"]
    fields = {}
    for name, field in schema["properties"].items():
        flat = {key: value for key, value in field.items() if key not in ("anyOf", "$ref", _OPENS_WITH)}
        if "$ref" in field:
            flat = {**definitions[field["$ref"].rpartition("/")[2]], **flat}
        if "anyOf" in field:
            (given,) = (choice for choice in field["anyOf"] if choice["type"] != "null")
            flat |= {**given, "type": ["null", given["type"]]}
        flat["default"] = field.get(_OPENS_WITH, field["default"])
        fields[name] = flat
    return fields
