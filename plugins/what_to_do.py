"""The last line of a failed task's log: what to do, by the kind of failure. One place for all tasks.

Airflow calls the listener below in the task's own process, after the traceback was logged and the callbacks
of the DAG were run. Nothing is hidden and nothing is decided here. A task whose process was killed says
nothing: then the last line is Airflow's own, about the signal.
"""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from telemetry_lake.failures import (
    AccessRefused,
    ConfigurationError,
    DamagedRawObject,
    FatalError,
    GateAlarm,
    GateFailed,
    RetriableError,
)

RUNBOOKS: Final = "docs/runbooks.md"
"""Each of its sections has the name of an alarm."""
BEGINNING: Final = "What to do: "
SHOWN_CHARACTERS: Final = 400
"""How much of the failure's first line is repeated."""
TIME_LIMITS: Final = ("TimeLimitReached", "AirflowTaskTimeout")
"""Exceptions by their names: what DAGs raise is not imported here, and Airflow's is moved now and then."""
AGAIN: Final = "then clear the task, or wait for the next run"
CHECKS: Final = "The page Audits shows what the checks found."

ADVICE: Final[tuple[tuple[type[BaseException], str, str], ...]] = (
    (AccessRefused, f"give the role the right that the message names, {AGAIN}.", "DagFailed"),
    (ConfigurationError, f"correct the setting or the file that the message names, {AGAIN}.", "DagFailed"),
    (
        GateFailed,
        f"{CHECKS} Mend the code, or the check, and replay the dead letters: the DAG Replay.",
        "DeadLetters",
    ),
    (
        GateAlarm,
        (
            f"{CHECKS} Nothing is held back but what was refused. Mend the schema and replay the rejected "
            "pings, or leave it if the clients are wrong."
        ),
        "RejectedUnusual",
    ),
    (
        DamagedRawObject,
        (
            "put the right bytes under the key that the message names, or delete what is no raw object; then "
            "replay the dead letters."
        ),
        "DeadLetters",
    ),
    (FatalError, "do what the message above says: trying again without that cannot help.", "DagFailed"),
    (
        RetriableError,
        (
            "nothing if it stays the only one: the next run goes on where this one stopped. If it comes "
            "again, see that S3, the queue and the catalog answer."
        ),
        "DagFailed",
    ),
)
"""Kinds of failures, each before those that it derives from, with what to do and an alarm's runbook."""


def what_to_do(error: object, *, is_tried_again: bool, job: str | None = None) -> str:
    """Return the last line about a failure.

    `job` is the program that the task ran, if it ran one: its own last lines say more than the error.
    """
    cause = next((each for each in _chain(error) if isinstance(each, (FatalError, RetriableError))), None)
    if is_tried_again:
        return f"{BEGINNING}nothing yet, the task is tried again. {_quoted(cause or error)}"
    advice, runbook = _advice(error, cause, job)
    return f"{BEGINNING}{advice} Runbook: {RUNBOOKS}#{runbook.lower()}. {_quoted(cause or error)}"


def _advice(error: object, cause: BaseException | None, job: str | None) -> tuple[str, str]:
    for kind, advice, runbook in ADVICE:
        if isinstance(cause, kind):
            return advice, runbook
    if any(type(each).__name__ in TIME_LIMITS for each in _chain(error)):
        return (
            (
                "see above how far it came. Clear the task to go on from there; if it is always too slow, "
                "give it fewer dates or more machines."
            ),
            "DagFailed",
        )
    if job is not None:
        return (
            (
                f"do what the last lines of the job above say, {AGAIN}. The same by hand, with more to read: "
                f"python -m {job} --debug"
            ),
            "DagFailed",
        )
    return (
        (
            "clear the task: trying again changes nothing that is done. If it fails again it is a defect, "
            "and the traceback above says where."
        ),
        "DagFailed",
    )


def _chain(error: object) -> Iterator[BaseException]:
    """Yield the error and what caused it."""
    while isinstance(error, BaseException):
        yield error
        error = error.__cause__


def _quoted(error: object) -> str:
    first_line = str(error or "").strip().partition("\n")[0]
    kind = type(error).__name__ if isinstance(error, BaseException) else "Failure"
    return f"({kind}: {first_line[:SHOWN_CHARACTERS]})"


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """Log what to do, when a task has failed in this process, and not when a person said that it has."""
    task = getattr(task_instance, "task", None)
    if not isinstance(error, BaseException) or task is None:
        return
    log = logging.getLogger(__name__)
    # Airflow's log viewer folds what it logs after a failure; this line is to be seen at once.
    log.info("::endgroup::")
    line = what_to_do(
        error,
        is_tried_again=str(task_instance.state) == "up_for_retry",
        job=getattr(task, "module", None),
    )
    log.error("%s", line)


class WhatToDo(AirflowPlugin):
    """Adds the last line to the log of every task that fails."""

    name = "what_to_do"
    listeners = [SimpleNamespace(on_task_instance_failed=on_task_instance_failed)]  # noqa: RUF012
