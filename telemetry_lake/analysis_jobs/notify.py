"""Tell people by mail and web hook how a run of their job ended, once.

Whom to tell, and of what, is in the job as it is when the run ends: who does not want to be told any more
edits the job. Before anything is sent, a mark is written on the condition that there is none, so that of
several processes that see the end of a run one tells of it.

A mail goes to each address by itself; `telemetry_lake.notices` sends it.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field

from telemetry_lake.analysis_jobs.documents import Job, Notify, NotifyOn, Outcome, RunRequest, RunState
from telemetry_lake.analysis_jobs.run import page_in_service
from telemetry_lake.analysis_jobs.store import JobNotFound, JobStore
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.notices import NOT_SENT, call_hook, receiver_digest, send_mail, shown_hook
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import notified_key
from telemetry_lake.storage.records import Record, RecordStore

ERROR_MAX_CHARACTERS: Final = 2_000
"""How much of the error of a run is sent; the page of the run has all of it."""
_BAD: Final = (RunState.FAILED, RunState.TIMED_OUT)
_HAS_ENDED: Final = {
    NotifyOn.FAILURE: "failed",
    NotifyOn.TIMEOUT: "was stopped at its time limit",
    NotifyOn.SUCCESS: "succeeded",
    NotifyOn.RECOVERY: "succeeded again",
}

_log = logging.getLogger(__name__)


class Notified(Record):
    """The mark that people were told of an event, and to whom that did not work, and why."""

    at: AwareDatetime
    told: Annotated[int, Field(ge=0)] = 0
    problems: tuple[str, ...] = ()


class Notifier:
    """Tells of the ends of runs; `on_end` is made for `Runs`."""

    def __init__(self, jobs: JobStore, settings: Settings) -> None:
        """`settings` are those of a process that acts as `Role.ANALYSES`."""
        self._jobs = jobs
        self._settings = settings
        self._records = RecordStore(jobs.objects, jobs.bucket)

    def on_end(self, request: RunRequest, outcome: Outcome, previous: RunState | None) -> None:
        """Tell who wants to know that a run has ended; never raises."""
        try:
            job = self._jobs.get(request.job) if request.job is not None else None
            if job is not None and (event := event_of(job.notify, outcome.state, previous)) is not None:
                self._tell(job, request, outcome, event)
        except JobNotFound:
            pass
        except TelemetryLakeError as error:
            _log.warning("nobody is told of the end of %s: %s", request.run_id, error)

    def _tell(self, job: Job, request: RunRequest, outcome: Outcome, event: NotifyOn) -> None:
        key = notified_key(request.run_id, event)
        if not self._records.put_if_absent(key, Notified(at=datetime.now(UTC))):
            return
        told, problems = 0, []
        for whom, send in self._sendings(job, request, outcome, event):
            try:
                send()
                told += 1
            except NOT_SENT as error:
                problems.append(f"{whom}: {type(error).__name__}: {error}"[:500])
                _log.warning("%s is not told of the end of %s: %s", whom, request.run_id, error)
        done = Notified(at=datetime.now(UTC), told=told, problems=tuple(problems))
        self._jobs.objects.put(self._jobs.bucket, key, done.model_dump_json().encode())

    def _sendings(
        self, job: Job, request: RunRequest, outcome: Outcome, event: NotifyOn
    ) -> Iterable[tuple[str, Callable[[], None]]]:
        """Yield whom to tell, as it may be shown, and what does it."""
        page = page_in_service(self._settings.analysis, request.run_id)
        mail = self._settings.mail
        for address in dict.fromkeys(job.notify.mails):
            message = mail_of(mail.sender, address, job, request, outcome, event, page)
            yield address, partial(send_mail, mail, message)
        hooks = self._settings.webhooks
        content = hook_of(request, outcome, event, page)
        for url in dict.fromkeys(job.notify.webhooks):
            key = f"{content['run']}/{content['event']}"
            yield shown_hook(url), partial(call_hook, hooks, url, content, idempotency_key=key)


def event_of(notify: Notify, state: RunState, previous: RunState | None) -> NotifyOn | None:
    """Return of what to tell those who want to be told, None of nothing."""
    events = {RunState.FAILED: [NotifyOn.FAILURE], RunState.TIMED_OUT: [NotifyOn.TIMEOUT]}.get(state, [])
    if state is RunState.SUCCESS:
        events = [*([NotifyOn.RECOVERY] if previous in _BAD else []), NotifyOn.SUCCESS]
    return next((event for event in events if event in notify.on), None)


def mail_of(
    sender: str,
    address: str,
    job: Job,
    request: RunRequest,
    outcome: Outcome,
    event: NotifyOn,
    page: str | None,
) -> EmailMessage:
    """Return the mail about the end of a run. Raises ValueError when a line break is in a header."""
    message = EmailMessage()
    message["From"], message["To"] = sender, address
    message["Subject"] = f"[telemetry] {job.name} {_HAS_ENDED[event]}"
    message["Date"] = format_datetime(outcome.ended_at)
    message["Message-ID"] = f"<{request.run_id}.{event}.{receiver_digest(address)}@telemetry-lake>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [
        f"The job {job.name} of {job.owner} {_HAS_ENDED[event]}.",
        "",
        f"Run: {request.run_id}",
        f"Ended: {outcome.ended_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, after {outcome.seconds:,.0f} s",
    ]
    if outcome.state is RunState.SUCCESS:
        lines.append(f"Result: {request.output}")
    if page is not None:
        lines.append(f"Page: {page}")
    if outcome.error:
        lines += ["", outcome.error[:ERROR_MAX_CHARACTERS]]
    lines += ["", "You get this because the job names your address. To get no more of them, edit the job."]
    message.set_content("\n".join(lines))
    return message


def hook_of(request: RunRequest, outcome: Outcome, event: NotifyOn, page: str | None) -> dict[str, Any]:
    """Return what a web hook is sent, as JSON."""
    return {
        "event": event.value,
        "job": request.job,
        "run": request.run_id,
        "state": outcome.state.value,
        "owner": request.owner,
        "ended_at": outcome.ended_at.astimezone(UTC).isoformat(),
        "seconds": outcome.seconds,
        "records": outcome.records,
        "error": outcome.error[:ERROR_MAX_CHARACTERS] if outcome.error else None,
        "page": page,
    }
