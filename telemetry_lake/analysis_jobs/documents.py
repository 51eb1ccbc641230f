"""The documents of the analysis service, as they are in the lake bucket, with a limit on every field.

====================================  ==========================  ===========================================
document                              key                         written
====================================  ==========================  ===========================================
`Job`                                 `job_key`                   in turns, each on the condition of the last
`RunRequest` (`run.json`)             `analysis_run_key`          once, before Airflow is asked: the lock
`mapreduce.progress.Progress`         `analysis_run_key`          over and over; what the job says of itself
`Outcome` (`outcome.json`)            `analysis_run_key`          once
`Latest`                              `latest_run_key`            in turns, when a run has ended
`Event`                               `job_event_key`             once
====================================  ==========================  ===========================================
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, field_validator, model_validator

from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import (
    CLUSTER_MAX_WORKERS,
    NAME_PATTERN,
    REDUCERS_MAX_COUNT,
    SAMPLE_PERCENT_MAX,
    TIME_LIMIT_MAX_MINUTES,
    AnalysisRequest,
    Schedule,
    Table,
)
from telemetry_lake.mapreduce.progress import ERROR_MAX_CHARACTERS
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.storage.records import Record
from telemetry_lake.units import DATES_PATTERN, ISO_DATE_PATTERN, KIB

PERSON_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"
"""Names of people: those of a users file, or what an identity provider calls them."""
GROUP_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+:/-]{0,127}$"
RUN_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.~:+-]{0,249}$"
"""What Airflow takes as the id of a run."""
TOKEN_PATTERN: Final = r"^\d{8}T\d{6}Z(-[0-9a-f]{8})?$"
"""What tells the runs of a job apart: the time, and for runs that a person asked for, a random part."""
DESCRIPTION_MAX_CHARACTERS: Final = 2_000
FILTER_MAX_CHARACTERS: Final = 64 * KIB
ENTRY_MAX_CHARACTERS: Final = 255
ARGUMENTS_MAX_COUNT: Final = 50
ARGUMENT_MAX_CHARACTERS: Final = 1_000
ADDRESSES_MAX_COUNT: Final = 10
LAST_DAYS_MAX: Final = 366
MONTHLY_MAX_DAY: Final = 28
LAST_DAY: Final = "last"
"""The last day of each month."""
DEFAULT_HOUR: Final = 6
"""When the stable table has the pings of the day before."""

ALL_DATES: Final = "all"
PERIOD: Final = "period"
_LAST_DAYS: Final = r"last-([1-9]|[1-9]\d|[1-2]\d\d|3[0-5]\d|36[0-6])-days"
JOB_DATES_PATTERN: Final = rf"^({ALL_DATES}|{PERIOD}|{_LAST_DAYS}|{DATES_PATTERN.strip('^$')})$"
"""Fixed dates, or dates that depend on when the run takes place; `schedule.dates_of_run` reads them."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_UNPRINTABLE_OR_BREAK: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _without_control_characters(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("it holds a control character: only line breaks and tabs may be in it")
    return text


def _one_line(text: str) -> str:
    if _UNPRINTABLE_OR_BREAK.search(text):
        raise ValueError("it holds a line break or another control character: give one line")
    return text


def _relative_path(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("give a path below the folder of the code, without . and ..")
    return _one_line(path)


def _iso_date(text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is not a date of the calendar") from None


PersonName = Annotated[str, Field(pattern=PERSON_PATTERN)]
GroupName = Annotated[str, Field(pattern=GROUP_PATTERN)]
JobName = Annotated[str, Field(pattern=NAME_PATTERN)]
RunId = Annotated[str, Field(pattern=RUN_ID_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MailAddress = Annotated[
    str, Field(max_length=254, pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}$")
]
Argument = Annotated[
    str, Field(max_length=ARGUMENT_MAX_CHARACTERS), AfterValidator(_without_control_characters)
]
WebhookUrl = Annotated[str, Field(max_length=1_000, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?$")]


class InvalidJob(FatalError):
    """What a person gave cannot be saved. `problems` says why, by field, such as `request.dates`."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__(
            "; ".join(f"{field}: {problem}" if field else problem for field, problem in problems.items())
        )


class Visibility(StrEnum):
    """Who may see a job and its results, besides its owner and administrators."""

    PRIVATE = "private"
    GROUP = "group"
    PUBLIC = "public"


class CodeKind(StrEnum):
    """As what the code of a job was given."""

    TEXT = "text"
    FILE = "file"
    TARBALL = "tarball"
    REPOSITORY = "repository"


class Code(Record):
    """The code of a job: files below `analyses/code/<digest>/`, which never change."""

    kind: CodeKind
    digest: Sha256
    """`code_digest` of the files."""
    entry: Annotated[
        str,
        Field(max_length=ENTRY_MAX_CHARACTERS, pattern=r"^[A-Za-z0-9_./ -]+\.py$"),
        AfterValidator(_relative_path),
    ]
    """The script among the files."""
    arguments: Annotated[
        tuple[
            Annotated[
                str, Field(max_length=ARGUMENT_MAX_CHARACTERS), AfterValidator(_without_control_characters)
            ],
            ...,
        ],
        Field(max_length=ARGUMENTS_MAX_COUNT),
    ] = ()
    """What the script finds in `sys.argv[1:]`; a list, which no shell sees."""
    origin: Annotated[str, Field(max_length=ENTRY_MAX_CHARACTERS), AfterValidator(_one_line)] | None = None
    """The name of the file that was given, or the path in the repository; only shown."""


class JobRequest(Record):
    """What a job reads, and how it runs."""

    table: Table = Table.STABLE
    dates: Annotated[str, Field(pattern=JOB_DATES_PATTERN)] = "yesterday"
    """`all`; `period`, the days since the schedule's last run was due; `last-N-days`, up to yesterday; or
    what the trigger form takes, where `today` and `yesterday` are those of the run."""
    filter: Annotated[str, Field(max_length=FILTER_MAX_CHARACTERS)] | None = None
    """The text of a filter document."""
    sample: Annotated[int, Field(ge=1, le=SAMPLE_PERCENT_MAX)] = SAMPLE_PERCENT_MAX
    format: OutputFormat = OutputFormat.TEXT
    num_reducers: Annotated[int, Field(ge=1, le=REDUCERS_MAX_COUNT)] | None = None
    workers: Annotated[int, Field(ge=1, le=CLUSTER_MAX_WORKERS)] | None = None
    time_limit_minutes: Annotated[int, Field(ge=1, le=TIME_LIMIT_MAX_MINUTES)] = 60

    @field_validator("dates")
    @classmethod
    def _are_dates(cls, dates: str) -> str:
        fixed = re.findall(ISO_DATE_PATTERN, dates)
        for day in fixed:
            _iso_date(day)
        if len(fixed) == 2 and fixed[1] < fixed[0]:
            raise ValueError(f"{fixed[1]} is before {fixed[0]}: a range is FIRST..LAST")
        return dates


class JobSchedule(Record):
    """When a job runs by itself; times are UTC."""

    every: Schedule = Schedule.ONCE
    weekday: Annotated[int, Field(ge=0, le=6)] | None = None
    """For weekly: 0 is Monday."""
    day: Annotated[int, Field(ge=1, le=MONTHLY_MAX_DAY)] | Literal["last"] | None = None
    """For monthly; every month has a day 28."""
    hour: Annotated[int, Field(ge=0, le=23)] = DEFAULT_HOUR
    end: Annotated[str, Field(pattern=rf"^{ISO_DATE_PATTERN}$")] | None = None
    """The last date on which it runs."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.every is Schedule.WEEKLY) != (self.weekday is not None):
            raise ValueError("give a day of the week for a weekly schedule, and only for that")
        if (self.every is Schedule.MONTHLY) != (self.day is not None):
            raise ValueError("give a day of the month for a monthly schedule, and only for that")
        if self.end is not None:
            if self.every is Schedule.ONCE:
                raise ValueError("an end date is for jobs that are repeated")
            _iso_date(self.end)
        return self


class NotifyOn(StrEnum):
    """What people want to be told of."""

    FAILURE = "failure"
    TIMEOUT = "timeout"
    SUCCESS = "success"
    RECOVERY = "recovery"
    """The first success after a run that failed or took too long."""


class Notify(Record):
    """Whom to tell, and when."""

    on: tuple[NotifyOn, ...] = ()
    mails: Annotated[tuple[MailAddress, ...], Field(max_length=ADDRESSES_MAX_COUNT)] = ()
    webhooks: Annotated[tuple[WebhookUrl, ...], Field(max_length=ADDRESSES_MAX_COUNT)] = ()


class JobDraft(Record):
    """What a person gives: a job before it is saved."""

    name: JobName
    description: Annotated[
        str, Field(max_length=DESCRIPTION_MAX_CHARACTERS), AfterValidator(_without_control_characters)
    ] = ""
    group: GroupName | None = None
    """The group that may change it, and see it, unless it is private."""
    code: Code
    request: JobRequest = JobRequest()
    schedule: JobSchedule = JobSchedule()
    visibility: Visibility = Visibility.PRIVATE
    notify: Notify = Notify()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.visibility is Visibility.GROUP and self.group is None:
            raise ValueError("name the group that may see the job, or choose private or public")
        if self.request.dates == PERIOD and self.schedule.every is Schedule.ONCE:
            raise ValueError("a job that is not repeated has no period: give dates, or a schedule")
        return self


class Job(JobDraft):
    """A job as it is kept."""

    owner: PersonName
    version: Annotated[int, Field(ge=1)]
    """Counts how often it was saved; who saves it names the version that they saw."""
    created_at: AwareDatetime
    created_by: PersonName
    changed_at: AwareDatetime
    changed_by: PersonName
    scheduled_since: AwareDatetime
    """Runs that were due before were not meant: when the schedule was set, or the job was resumed."""
    paused: bool = False
    deleted: bool = False
    change: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Different in each version that was ever written, also in those that lost against another one."""

    @property
    def draft(self) -> JobDraft:
        """What a person may change of it."""
        return JobDraft.model_validate({name: getattr(self, name) for name in JobDraft.model_fields})


class RunState(StrEnum):
    """How far a run has come."""

    ASKED = "asked"
    """It is written down, and Airflow is not known to have it."""
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether it stays like that."""
        return self in (RunState.SUCCESS, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED)


class RunRequest(Record):
    """`run.json`: what was asked for, by whom; it exists before Airflow is asked, and never changes."""

    run_id: RunId
    job: JobName | None
    """None: Airflow's form was filled in without a name."""
    version: int | None
    """The version of the job that runs."""
    code: Code | None
    """None: the form named a script, or gave its text."""
    request: AnalysisRequest
    """With the dates of this run, and without a schedule."""
    owner: PersonName
    group: GroupName | None
    visibility: Visibility
    """Who could see the job when the run began; who cannot now does not see the run either."""
    asked_by: PersonName
    asked_at: AwareDatetime
    due_at: AwareDatetime | None = None
    """The time of the schedule for which it runs; None when a person asked for it."""
    again: RunId | None = None
    """The run that it repeats."""
    output: str
    """The place of its result."""
    machines: Annotated[int, Field(ge=1)]
    """How many its quota counts."""


class Outcome(Record):
    """`outcome.json`: how a run ended."""

    state: RunState
    error: Annotated[str, Field(max_length=ERROR_MAX_CHARACTERS)] | None = None
    ended_at: AwareDatetime
    started_at: AwareDatetime | None = None
    """None: it never began."""
    records: int | None = None
    bytes: int | None = None
    """The size of the files that were read."""
    output_bytes: int | None = None
    machines: int

    @property
    def seconds(self) -> float:
        """How long it ran."""
        if self.started_at is None:
            return 0.0
        return max((self.ended_at - self.started_at).total_seconds(), 0.0)


class Latest(Record):
    """The newest run of a job that has ended, and the newest good one."""

    job: JobName
    last: RunId
    last_state: RunState
    last_ended_at: AwareDatetime
    previous_state: RunState | None = None
    """That of the run that had ended before."""
    good: RunId | None = None
    good_ended_at: AwareDatetime | None = None


class What(StrEnum):
    """What the audit trail records."""

    CREATED = "created"
    CHANGED = "changed"
    PAUSED = "paused"
    RESUMED = "resumed"
    DELETED = "deleted"
    STARTED = "started"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    SIGNED_IN = "signed in"
    SIGNED_OUT = "signed out"
    SIGN_IN_FAILED = "sign-in failed"


class Event(Record):
    """Who did what, and when."""

    at: AwareDatetime
    who: str
    what: What
    job: str | None = None
    run: str | None = None
    detail: Annotated[str, Field(max_length=1_000)] = ""


def read_draft(given: Mapping[str, Any]) -> JobDraft:
    """Return the draft in the values of a form or a file.

    Raises InvalidJob, which has a sentence for each field that is wrong.
    """
    try:
        return JobDraft.model_validate(given)
    except ValidationError as error:
        problems: dict[str, str] = {}
        for found in error.errors(include_url=False):
            # Where there is a choice of types, the end of the place names one of them.
            parts = [str(part) for part in found["loc"] if isinstance(part, int) or part.isidentifier()]
            field = ".".join(parts)
            problems.setdefault(field, _sentence(field, found["msg"], found.get("ctx", {})))
        raise InvalidJob(problems) from error


def code_digest(files: Mapping[str, bytes]) -> str:
    """Return the identity of files by their relative paths: 64 hexadecimal digits."""
    lines = (f"{hashlib.sha256(content).hexdigest()} {path}\n" for path, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


_SENTENCES: Final = {
    "name": "use 1 to 64 small letters, digits, - and _, beginning with a letter or a digit",
    "request.dates": "give FIRST..LAST or one date as YYYY-MM-DD, today or yesterday, or one of "
    f"{ALL_DATES}, {PERIOD}, last-7-days (1 to {LAST_DAYS_MAX})",
    "code.entry": "name a Python file, such as script.py",
    "group": "this is not the name of a group",
}


def _sentence(field: str, message: str, context: Mapping[str, object]) -> str:
    """Return what is wrong with a field, for a person; patterns are of no use to them."""
    if field == "schedule.day":
        return f"give a day of the month from 1 to {MONTHLY_MAX_DAY}, or {LAST_DAY}"
    if "pattern" in context:
        if sentence := _SENTENCES.get(field):
            return sentence
        if field.startswith("notify.mails"):
            return "this is not a mail address"
        if field.startswith("notify.webhooks"):
            return "give the address of a web hook, https://host/path"
    return message.removeprefix("Value error, ")
