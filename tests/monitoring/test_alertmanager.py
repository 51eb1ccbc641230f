"""What a real Alertmanager tells: the outer watcher, and people by mail."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from lake_testing.notice_receivers import Mails, running_mail_server
from lake_testing.stack import wait_until
from local_stack.program import LOOPBACK
from telemetry_lake.monitoring.alarms import BY_NAME
from telemetry_lake.monitoring.alertmanager import alertmanager_configuration
from telemetry_lake.monitoring.watchdog import WATCHDOG, WatchersSilent, check_watchdog
from telemetry_lake.settings import AlertSettings, MailSecurity, MailSettings
from tests.monitoring.running_alertmanager import RunningAlertmanager

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None,
    reason="Alertmanager is not installed: apt-get install prometheus-alertmanager",
)


def test_the_outer_watcher_complains_unless_the_watchdog_holds_now(tmp_path: Path) -> None:
    alertmanager = RunningAlertmanager(tmp_path, alertmanager_configuration())
    with pytest.raises(WatchersSilent, match=f"does not answer at {alertmanager.url}"):
        check_watchdog(alertmanager.url)
    with alertmanager.running():
        alertmanager.tell("QueueOld")
        alertmanager.tell(WATCHDOG, ends_in=timedelta(seconds=-1))
        with pytest.raises(WatchersSilent, match="has not heard of Watchdog"):
            check_watchdog(alertmanager.url)
        alertmanager.tell(WATCHDOG)
        check_watchdog(f"{alertmanager.url}/")


def test_a_mail_says_what_is_wrong_and_what_to_do_and_none_comes_of_what_only_follows(tmp_path: Path) -> None:
    mails = Mails()
    with running_mail_server(mails) as port:
        configuration = alertmanager_configuration(
            MailSettings(host=LOOPBACK, port=port, security=MailSecurity.NONE),
            AlertSettings(page_mails=("on-call@example.org",)),
        )
        configuration["route"]["group_wait"] = "0s"
        alertmanager = RunningAlertmanager(tmp_path, configuration)
        with alertmanager.running():
            for name in ("S3Unreachable", "QueueOld", "SpoolFull"):
                alarm = BY_NAME[name]
                alertmanager.tell(
                    name,
                    labels={"severity": alarm.severity.value, "instance": "10.0.1.5:8010"},
                    annotations={"summary": f"{name} it is.", "runbook": alarm.runbook},
                )
            wait_until(lambda: len(mails.received) >= 2, deadline_seconds=60, what="two mails have come")
            subjects = sorted(mail["Subject"] for mail in mails.received)
            assert subjects == ["[FIRING] S3Unreachable", "[FIRING] SpoolFull"]
    mail = next(mail for mail in mails.received if "SpoolFull" in mail["Subject"])
    body = mail.get_body(("plain",))
    assert mail["To"] == "on-call@example.org"
    assert body is not None
    lines = body.get_content().splitlines()
    assert lines[0] == "SpoolFull (page): SpoolFull it is."
    assert lines[1].startswith("Since ")
    assert lines[2] == "What to do: docs/runbooks.md#spoolfull"
    assert "  instance: 10.0.1.5:8010" in lines
