"""A drain that is killed with -9 after any of its writes loses nothing and doubles nothing."""

from multiprocessing.context import ForkServerContext

import pytest

from lake_testing.killer import Killer, points_to_kill_at, quick_workers, through_proxies
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


@pytest.fixture(scope="session")
def workers() -> ForkServerContext:
    return quick_workers(PRELOADED)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_killed_after_any_write_loses_and_doubles_nothing(settings, workers):
    killer, shipped = Killer(), ship(settings, good=2, bad=1)
    with through_proxies(settings, killer) as proxied:
        killer.work(workers, drain_once, proxied)
        requests = list(killer.requests)
        assert_each_once(settings, shipped)
        assert any("committed.json" in request for request in requests)
        assert any("DeleteMessage" in request or request.startswith("POST / ") for request in requests)

        for number in points_to_kill_at(requests):
            shipped += ship(settings, good=2, bad=1)
            killer.work(workers, drain_once, proxied, fatal_request=number)

    _finish(settings)
    assert_each_once(settings, shipped)


@pytest.mark.slow
def test_a_worker_killed_again_and_again_on_one_batch_comes_to_its_end(settings, workers):
    killer, shipped = Killer(), ship(settings, objects=2, good=2, bad=1)
    with through_proxies(settings, killer) as proxied:
        for number in (20, 30, 40):
            killer.work(workers, drain_once, proxied, fatal_request=number)
            replay_raw_objects(LakeConnections(settings))
    _finish(settings)
    assert_each_once(settings, shipped)


def _finish(settings: Settings) -> None:
    """What the redelivery of every message comes to."""
    replay_raw_objects(LakeConnections(settings))
    while drain_once(settings).claimed.batches:
        pass
