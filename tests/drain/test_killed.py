"""A drain that is killed with -9 after any of its writes loses nothing and doubles nothing."""

import multiprocessing
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import ForkServerContext

import pytest

from lake_testing.killer import Killer
from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.shipping import assert_each_once, ship
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.recovery.replay import replay_raw_objects
from telemetry_lake.settings import Settings

PRELOADED = [
    "great_expectations",
    "pandas",
    "pyiceberg.catalog.rest",
    "telemetry_lake.drain.audit",
    "telemetry_lake.convert.parquet_writer",
    "telemetry_lake.drain.steps",
]
"""What takes seconds to import, once for all workers."""
WORKER_DEADLINE_SECONDS = 60


@pytest.fixture(scope="session")
def workers() -> ForkServerContext:
    """Starts workers within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_killed_after_any_write_loses_and_doubles_nothing(settings, workers):
    killer, shipped = Killer(), ship(settings, good=2, bad=1)
    with _through_proxies(settings, killer) as proxied:
        _work(workers, proxied, killer, fatal_request=0)
        requests = list(killer.requests)
        assert_each_once(settings, shipped)
        assert any("committed.json" in request for request in requests)
        assert any("DeleteMessage" in request or request.startswith("POST / ") for request in requests)

        for number in points_to_kill_at(requests):
            shipped += ship(settings, good=2, bad=1)
            _work(workers, proxied, killer, fatal_request=number)

    _finish(settings)
    assert_each_once(settings, shipped)


@pytest.mark.slow
def test_a_worker_killed_again_and_again_on_one_batch_comes_to_its_end(settings, workers):
    killer, shipped = Killer(), ship(settings, objects=2, good=2, bad=1)
    with _through_proxies(settings, killer) as proxied:
        for number in (20, 30, 40):
            _work(workers, proxied, killer, fatal_request=number)
            replay_raw_objects(LakeConnections(settings))
    _finish(settings)
    assert_each_once(settings, shipped)


def points_to_kill_at(requests: list[str]) -> list[int]:
    """The number of the last request of each kind that changes something.

    Requests of one kind differ in ids only. What is killed after a read leaves what the write before left.
    """
    last: dict[str, int] = {}
    for number, request in enumerate(requests, start=1):
        if request.startswith(("PUT", "POST", "DELETE")) and "/oauth/" not in request:
            last[re.sub(r"[0-9a-f]{8,}|[0-9]+", "#", request)] = number
    return sorted(last.values())


def _work(workers: ForkServerContext, settings: Settings, killer: Killer, *, fatal_request: int) -> None:
    """One drain in a process of its own, killed at its n-th request, or never."""
    killer.arm(fatal_request)
    go = workers.Event()
    process = workers.Process(target=_drain, args=(settings, go))
    process.start()
    assert process.pid is not None
    killer.aim(process.pid)
    go.set()
    process.join(WORKER_DEADLINE_SECONDS)
    assert process.exitcode in ((-signal.SIGKILL, 0) if fatal_request else (0,)), process.exitcode


def _drain(settings: Settings, go: "threading.Event") -> None:
    go.wait()
    drain_once(settings)


def _finish(settings: Settings) -> None:
    """What the redelivery of every message comes to."""
    replay_raw_objects(LakeConnections(settings))
    while drain_once(settings).claimed.batches:
        pass


@contextmanager
def _through_proxies(settings: Settings, killer: Killer) -> Iterator[Settings]:
    """The same lake, reached through proxies that tell `killer` of every request."""
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
