"""What has to be replaced in the pipeline's own modules so that a run follows from its seed alone."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

import tenacity.nap

from lake_testing.simulation import judge
from lake_testing.simulation.tables import file_system
from telemetry_lake.drain import audit, steps
from telemetry_lake.storage import records
from telemetry_lake.tables import late_files

T = TypeVar("T")
V = TypeVar("V")


class _OneAfterTheOther:
    """A pool of threads that has none: requests of one process come in the order of its code."""

    def __init__(self, _workers: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def map(self, act: Callable[[T], V], items: Iterable[T]) -> Iterator[V]:
        return map(act, items)


class _Idle:
    """A thread that does nothing: the one that keeps messages hidden works by the clock on the wall."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...

    def join(self) -> None: ...


class _Event:
    def set(self) -> None: ...


@contextmanager
def deterministic() -> Iterator[None]:
    """Run without threads, without waiting, and with gates that count and nothing else."""
    replaced: list[tuple[Any, str, Any]] = [
        (records, "ThreadPoolExecutor", _OneAfterTheOther),
        (steps, "threading", SimpleNamespace(Thread=_Idle, Event=_Event)),
        (tenacity.nap, "time", SimpleNamespace(sleep=lambda _seconds: None)),
        (audit, "read_staged_rows", judge.read_staged_rows),
        (audit, "judge", judge.judge),
        (audit, "row_counts", judge.row_counts),
        (late_files, "file_system", file_system),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
