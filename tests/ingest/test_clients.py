"""Whose a connection or a request is, and what each client may hold."""

import pytest

from ingest_server.clients import Clients
from telemetry_lake.settings import IngestSettings

SETTINGS = IngestSettings(
    max_body_bytes=10,
    memory_max_bytes=100,
    memory_per_address_max_bytes=40,
    connections_per_address_max=2,
)


def test_memory_up_to_the_limits_and_one_byte_past_them() -> None:
    clients = Clients(SETTINGS, 0)
    one, two, three = (clients.connect(b"192.0.2.%d" % number) for number in range(3))
    assert one is not None
    assert two is not None
    assert three is not None
    assert clients.hold(one, 40)
    assert not clients.hold(one, 1)
    assert clients.hold(two, 40)
    assert not clients.hold(three, 21)
    assert clients.hold(three, 20)
    assert not clients.hold(three, 1)
    assert clients.held_bytes == SETTINGS.memory_max_bytes
    clients.change(two, -40)
    assert clients.hold(three, 20)


def test_connections_up_to_the_limit_and_one_past() -> None:
    clients = Clients(SETTINGS, 0)
    first, second = clients.connect(b"192.0.2.1"), clients.connect(b"192.0.2.1")
    assert first is not None
    assert first is second
    assert clients.connect(b"192.0.2.1") is None
    assert clients.connect(b"192.0.2.2") is not None
    clients.end(first)
    assert clients.connect(b"192.0.2.1") is first


def test_nothing_is_remembered_of_clients_that_have_gone() -> None:
    clients = Clients(SETTINGS, 0)
    for number in range(1_000):
        client = clients.connect(b"2001:db8:0:%x::1" % number)
        assert client is not None
        clients.end(client)
    assert len(clients) == 0


@pytest.mark.parametrize(
    "one,other,same",
    [
        (b"192.0.2.1", b"192.0.2.1", True),
        (b"192.0.2.1", b"192.0.2.2", False),
        (b"192.0.2.1:4711", b"192.0.2.1", True),
        (b"2001:db8::1", b"2001:db8::ffff:1:2:3", True),
        (b"2001:db8::1", b"2001:db8:0:1::1", False),
        (b"[2001:db8::1]:80", b"2001:db8::2", True),
        (b"fe80::1%eth0", b"fe80::2%eth1", True),
        (b"::ffff:192.0.2.1", b"192.0.2.1", True),
        (b"unknown", b"192.0.2.1", False),
        (b"a:b:c", b"a:b:c", True),
        (b"\xff" * 100, b"\xff" * 101, True),
    ],
)
def test_a_client_is_a_network(one: bytes, other: bytes, same: bool) -> None:
    clients = Clients(SETTINGS, 0)
    assert (clients.connect(one) is clients.connect(other)) == same


@pytest.mark.parametrize(
    "proxies,forwarded_for,sender",
    [
        (1, (b"192.0.2.1",), b"192.0.2.1"),
        (1, (b"8.8.8.8, 192.0.2.1",), b"192.0.2.1"),
        (1, (b"8.8.8.8", b" 192.0.2.1 "), b"192.0.2.1"),
        (2, (b"8.8.8.8, 192.0.2.1", b"10.0.0.1"), b"192.0.2.1"),
        (2, (b"192.0.2.1",), b"192.0.2.1"),
    ],
)
def test_behind_proxies_the_client_is_who_the_outermost_saw(
    proxies: int, forwarded_for: tuple[bytes, ...], sender: bytes
) -> None:
    clients = Clients(SETTINGS, proxies)
    client = clients.begin_forwarded(forwarded_for)
    assert client is not None
    assert client.network == sender
    assert client.held_max_bytes == SETTINGS.memory_per_address_max_bytes
    assert clients.begin_forwarded((sender,) * proxies) is client
    clients.end(client)
    clients.end(client)
    assert len(clients) == 0


def test_a_header_without_an_address_names_no_client() -> None:
    clients = Clients(SETTINGS, 1)
    assert clients.begin_forwarded((b"",)) is None
    assert clients.begin_forwarded((b"192.0.2.1, ",)) is None


def test_what_can_hold_no_ping_is_no_setting() -> None:
    with pytest.raises(ValueError, match="MAX_BODY_BYTES must be below"):
        IngestSettings(memory_per_address_max_bytes=IngestSettings().max_body_bytes)
    with pytest.raises(ValueError, match="MEMORY_MAX_BYTES"):
        IngestSettings(memory_max_bytes=IngestSettings().memory_per_address_max_bytes - 1)
