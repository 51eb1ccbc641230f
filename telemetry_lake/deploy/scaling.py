"""How many workers the drain needs: one decision without side effects, for every place that starts workers.

It adds fast and removes slowly:

- *out*: one worker for each `TARGET_BACKLOG_BYTES_PER_WORKER` of backlog, and one more while the oldest
  message is older than `AGE_MAX_SECONDS`; at most a doubling, and then nothing more until what was added can
  show its effect;
- *in*: one worker less when for `CALM_SECONDS` the backlog was below half the target, nothing was old,
  and the workers had so little to do that one less of them would be busy for at most
  `BUSY_SHARE_MAX_AFTER_REMOVAL` of the time.

Backlog alone cannot decide about *in*: it is small as soon as the workers keep up, so a drain that goes by it
removes a worker, falls behind, adds it, and so on for ever. Nor can it decide alone about *out*: when the
catalog is away the backlog grows and the workers have nothing to do, and more of them would change nothing.

`lake_testing/drain_model.py` is the drain that this was tried on, docs/scaling.md says what was seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from telemetry_lake.units import MIB

TARGET_BACKLOG_BYTES_PER_WORKER: Final = 320 * MIB
"""Raw objects whose messages are not deleted yet, waiting or in work: about 25 s of work of one core."""
AGE_MAX_SECONDS: Final = 60.0
"""Of the oldest message on the queue, from its sending; those in work count."""
DECIDE_EVERY_SECONDS: Final = 15.0
WORKER_START_SECONDS: Final = 60.0
"""From the decision to the first task of a new worker: 30 s of imports, and the machine under it."""
BUSY_WINDOW_SECONDS: Final = 60.0
"""Over this long it is averaged how busy the workers are before others are added."""
PERSISTS_SECONDS: Final = 30.0
"""Bytes count when they waited for this long: a batch that comes at once is work for the same workers."""
OUT_WAIT_SECONDS: Final = WORKER_START_SECONDS + BUSY_WINDOW_SECONDS
"""From one addition to the next."""
OUT_FACTOR_MAX: Final = 2
"""Workers after an addition, as a multiple of those before."""
BUSY_SHARE_MIN_TO_ADD: Final = 0.5
"""Below this share of busy workers a backlog has another reason than a lack of workers."""
CALM_SECONDS: Final = 900.0
"""From one removal, or the last moment that was not calm, to the next removal."""
CALM_BACKLOG_SHARE: Final = 0.5
"""Of the target: below it a moment is calm."""
CALM_AGE_SECONDS: Final = 45.0
"""Up to this age of the oldest message a moment is calm: fewer workers take longer for a batch."""
BUSY_SHARE_MAX_AFTER_REMOVAL: Final = 0.6
"""How busy the other workers may be with the work of a worker that is removed."""
CEILING_ALARM_SECONDS: Final = 900.0
"""The ceiling is an alarm when more workers were wanted for this long."""
WORKERS_MIN: Final = 1
CEILING_WORKERS: Final[Mapping[str, int]] = {"small": 2, "2014": 8}
"""The most workers of each environment in cloudformation/parameters."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one moment; `at_seconds` is any clock that never goes back.

    `workers` counts those that run or are being started, `busy_workers` those that have a task of any batch.
    Raises ValueError for numbers that cannot be.
    """

    at_seconds: float
    backlog_bytes: int
    oldest_age_seconds: float
    workers: int
    busy_workers: int

    def __post_init__(self) -> None:
        numbers = (self.backlog_bytes, self.oldest_age_seconds, self.workers, self.busy_workers)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"{self}: backlog, age and numbers of workers are finite and not negative")
        if self.busy_workers > self.workers:
            raise ValueError(
                f"{self}: {self.busy_workers} workers are busy, of {self.workers}: count them at one moment"
            )


@dataclass(frozen=True, slots=True)
class History:
    """What a decision has to know of earlier ones; each returns the history for the next."""

    recent: tuple[Observation, ...] = ()
    """Of the last CALM_SECONDS, oldest first."""
    added_at_seconds: float = -math.inf
    calm_since_seconds: float = math.inf
    """Since when every moment was calm, with the same number of workers; infinite when the last was not."""
    ceiling_since_seconds: float = math.inf
    """Since when more workers are wanted than may be; infinite when they are not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there should be, and why in a sentence; `at_ceiling` is an alarm."""

    workers: int
    why: str
    at_ceiling: bool
    history: History


def decide(now: Observation, history: History, *, ceiling_workers: int) -> Decision:
    """Return how many workers there should be.

    Never fewer than work at this moment, nor than `WORKERS_MIN`; more than `ceiling_workers` only while so
    many are busy. Raises ValueError for a ceiling below `WORKERS_MIN`, and for a clock that goes back.
    """
    if ceiling_workers < WORKERS_MIN:
        raise ValueError(f"a ceiling of {ceiling_workers} workers is below the minimum of {WORKERS_MIN}")
    history = _remember(now, history)
    workers, why, wants_more = _wanted(now, history, ceiling_workers)
    history = replace(
        history,
        added_at_seconds=now.at_seconds if workers > now.workers else history.added_at_seconds,
        calm_since_seconds=now.at_seconds if workers < now.workers else history.calm_since_seconds,
        ceiling_since_seconds=min(history.ceiling_since_seconds, now.at_seconds) if wants_more else math.inf,
    )
    at_ceiling = now.at_seconds - history.ceiling_since_seconds >= CEILING_ALARM_SECONDS
    return Decision(workers, why, at_ceiling, history)


def worker_to_remove(busy: Mapping[str, bool]) -> str | None:
    """Return the name of the worker to stop: the last one that is not busy, None when all are."""
    return max((name for name, is_busy in busy.items() if not is_busy), default=None)


def _remember(now: Observation, history: History) -> History:
    before = history.recent[-1] if history.recent else None
    if before is not None and now.at_seconds < before.at_seconds:
        raise ValueError(f"the clock went back from {before.at_seconds} to {now.at_seconds} seconds")
    recent = (*history.recent, now)
    first = next(
        index for index, seen in enumerate(recent) if seen.at_seconds >= now.at_seconds - CALM_SECONDS
    )
    is_calm = (
        now.backlog_bytes <= CALM_BACKLOG_SHARE * TARGET_BACKLOG_BYTES_PER_WORKER * now.workers
        and now.oldest_age_seconds <= CALM_AGE_SECONDS
    )
    goes_on = before is not None and before.workers == now.workers
    since = history.calm_since_seconds if goes_on else math.inf
    return replace(
        history,
        recent=recent[first:],
        calm_since_seconds=min(since, now.at_seconds) if is_calm else math.inf,
    )


def _wanted(now: Observation, history: History, ceiling_workers: int) -> tuple[int, str, bool]:
    """Return the number of workers, why, and whether the ceiling alone keeps it from being higher."""
    if now.workers < WORKERS_MIN:
        return WORKERS_MIN, f"{now.workers} workers run, and {WORKERS_MIN} always has to", False
    if now.workers > ceiling_workers and now.busy_workers < now.workers:
        kept = max(ceiling_workers, now.busy_workers)
        return kept, f"{now.workers} workers run, and {ceiling_workers} are the ceiling", False
    lasting = _lately(now, history, PERSISTS_SECONDS)
    # Not the least of it: an age falls with every batch that ends, and what was late was late.
    too_old = now.oldest_age_seconds > AGE_MAX_SECONDS
    by_bytes = math.ceil(min(seen.backlog_bytes for seen in lasting) / TARGET_BACKLOG_BYTES_PER_WORKER)
    needed = max(by_bytes, now.workers + 1 if too_old else 0)
    if needed > now.workers:
        return _out(now, history, needed, ceiling_workers)
    workers, why = _in(now, history)
    return workers, why, False


def _lately(now: Observation, history: History, seconds: float) -> list[Observation]:
    """Return what was seen at this moment and in the `seconds` before it."""
    return [seen for seen in history.recent if seen.at_seconds >= now.at_seconds - seconds]


def _out(now: Observation, history: History, needed: int, ceiling_workers: int) -> tuple[int, str, bool]:
    waits = (
        f"{now.backlog_bytes / MIB:,.0f} MiB wait or are in work, the oldest for "
        f"{now.oldest_age_seconds:,.0f} s, which is work for {needed} workers"
    )
    window = _lately(now, history, BUSY_WINDOW_SECONDS)
    busy, workers = sum(seen.busy_workers for seen in window), sum(seen.workers for seen in window)
    if busy < BUSY_SHARE_MIN_TO_ADD * workers:
        share = f"{busy / workers:.0%}" if workers else "none"
        return now.workers, f"{waits}, but {share} of {now.workers} are busy: more would not help", False
    if now.workers >= ceiling_workers:
        return now.workers, f"{waits}, and {ceiling_workers} are the ceiling", True
    if now.at_seconds - history.added_at_seconds < OUT_WAIT_SECONDS:
        return (
            now.workers,
            f"{waits}; {now.workers} run, of which the last need time to show their effect",
            False,
        )
    wanted = min(needed, OUT_FACTOR_MAX * now.workers, ceiling_workers)
    return wanted, f"{waits}; {now.workers} run", False


def _in(now: Observation, history: History) -> tuple[int, str]:
    calm_seconds = now.at_seconds - history.calm_since_seconds
    if now.workers == WORKERS_MIN:
        return now.workers, f"{now.workers} worker keeps up, and the last one stays"
    if calm_seconds < CALM_SECONDS:
        seconds = max(0.0, calm_seconds)
        return now.workers, f"{now.workers} workers keep up, with little to do for {seconds:,.0f} s"
    busy = sum(seen.busy_workers for seen in history.recent) / len(history.recent)
    if busy > BUSY_SHARE_MAX_AFTER_REMOVAL * (now.workers - 1):
        return now.workers, f"{busy:.1f} of {now.workers} workers were busy: one less would be too few"
    if now.busy_workers == now.workers:
        return now.workers, f"one of {now.workers} workers is too many, and all of them are busy just now"
    return (
        now.workers - 1,
        f"{busy:.1f} of {now.workers} workers were busy for {CALM_SECONDS / 60:.0f} minutes",
    )
