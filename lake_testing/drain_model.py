"""A drain on a clock of its own, for trying `telemetry_lake/deploy/scaling.py`.

It has what matters for that decision: segments are sealed when they are full or old, a run claims up to a
batch, its steps follow one another with a pause for the scheduler between them, parts of a batch are
converted side by side, a worker does one task at a time and needs a minute to start. The figures are those of
docs/performance.md.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from telemetry_lake.deploy.scaling import (
    DECIDE_EVERY_SECONDS,
    WORKER_START_SECONDS,
    Decision,
    History,
    Observation,
    decide,
    worker_to_remove,
)
from telemetry_lake.units import MIB

BYTES_OF_PING: Final = 16_600
"""With gzip, as benchmarks.convert measures it."""
PEAK_PINGS_PER_SECOND: Final = 732
STEPS_BEFORE: Final = (1,)
"""Seconds of the tasks before conversion: claim."""
STEPS_AFTER: Final = (2, 1, 1)
"""Seconds of the tasks after it: validate, publish, acknowledge."""
PAUSE_SECONDS: Final = 1
"""Of the scheduler, between two steps of a run."""
RUNS_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What a drain is like."""

    worker_bytes_per_second: float = 13_400_000
    """That one worker converts: 805 pings a second and core, with everything that belongs to it."""
    writers: int = 2
    """Accept workers, each with a segment of its own."""
    segment_max_bytes: int = 64 * MIB
    segment_max_age_seconds: int = 60
    batch_max_bytes: int = 512 * MIB
    part_max_bytes: int = 32 * MIB
    ceiling_workers: int = 8


@dataclass(slots=True)
class _Worker:
    name: str
    ready_at: float
    busy_until: float = 0.0


@dataclass(slots=True)
class _Run:
    claimed: list[tuple[float, int]]
    steps: "deque[list[float]]"
    """Seconds of each task of each step that is to come."""
    open_tasks: list[float] = field(default_factory=list)
    step_ends_at: float = 0.0


@dataclass(slots=True)
class Moment:
    """What was seen at one decision."""

    seen: Observation
    decision: Decision


class DrainModel:
    """One drain; `pings_per_second` and `is_away` are functions of the seconds since its start.

    While it is away nothing is claimed, and what is in work is finished.
    """

    def __init__(
        self,
        shape: Shape,
        pings_per_second: Callable[[float], float],
        *,
        is_away: Callable[[float], bool] = lambda _: False,
        workers: int = 1,
    ) -> None:
        self._shape = shape
        self._rate = pings_per_second
        self._is_away = is_away
        self.now = 0.0
        self.queue: deque[tuple[float, int]] = deque()
        self.removed_busy = 0
        """Workers that were removed with a task on them."""
        self.removed = 0
        self._segments = [number * shape.segment_max_bytes / shape.writers for number in range(shape.writers)]
        self._opened = [float(-number) for number in range(shape.writers)]
        self._runs: list[_Run] = []
        self._workers: list[_Worker] = []
        self._started = 0
        self._history = History()
        self._resize(workers, ready_at=0.0)

    def run(self, seconds: float) -> Iterator[Moment]:
        """Let `seconds` pass, second by second; yields every decision."""
        ends = self.now + seconds
        while self.now < ends:
            self._receive()
            self._work()
            if self.now % DECIDE_EVERY_SECONDS == 0:
                yield self._decide()
            self.now += 1

    def add_backlog(self, total_bytes: int) -> None:
        """Put full segments on the queue."""
        whole, rest = divmod(total_bytes, self._shape.segment_max_bytes)
        self.queue.extend((self.now, self._shape.segment_max_bytes) for _ in range(whole))
        if rest:
            self.queue.append((self.now, rest))

    def observe(self) -> Observation:
        """Return what a controller would see."""
        open_segments = [*self.queue, *(segment for run in self._runs for segment in run.claimed)]
        return Observation(
            at_seconds=self.now,
            backlog_bytes=sum(size for _, size in open_segments),
            oldest_age_seconds=max((self.now - sealed_at for sealed_at, _ in open_segments), default=0.0),
            workers=len(self._workers),
            busy_workers=sum(worker.busy_until > self.now for worker in self._workers),
        )

    def _receive(self) -> None:
        arriving = self._rate(self.now) * BYTES_OF_PING / self._shape.writers
        for writer in range(self._shape.writers):
            self._segments[writer] += arriving
            is_old = self.now - self._opened[writer] >= self._shape.segment_max_age_seconds
            while self._segments[writer] >= self._shape.segment_max_bytes or (
                is_old and self._segments[writer] > 0
            ):
                size = min(self._segments[writer], self._shape.segment_max_bytes)
                self.queue.append((self.now, math.ceil(size)))
                self._segments[writer] -= size
                self._opened[writer] = self.now

    def _work(self) -> None:
        for run in self._runs:
            if not run.open_tasks and run.steps and run.step_ends_at + PAUSE_SECONDS <= self.now:
                run.open_tasks = list(run.steps.popleft())
        self._runs = [run for run in self._runs if run.steps or run.open_tasks or run.step_ends_at > self.now]
        while self.queue and len(self._runs) < RUNS_AT_ONCE and not self._is_away(self.now):
            self._runs.append(self._claim())
        idle = [worker for worker in self._workers if max(worker.ready_at, worker.busy_until) <= self.now]
        for run in self._runs:
            while run.open_tasks and idle:
                ends = self.now + run.open_tasks.pop()
                idle.pop().busy_until = ends
                run.step_ends_at = max(run.step_ends_at, ends)

    def _claim(self) -> _Run:
        claimed: list[tuple[float, int]] = []
        while self.queue and sum(size for _, size in claimed) < self._shape.batch_max_bytes:
            claimed.append(self.queue.popleft())
        total = sum(size for _, size in claimed)
        parts = max(1, math.ceil(total / self._shape.part_max_bytes))
        seconds = total / parts / self._shape.worker_bytes_per_second
        before, after = ([float(task)] for task in STEPS_BEFORE), ([float(task)] for task in STEPS_AFTER)
        steps = deque([*before, [seconds] * parts, *after])
        return _Run(claimed, steps, step_ends_at=self.now - PAUSE_SECONDS)

    def _decide(self) -> Moment:
        seen = self.observe()
        decision = decide(seen, self._history, ceiling_workers=self._shape.ceiling_workers)
        self._history = decision.history
        self._resize(decision.workers, ready_at=self.now + WORKER_START_SECONDS)
        return Moment(seen, decision)

    def _resize(self, workers: int, *, ready_at: float) -> None:
        while len(self._workers) < workers:
            self._started += 1
            self._workers.append(_Worker(f"worker-{self._started:06}", ready_at))
        while len(self._workers) > workers:
            busy = {worker.name: worker.busy_until > self.now for worker in self._workers}
            name = worker_to_remove(busy)
            self.removed += 1
            if name is None:
                self.removed_busy += 1
                name = self._workers[-1].name
            self._workers = [worker for worker in self._workers if worker.name != name]


def day_of_2014(seconds: float) -> float:
    """Return the pings per second at this time of a day: 732 in the peak hour, a third of it at night.

    Of 2014 the peak is known; the form, a wave with one peak, is what a population of one continent sends.
    """
    hours = seconds / 3_600 % 24
    middle, swing = PEAK_PINGS_PER_SECOND * 2 / 3, PEAK_PINGS_PER_SECOND / 3
    return middle + swing * math.cos((hours - 16) / 24 * 2 * math.pi)
