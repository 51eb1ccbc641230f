"""A few hundred connections that take and give nothing do not keep honest clients from their 200s."""

from collections.abc import Callable

import pytest

from lake_testing.flood import KINDS, flooding
from lake_testing.stack import wait_until
from telemetry_lake.units import MIB
from tests.ingest.running_node import WITHOUT_SERVICES, RunningNode, request

FLOODED_FROM = "127.0.0.9"
CONNECTIONS = 300
CONNECTIONS_OF_ONE_ADDRESS = 150
HONEST_PINGS = 20
SHARE_BYTES = 4 * MIB
MEMORY_BYTES = 8 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_honest_clients_get_their_200(new_node: Callable[..., RunningNode], kind: str) -> None:
    node = new_node(
        WITHOUT_SERVICES,
        connections_max=CONNECTIONS,
        connections_per_address_max=CONNECTIONS_OF_ONE_ADDRESS,
        memory_max_bytes=MEMORY_BYTES,
        memory_per_address_max_bytes=SHARE_BYTES,
    ).start()
    with flooding(kind, node.port, FLOODED_FROM, CONNECTIONS):
        wait_until(
            lambda: is_flooded(node.metrics()), deadline_seconds=60, what="the flood has what it can get"
        )
        for _ in range(HONEST_PINGS):
            with node.client() as client:
                client.send(request(body=b"x" * 8_192))
                assert client.answer().status == 200
        assert node.metrics()["held_bytes"] <= SHARE_BYTES + MIB
    wait_until(lambda: node.metrics()["held_bytes"] == 0, deadline_seconds=30, what="nothing is held")
    assert node.metrics()['child_restarts_total{child="worker"}'] == 0


def is_flooded(metrics: dict[str, float]) -> bool:
    """Whether the flood has run into one of the limits, or is refused as what it is."""
    return (
        metrics["refused_connections_total"] > 0
        or metrics['requests_total{status="503"}'] > 0
        or metrics['requests_total{status="400"}'] >= CONNECTIONS
    )
