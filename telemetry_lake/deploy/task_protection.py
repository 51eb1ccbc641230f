"""Keep Amazon ECS from stopping the container of a Celery worker that has a task.

When a service gets smaller, ECS stops any of its containers, except those that protect themselves. Each does
so through the agent beside it, whose address ECS puts into `ECS_AGENT_URI`:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
"""

import logging
from typing import Final

import httpx
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_fixed

STATE_PATH: Final = "/task-protection/v1/state"
EXPIRES_MINUTES: Final = 120
"""A worker that dies with its task keeps its container for so long at most, and ECS starts another anyway."""
TIMEOUT_SECONDS: Final = 5.0
MAX_ATTEMPTS: Final = 3
RETRY_WAIT_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


def protect_while_tasks_run(agent: str) -> None:
    """Let this Celery worker protect its container from the beginning of each of its tasks to the end.

    It has to run one task at a time. A task whose protection the agent refuses runs all the same: each step
    of the drain may be run again.
    """
    from celery import signals

    def begins(**_: object) -> None:
        set_protection(agent, enabled=True)

    def ends(**_: object) -> None:
        set_protection(agent, enabled=False)

    # Celery keeps weak references otherwise, and nothing else keeps these functions.
    signals.task_prerun.connect(begins, weak=False)
    signals.task_postrun.connect(ends, weak=False)


def set_protection(agent: str, *, enabled: bool) -> bool:
    """Ask the agent to protect this container, or to let it be stopped. Returns whether it did."""
    wanted = {"ProtectionEnabled": enabled, **({"ExpiresInMinutes": EXPIRES_MINUTES} if enabled else {})}
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_fixed(RETRY_WAIT_SECONDS),
        before_sleep=before_sleep_log(_log, logging.DEBUG),
        reraise=True,
    )

    def ask() -> None:
        httpx.put(f"{agent}{STATE_PATH}", json=wanted, timeout=TIMEOUT_SECONDS).raise_for_status()

    try:
        retrying(ask)
    except httpx.HTTPError as error:
        _log.warning(
            "this container is %s from being scaled in: the agent of ECS answered %r",
            "not protected" if enabled else "still protected",
            error,
        )
        return False
    return True
