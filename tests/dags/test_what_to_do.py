"""The last line of a failed task says what to do, by the kind of failure, and hides nothing before it."""

import logging
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.spark_operator import TimeLimitReached
from plugins.what_to_do import ADVICE, BEGINNING, RUNBOOKS, on_task_instance_failed, what_to_do
from telemetry_lake.failures import (
    AccessRefused,
    ConfigurationError,
    DamagedRawObject,
    FatalError,
    GateAlarm,
    GateFailed,
    RetriableError,
)
from telemetry_lake.project_files import PROJECT_ROOT

DAMAGED = DamagedRawObject("raw/x is not Arrow\nand more")


def failed_by(cause: BaseException) -> AirflowFailException:
    """What `lake_connections` makes of a fatal error."""
    error = AirflowFailException(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, advice, runbook",
    [
        (AccessRefused("drain may not"), "give the role the right", "dagfailed"),
        (ConfigurationError("TELEMETRY_LAKE_X is wrong"), "correct the setting", "dagfailed"),
        (GateFailed("a check"), "replay the dead letters: the DAG Replay", "deadletters"),
        (GateAlarm("a check"), "replay the rejected pings", "rejectedunusual"),
        (DAMAGED, "put the right bytes", "deadletters"),
        (FatalError("anything"), "do what the message above says", "dagfailed"),
        (RetriableError("S3 is away"), "nothing if it stays the only one", "dagfailed"),
        (TimeLimitReached("too long"), "fewer dates or more machines", "dagfailed"),
        (ZeroDivisionError("division by zero"), "it is a defect", "dagfailed"),
    ],
)
def test_each_kind_of_failure_has_its_advice_and_runbook(error, advice, runbook):
    for raised in (error, failed_by(error)):
        line = what_to_do(raised, is_tried_again=False)
        assert line.startswith(BEGINNING)
        assert advice in line
        assert f" Runbook: {RUNBOOKS}#{runbook}. ({type(error).__name__}" in line or raised is not error
        assert "\n" not in line


def test_the_line_repeats_the_first_line_of_the_lakes_own_error_and_no_more():
    assert what_to_do(failed_by(DAMAGED), is_tried_again=False).endswith(
        "(DamagedRawObject: raw/x is not Arrow)"
    )
    assert len(what_to_do(FatalError("x" * 10_000), is_tried_again=False)) < 700


def test_a_task_that_is_tried_again_needs_nothing_yet():
    line = what_to_do(RetriableError("S3 is away"), is_tried_again=True)
    assert line == f"{BEGINNING}nothing yet, the task is tried again. (RetriableError: S3 is away)"


def test_a_job_that_failed_is_named_with_the_command_that_says_more():
    error = AirflowException("jobs.stable_pings ended with exit status 1: no such table")
    line = what_to_do(error, is_tried_again=False, job="jobs.stable_pings")
    assert "python -m jobs.stable_pings --debug" in line
    assert line.endswith("(AirflowException: jobs.stable_pings ended with exit status 1: no such table)")


def test_the_listener_logs_one_line_for_a_failure_in_its_process_and_none_for_a_state_set_by_hand(caplog):
    caplog.set_level(logging.INFO)
    task = SimpleNamespace(task=SimpleNamespace(module="jobs.count_pings"), state="failed")
    on_task_instance_failed(None, task, AirflowException("it ended"))
    assert caplog.messages[-1].startswith(f"{BEGINNING}do what the last lines of the job above say")
    caplog.clear()
    on_task_instance_failed(None, task, "set by a person")
    on_task_instance_failed(None, SimpleNamespace(state="failed"), AirflowException("it ended"))
    assert caplog.messages == []


@pytest.mark.skipif(not (PROJECT_ROOT / RUNBOOKS).exists(), reason="the runbooks are not written yet")
def test_every_runbook_that_a_line_names_exists():
    headings = (PROJECT_ROOT / RUNBOOKS).read_text(encoding="utf-8").lower()
    for _, _, alarm in (*ADVICE, (None, "", "DagFailed")):
        assert f"# {alarm.lower()}\n" in headings.replace("`", "")
