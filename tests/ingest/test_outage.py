"""S3 or SQS is away for a while: clients notice nothing, and everything arrives once."""

import os
import signal
from collections.abc import Callable
from typing import Final

import pytest

from lake_testing.stack import EmbeddedS3, EmbeddedSqs, Lake, wait_until
from tests.ingest.hammers import assert_nothing_lost_or_doubled, wait_until_shipped
from tests.ingest.running_node import RunningNode

OUTAGE_SECONDS: Final = 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "service, errors", [("embedded_s3", "upload_errors_total"), ("embedded_sqs", "queue_errors_total")]
)
def test_a_service_is_away_for_a_while(
    lake: Lake,
    new_node: Callable[..., RunningNode],
    hammers,
    request: pytest.FixtureRequest,
    service: str,
    errors: str,
) -> None:
    away: EmbeddedS3 | EmbeddedSqs = request.getfixturevalue(service)
    # The segment whose shipping fails is the oldest that waits, so its age is how long the outage has lasted.
    node = new_node(
        {**lake.environment, "TELEMETRY_LAKE_S3__MAX_ATTEMPTS": "1", "TELEMETRY_LAKE_SQS__MAX_ATTEMPTS": "1"},
        segment_max_age_seconds=1,
        segment_max_bytes=1_000_000,
    ).start()
    hammer = hammers(node)
    hammer.wait_for_more(50)
    away.kill()
    try:
        wait_until(lambda: node.metrics()[errors] >= 3, deadline_seconds=60, what="failed tries")
        # The shipper dies as well; without SQS, objects are in S3 whose segments wait for their message.
        (shipper,) = node.children("shipper")
        os.kill(shipper, signal.SIGKILL)
        wait_until(
            lambda: node.metrics()["oldest_segment_age_seconds"] >= OUTAGE_SECONDS,
            deadline_seconds=6 * OUTAGE_SECONDS,
            what="the outage has lasted long enough",
        )
        assert node.get_privately("/__heartbeat__").status == 200
        hammer.wait_for_more(50)
    finally:
        away.start()
    hammer.wait_for_more(50)
    hammer.stop()
    wait_until_shipped(node)
    assert node.stop() == 0
    assert hammer.statuses == {200}
    assert_nothing_lost_or_doubled(lake, node, hammer)
