"""People are told of the end of a run: once, by a real mail server and a real web hook, and by no others."""

import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from aiosmtpd.smtp import AuthResult
from pydantic import SecretStr

from lake_testing.notice_receivers import REFUSED_MAILBOX, Hook, Mails, running_hook, running_mail_server
from local_stack.program import LOOPBACK
from telemetry_lake.analysis_jobs.documents import (
    Job,
    JobDraft,
    Notify,
    NotifyOn,
    Outcome,
    RunRequest,
    RunState,
    Visibility,
)
from telemetry_lake.analysis_jobs.notify import (
    Notified,
    Notifier,
    event_of,
    mail_of,
)
from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.mapreduce.form import AnalysisRequest
from telemetry_lake.notices import NotTold, allowed_address
from telemetry_lake.settings import MailSettings, Settings, WebhookSettings
from telemetry_lake.storage.object_keys import notified_key
from telemetry_lake.storage.records import RecordStore

ANN: Final = Person("ann")
NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
RUN: Final = "job.os.20261123T120000Z"
ALL: Final = [event.value for event in NotifyOn]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        (
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "3", "-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ),
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def mails(certificate: tuple[Path, Path]) -> Iterator[tuple[Mails, MailSettings]]:
    """A mail server that asks for TLS and a password, and the settings to reach it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    mails = Mails()

    def check(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"lake", b"hush"))

    with running_mail_server(
        mails, tls_context=context, require_starttls=True, authenticator=check, auth_required=True
    ) as port:
        yield (
            mails,
            MailSettings(
                host=LOOPBACK,
                port=port,
                certificates_file=certificate[0],
                user="lake",
                password=SecretStr("hush"),
                sender="lake@example.org",
                retry_wait_seconds=0,
            ),
        )


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A web hook on loopback."""
    with running_hook() as hook:
        yield hook


def request_of(job: Job | None) -> RunRequest:
    return RunRequest(
        run_id=RUN,
        job=None if job is None else job.name,
        version=1,
        code=None,
        request=AnalysisRequest(script="/a.py"),
        owner="ann",
        group=None,
        visibility=Visibility.PRIVATE,
        asked_by="ann",
        asked_at=NOW,
        output="s3://lake/analyses/runs/x/output.txt",
        machines=1,
    )


def outcome_of(state: RunState, error: str | None = None) -> Outcome:
    return Outcome(
        state=state,
        error=error,
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=90),
        records=5,
        machines=1,
    )


@pytest.mark.parametrize(
    "state, previous, event",
    [
        (RunState.FAILED, None, NotifyOn.FAILURE),
        (RunState.TIMED_OUT, RunState.FAILED, NotifyOn.TIMEOUT),
        (RunState.SUCCESS, RunState.SUCCESS, NotifyOn.SUCCESS),
        (RunState.SUCCESS, RunState.TIMED_OUT, NotifyOn.RECOVERY),
        (RunState.SUCCESS, None, NotifyOn.SUCCESS),
        (RunState.CANCELLED, RunState.FAILED, None),
    ],
)
def test_what_people_are_told_of(state: RunState, previous: RunState | None, event: NotifyOn | None) -> None:
    assert event_of(Notify(on=tuple(NotifyOn)), state, previous) is event
    assert event_of(Notify(), state, previous) is None
    only_success = event_of(Notify(on=(NotifyOn.SUCCESS,)), state, previous)
    assert only_success is (NotifyOn.SUCCESS if state is RunState.SUCCESS else None)


def test_people_are_told_once_however_often_the_end_is_seen(
    jobs: JobStore,
    draft: Callable[..., JobDraft],
    lake_settings: Settings,
    mails: tuple[Mails, MailSettings],
    hook: Hook,
) -> None:
    server, mail = mails
    server.answers = ["451 try again later"]
    hook.answers = [HTTPStatus.SERVICE_UNAVAILABLE]
    url = f"{hook.url}/hook/token?a=b"
    told = {"on": ALL, "mails": ["ann@example.org", REFUSED_MAILBOX], "webhooks": [url]}
    job = jobs.create(ANN, draft(notify=told))
    settings = lake_settings.model_copy(
        update={
            "mail": mail,
            "webhooks": WebhookSettings(allow_private_addresses=True, retry_wait_seconds=0),
            "analysis": lake_settings.analysis.model_copy(update={"service_url": "https://lake.example.org"}),
        }
    )
    notifier = Notifier(jobs, settings)
    outcome = outcome_of(RunState.FAILED, "script.py:2 (value['x']): TypeError")
    for _ in range(2):
        notifier.on_end(request_of(job), outcome, None)
    (received,) = server.received
    assert (server.recipients, server.encrypted) == ([["ann@example.org"]], [True])
    assert (received["From"], received["Subject"]) == ("lake@example.org", "[telemetry] os failed")
    text = received.get_content()
    assert "script.py:2 (value['x']): TypeError" in text
    assert f"https://lake.example.org/analyses/runs/{RUN}" in text
    assert "To get no more of them, edit the job" in text
    assert [call.path for call in hook.received] == ["/hook/token?a=b"] * 2, "503 is tried again"
    assert hook.received[1].idempotency_key == f"{RUN}/failure"
    assert b'"state":"failed"' in hook.received[1].body.replace(b" ", b"")
    mark = RecordStore(jobs.objects, jobs.bucket).read(notified_key(RUN, "failure"), Notified)
    assert mark is not None
    assert (mark.told, len(mark.problems)) == (2, 1)
    assert mark.problems[0].startswith("nobody@example.org: SMTPRecipientsRefused")

    # Who does not want to be told any more edits the job.
    edited = {**job.draft.model_dump(mode="json"), "notify": {}}
    jobs.save(ANN, JobDraft.model_validate(edited), job.version)
    notifier.on_end(request_of(job), outcome_of(RunState.SUCCESS), RunState.FAILED)
    notifier.on_end(request_of(None), outcome, None)
    assert len(server.received) == 1


def test_a_server_that_cannot_prove_who_it_is_gets_no_mail(
    jobs: JobStore,
    draft: Callable[..., JobDraft],
    lake_settings: Settings,
    mails: tuple[Mails, MailSettings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, mail = mails
    job = jobs.create(ANN, draft(notify={"on": ALL, "mails": ["ann@example.org"]}))
    unknown = mail.model_copy(update={"certificates_file": None})
    Notifier(jobs, lake_settings.model_copy(update={"mail": unknown})).on_end(
        request_of(job), outcome_of(RunState.FAILED), None
    )
    assert server.received == []
    assert "certificate verify failed" in caplog.text
    assert "hush" not in caplog.text


def test_hooks_in_private_networks_are_not_called_and_redirects_not_followed(
    jobs: JobStore,
    draft: Callable[..., JobDraft],
    lake_settings: Settings,
    hook: Hook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"{hook.url.replace(LOOPBACK, 'localhost')}/hook/token"
    job = jobs.create(ANN, draft(notify={"on": ALL, "webhooks": [url]}))
    Notifier(jobs, lake_settings).on_end(request_of(job), outcome_of(RunState.FAILED), None)
    assert hook.received == []
    assert "in a private network, or on this machine" in caplog.text
    hook.answers = [HTTPStatus.FOUND]
    allowed = WebhookSettings(allow_private_addresses=True, retry_wait_seconds=0)
    settings = lake_settings.model_copy(update={"webhooks": allowed})
    Notifier(jobs, settings).on_end(request_of(job), outcome_of(RunState.TIMED_OUT), None)
    assert len(hook.received) == 1
    assert "it answers 302" in caplog.text
    assert "token" not in caplog.text


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "fd00::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(NotTold, match="in a private network"):
        allowed_address(host, 80, allow_private=False)
    assert allowed_address(host, 80, allow_private=True) == host
    assert allowed_address("9.9.9.9", 443, allow_private=False) == "9.9.9.9"


def test_a_line_break_cannot_add_a_header(jobs: JobStore, draft: Callable[..., JobDraft]) -> None:
    job = jobs.create(ANN, draft())
    arguments = (job, request_of(job), outcome_of(RunState.FAILED), NotifyOn.FAILURE, None)
    for address in ("ann@example.org\r\nBcc: all@example.org", "ann@example.org\nX: y"):
        with pytest.raises(ValueError, match="linefeed or carriage return"):
            mail_of("lake@example.org", address, *arguments)
