"""Convert pings in processes of their own, so that one that cannot be converted costs no other.

A budget is asked of every ping while it is read (`docs/conversion.md`), and no budget foresees everything: a
ping may still end the process that converts it, take all memory, never come to an end, or meet a defect.
Where that has happened, raw objects are converted here. A worker with limits of memory and of time converts a
record batch at a time, at nearly the usual speed. A record batch that fails is converted ping by ping, and a
ping that fails twice, each time in a fresh worker, is a rejected row.

A worker costs three seconds, and is not forked: Polars, which every conversion uses, would not survive that.
What it converts comes back as Arrow tables; this process touches no document.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from signal import SIGXCPU, Signals
from types import TracebackType
from typing import Final, Self

import pyarrow as pa

from telemetry_lake.convert.converter import Conversion, Converter, Received
from telemetry_lake.failures import ErrorType, FatalError, PingRejected, Stage, TelemetryLakeError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.units import MIB

START_MAX_SECONDS: Final = 300.0
"""How long a worker may take to start; mostly three, but after an install it compiles the parser first."""
WALL_PER_CPU_SECOND: Final = 10
"""How much longer than its CPU time a conversion may take: definitions may be fetched meanwhile."""
TRIES: Final = 2
"""A worker can also be killed for what others did, as by the kernel when memory is short."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to convert; `invented_types` are those of the raw object so far."""

    raw_key: str
    position: int
    """Of the first ping of `batch` in the raw object."""
    batch: pa.RecordBatch
    invented_types: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker made of its order."""

    conversions: Sequence[Conversion]
    invented_types: frozenset[str]


class IsolatedConverter:
    """Converts raw objects as a `Converter` does, in workers. To be closed, as a context.

    `converter` says what is common to all pings: it makes the rows of those that failed.
    """

    def __init__(self, settings: Settings, converter: Converter) -> None:
        self._settings = settings
        self._converter = converter
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def convert(self, raw: Received) -> Iterator[Conversion]:
        """Yield the pings of `raw` as rows.

        Raises DamagedRawObject, FatalError when no worker can be started, and what a converter raises that is
        not about one ping.
        """
        position = 0
        invented_types: frozenset[str] = frozenset()
        for batch in raw.record_batches():
            try:
                answer = self._converted(Order(raw.key, position, batch, invented_types))
            except PingRejected:
                for row in range(batch.num_rows):
                    one = Order(raw.key, position + row, batch.take(pa.array([row])), invented_types)
                    answer = self._converted_or_rejected(one)
                    invented_types = answer.invented_types
                    yield from answer.conversions
            else:
                invented_types = answer.invented_types
                yield from answer.conversions
            position += batch.num_rows

    def _converted_or_rejected(self, order: Order) -> Answer:
        for _ in range(TRIES - 1):
            with suppress(PingRejected):
                return self._converted(order)
        try:
            return self._converted(order)
        except PingRejected as why:
            rejected = self._converter.reject(order.raw_key, order.batch, order.position, why)
            return Answer([rejected], order.invented_types)

    def _converted(self, order: Order) -> Answer:
        """Return what a worker makes of an order; raises PingRejected when it fails, for its only ping."""
        if self._worker is None:
            self._worker = _Worker(self._settings)
        try:
            return self._worker.convert(order)
        except BaseException:
            # What it has half done, and the memory that it has, are not to matter to the next order.
            self._worker.end()
            self._worker = None
            raise


class _Worker:
    """A process that converts one order after another."""

    def __init__(self, settings: Settings) -> None:
        """Start it; raises FatalError when it does not come so far that it could convert anything."""
        self._cpu_seconds = settings.conversion.isolated_cpu_max_seconds
        self._memory_bytes = settings.conversion.isolated_memory_max_bytes
        ours, its = socket.socketpair()
        with its:
            # Not by `multiprocessing`, which would load the main module of Airflow's task in it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.isolated_worker", str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=PROJECT_ROOT,
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(settings)
            if not self._connection.poll(START_MAX_SECONDS):
                raise EOFError
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.end()
            raise FatalError(
                "a process to convert pings in did not start: its error message is in the log of the worker"
            ) from error

    def convert(self, order: Order) -> Answer:
        """Return the rows; raises PingRejected when they were too costly, or what the conversion raised."""
        try:
            self._connection.send(order)
            if not self._connection.poll(WALL_PER_CPU_SECOND * self._cpu_seconds):
                raise _failed(ErrorType.TOO_COSTLY, "it did not come to an end")
            answer: Answer | Exception = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _failed(ErrorType.TOO_COSTLY, self._last_words()) from error
        if isinstance(answer, MemoryError):
            raise _failed(
                ErrorType.TOO_COSTLY, f"it took more than {self._memory_bytes // MIB} MiB of memory"
            )
        if isinstance(answer, TelemetryLakeError):
            raise answer
        if isinstance(answer, Exception):
            raise _failed(ErrorType.CONVERSION_FAILED, f"it failed with {answer}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        if code == -SIGXCPU:
            return f"it took more than {self._cpu_seconds} s"
        return f"it ended its process ({Signals(-code).name if code < 0 else code})"

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _failed(error_type: ErrorType, why: str) -> PingRejected:
    return PingRejected(
        error_type, f"the conversion of the ping in a process of its own: {why}", stage=Stage.CONVERT
    )
