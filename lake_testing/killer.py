"""Ends a process of a test in the middle of its work: with -9, at a request that is counted."""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import ForkServerContext
from typing import Any, Final

from lake_testing.lossy_proxy import lossy_proxy
from telemetry_lake.settings import Settings

WORKER_DEADLINE_SECONDS: Final = 60
_ID: Final = re.compile("[0-9a-f]{4,}(?:-[0-9a-f]{4,})*|[0-9]+")


class Killer:
    """Counts the requests of a worker, and kills it when the fatal one was answered and before it learns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: list[str] = []
        self.fatal_request = 0
        self.victim = 0

    def work(
        self, workers: ForkServerContext, target: Callable[..., object], *args: Any, fatal_request: int = 0
    ) -> int | None:
        """Call `target` in a process of its own, which is killed at the request of this number, 0 for none.

        Returns its exit status.
        """
        with self._lock:
            self.requests, self.fatal_request, self.victim = [], fatal_request, 0
        go = workers.Event()
        process = workers.Process(target=_begin, args=(go, target, args))
        process.start()
        assert process.pid is not None
        with self._lock:
            self.victim = process.pid
        go.set()
        process.join(WORKER_DEADLINE_SECONDS)
        status = process.exitcode
        assert status in ((-signal.SIGKILL, 0) if fatal_request else (0,)), status
        return status

    def on_answer(self, request: str) -> bool:
        """Count a request that was answered; False when the process is killed and must not learn it."""
        with self._lock:
            self.requests.append(request)
            if len(self.requests) != self.fatal_request:
                return True
            os.kill(self.victim, signal.SIGKILL)
            return False


def _begin(go: threading.Event, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    go.wait()
    target(*args)


def quick_workers(preloaded: Iterable[str]) -> ForkServerContext:
    """Return what starts workers within milliseconds, by importing these modules once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    return context


def writes_of(requests: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the requests that change something, each with its number."""
    for number, request in enumerate(requests, start=1):
        if request.startswith(("PUT", "POST", "DELETE")) and "/oauth/" not in request:
            yield number, request


def points_to_kill_at(requests: Iterable[str]) -> list[int]:
    """Return the number of the last request of each kind that changes something.

    Requests of one kind differ in ids only. What is killed after a read leaves what the write before left.
    """
    return sorted({_ID.sub("#", request): number for number, request in writes_of(requests)}.values())


@contextmanager
def through_proxies(settings: Settings, killer: Killer) -> Iterator[Settings]:
    """Yield the same lake, reached through proxies that tell `killer` of every request."""
    assert settings.s3.endpoint_url is not None
    assert settings.sqs.endpoint_url is not None
    with ExitStack() as stack:
        s3 = stack.enter_context(lossy_proxy(settings.s3.endpoint_url, killer.on_answer))
        sqs = stack.enter_context(lossy_proxy(settings.sqs.endpoint_url, killer.on_answer))
        properties = dict(settings.catalog.properties)
        catalog = stack.enter_context(lossy_proxy(properties["uri"], killer.on_answer))
        properties |= {"uri": catalog, "s3.endpoint": s3}
        properties["oauth2-server-uri"] = f"{catalog}/v1/oauth/tokens"
        yield settings.model_copy(
            update={
                "s3": settings.s3.model_copy(update={"endpoint_url": s3}),
                "sqs": settings.sqs.model_copy(update={"endpoint_url": sqs}),
                "catalog": settings.catalog.model_copy(update={"properties": properties}),
            }
        )
