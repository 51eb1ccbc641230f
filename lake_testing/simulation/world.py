"""The world of one simulation: its clock, its processes, and the faults that a seed brings.

Processes are greenlets. Each call to a service is a point at which the scheduler may let another process go
first, and at which a fault may strike. Everything that is drawn at call number n depends on the seed and n
alone, so that a world without one of its faults is otherwise drawn alike: that is what makes shrinking work.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final, NoReturn, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

START: Final = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
CALL_MAX_SECONDS: Final = 0.2
"""How long a call to a service takes at most."""
CALLS_MAX_COUNT: Final = 200_000
"""A world that makes more calls than this does not come to rest."""

T = TypeVar("T")


class Service(StrEnum):
    """What a call may be made to."""

    S3 = "s3"
    SQS = "sqs"
    CATALOG = "catalog"


class Fault(StrEnum):
    """What may happen to a call."""

    REFUSED = "refused"
    """The service answers with an error and does nothing."""
    ANSWER_LOST = "answer lost"
    """The service does what was asked, and the answer does not arrive."""
    KILLED_BEFORE = "killed before"
    """The process ends before the call."""
    KILLED_AFTER = "killed after"
    """The process ends after the call."""


class Killed(BaseException):
    """The process was killed: no handler of errors sees this."""


class DidNotComeToRest(AssertionError):
    """The world made more calls than any honest one needs."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A service that refuses every call from one moment to another."""

    service: Service
    first: datetime
    last: datetime


class World:
    """A clock, processes and faults; `faults` maps the number of a call to what happens to it."""

    def __init__(self, seed: int, faults: Mapping[int, Fault], outages: Sequence[Outage] = ()) -> None:
        self.seed = seed
        self.now = START
        self.calls = 0
        self.faults = dict(faults)
        self.outages = list(outages)
        self.calls_of: Counter[Service] = Counter()
        self.log: list[str] = []
        """The faults that struck, in order, for the report of a failure."""
        self._scheduler = getcurrent()
        self._dead: set[greenlet] = set()

    def chance(self) -> Random:
        """Return the source of chance at the present call; it depends on the seed and the call's number."""
        return Random(self.seed * 1_000_003 + self.calls)

    def wait(self, seconds: float) -> None:
        """Let time pass; nothing else runs meanwhile unless the process makes a call."""
        self.now += timedelta(seconds=seconds)

    def call(
        self, service: Service, act: Callable[[], T], refuse: Callable[[str], Exception], what: str
    ) -> T:
        """Make a call to a service.

        Returns what `act` returns. Raises what `refuse` makes of a sentence when the call is refused or its
        answer lost, Killed when the process is killed, and whatever `act` raises.
        """
        process = getcurrent()
        if process in self._dead:
            raise Killed(what)
        if process is not self._scheduler:
            self._scheduler.switch()
        if process in self._dead:
            raise Killed(what)
        self.calls += 1
        self.calls_of[service] += 1
        if self.calls > CALLS_MAX_COUNT:
            raise DidNotComeToRest(f"more than {CALLS_MAX_COUNT} calls")
        self.wait(self.chance().random() * CALL_MAX_SECONDS)
        fault = self.faults.get(self.calls) if process is not self._scheduler else None
        if fault is not None:
            self.log.append(f"call {self.calls} at {self.now:%m-%d %H:%M:%S}, {what}: {fault}")
        if fault is Fault.KILLED_BEFORE:
            self.kill(what)
        if fault is Fault.REFUSED or self._is_out(service):
            raise refuse(f"{what}: refused")
        result = act()
        if fault is Fault.KILLED_AFTER:
            self.kill(what)
        if fault is Fault.ANSWER_LOST:
            raise refuse(f"{what}: the answer was lost")
        return result

    def run(self, processes: Sequence[Callable[[], object]]) -> list[BaseException | None]:
        """Run these processes side by side until each has ended.

        Returns what each ended with: None, Killed, or the exception that it raised.
        """
        ends: list[BaseException | None] = [None] * len(processes)

        def guarded(number: int, act: Callable[[], object]) -> None:
            try:
                act()
            except GreenletExit:
                raise
            except BaseException as end:  # noqa: BLE001  (a killed process is an outcome here)
                ends[number] = end

        running = [
            greenlet(lambda number=number, act=act: guarded(number, act), self._scheduler)
            for number, act in enumerate(processes)
        ]
        while running:
            chosen = running[self.chance().randrange(len(running))] if len(running) > 1 else running[0]
            chosen.switch()
            running = [process for process in running if not process.dead]
        self._dead.clear()
        for end in ends:
            if isinstance(end, AssertionError):
                raise end
        return ends

    def revive(self) -> None:
        """Start the present process again after it was killed: its supervisor does."""
        self._dead.discard(getcurrent())

    def kill(self, what: str) -> NoReturn:
        """Kill the present process; what its handlers still try to do reaches no service."""
        self._dead.add(getcurrent())
        raise Killed(what)

    def _is_out(self, service: Service) -> bool:
        return any(
            outage.service is service and outage.first <= self.now <= outage.last for outage in self.outages
        )
