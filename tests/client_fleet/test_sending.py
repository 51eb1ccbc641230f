"""The fleet as a process: how it treats answers, how it ends, and what its proof is worth."""

import asyncio
import signal
import socket
from collections import Counter
from datetime import UTC, datetime

import pytest

from client_fleet import sending
from client_fleet.pings import Pings, Shares
from client_fleet.proof import Acknowledgement, ProofFile, read_proof
from client_fleet.tally import Latencies
from lake_testing.stack import free_ports, wait_until
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.storage.object_store import ObjectStore

FEW = ("--clients", "20", "--seed", "7", "--quiet")


def _received(lake, count):
    """The paths of `count` pings in the raw objects that the queue names; each message is read once."""
    queue, store = IndexQueue(lake.settings.sqs), ObjectStore(lake.settings.s3)
    paths: list[str] = []

    def all_there():
        for message in queue.receive(10, wait_seconds=1):
            index = IndexMessage.from_json(message.body)
            raw_object = RawObject(index.key, store.get(index.bucket, index.key))
            raw_object.verify(index)
            for batch in raw_object.record_batches():
                paths.extend(path.decode() for path in batch.to_pydict()["path"])
            queue.delete([message.receipt])
        return len(paths) >= count

    wait_until(all_there, deadline_seconds=60, what=f"{count} pings in raw objects")
    return paths


def test_every_acknowledged_ping_is_in_a_raw_object_of_a_real_node(ingest_node, lake, start_fleet, tmp_path):
    proof = tmp_path / "acknowledged"
    fleet = start_fleet(
        *("--target", ingest_node.url, "--rate", "150", "--duration", "4", "--acknowledged", str(proof)),
        *("--duplicates", "0.1", "--late", "0.05", "--malformed", "0.2", "--oversized", "0.02", *FEW),
    )
    assert fleet.finish() == 0, fleet.output
    acknowledged = list(read_proof(proof))
    assert {a.kind for a in acknowledged} == {"normal", "duplicate", "late", "malformed"}
    assert f"acknowledged {len(acknowledged):,} (" in fleet.output
    assert "413: " in fleet.output
    received = _received(lake, len(acknowledged))
    assert Counter(received) == Counter(a.path for a in acknowledged)
    assert {a.attempts for a in acknowledged} == {1}


def test_a_killed_fleet_leaves_a_usable_proof(ingest_node, lake, start_fleet, tmp_path):
    proof = tmp_path / "acknowledged"
    fleet = start_fleet(
        *("--target", ingest_node.url, "--rate", "0", "--duration", "0", "--acknowledged", str(proof), *FEW)
    )
    wait_until(
        lambda: proof.exists() and proof.stat().st_size > 100_000,
        deadline_seconds=30,
        what="acknowledged pings",
    )
    fleet.process.kill()
    fleet.finish()
    acknowledged = {a.document_id for a in read_proof(proof)}
    assert len(acknowledged) > 100
    received = _received(lake, len(acknowledged))
    assert acknowledged <= {
        path.rpartition("/1/")[2] if "/1/" in path else path.split("/")[3] for path in received
    }


def test_pings_are_sent_again_after_5xx_and_broken_connections(moody_server, start_fleet, tmp_path):
    server = moody_server([503, None, 507, 302])
    proof = tmp_path / "acknowledged"
    fleet = start_fleet(
        *("--target", server.url, "--rate", "20", "--duration", "1", "--connections", "1"),
        *("--acknowledged", str(proof), *FEW),
    )
    assert fleet.finish() == 0, fleet.output
    acknowledged = list(read_proof(proof))
    assert "not delivered" not in fleet.output
    assert Counter(server.paths)[acknowledged[0].path + "?v=4"] in (0, 1)
    assert len({a.document_id for a in acknowledged}) == len(acknowledged)
    assert sum(a.attempts - 1 for a in acknowledged) == sum(a.unanswered for a in acknowledged) == 4
    assert len(server.paths) == len(acknowledged) + 4


def test_pings_are_deleted_after_4xx(moody_server, start_fleet):
    server = moody_server([400, 413, 404, 431])
    fleet = start_fleet("--target", server.url, "--rate", "20", "--duration", "1", *FEW)
    assert fleet.finish() == 0, fleet.output
    assert "refused (4xx) 4" in fleet.output
    assert "retries" in fleet.output
    assert len(server.paths) == len(set(server.paths))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_fleet_with_its_tally(moody_server, start_fleet, number):
    server = moody_server([])
    fleet = start_fleet("--target", server.url, "--rate", "50", "--duration", "0", *FEW)
    wait_until(lambda: len(server.paths) > 10, deadline_seconds=30, what="some pings")
    fleet.process.send_signal(number)
    assert fleet.finish(deadline_seconds=10) == 0
    assert f"200: {len(server.paths):,}" in fleet.output


def test_a_second_signal_ends_the_fleet_at_once(moody_server, start_fleet):
    server = moody_server([503] * 1_000)
    fleet = start_fleet("--target", server.url, "--rate", "50", "--duration", "0", *FEW)
    for attempts in (10, 12):
        wait_until(lambda: len(server.paths) >= attempts, deadline_seconds=30, what="some attempts")  # noqa: B023
        fleet.process.send_signal(signal.SIGINT)
    assert fleet.finish(deadline_seconds=4) == 1
    assert "not delivered" in fleet.output


def test_the_rate_does_not_wait_for_the_server(start_fleet):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        fleet = start_fleet("--target", f"http://127.0.0.1:{port}", "--rate", "100", "--duration", "1", *FEW)
        assert fleet.finish() == 1
    pings = int(fleet.output.split("pings")[1].split()[0])
    assert 60 < pings < 140


def test_a_server_that_is_not_there_is_named(start_fleet):
    url = f"http://127.0.0.1:{free_ports(1)}"
    fleet = start_fleet("--target", url, "--rate", "5", "--duration", "0.2", *FEW)
    assert fleet.finish() == 1
    assert "No ping was acknowledged" in fleet.output
    assert url in fleet.output


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--target", "https://127.0.0.1"), "--target takes an address"),
        (("--malformed", "1.5"), "between 0 and 1"),
        (("--rate", "-1"), "--rate"),
        (("--acknowledged", "/no/such/folder/file"), "cannot be written"),
    ],
)
def test_wrong_arguments_are_explained(start_fleet, arguments, message):
    fleet = start_fleet(*arguments)
    assert fleet.finish() == 2
    assert message in fleet.output


def test_a_proof_is_never_added_to_another(tmp_path, start_fleet):
    proof = tmp_path / "acknowledged"
    line = Acknowledgement(
        "id", "main", "normal", "live", "/submit/…", 200, 1, 0, "2026-11-23T12:00:00+00:00"
    )
    with ProofFile(proof) as file:
        file.add(line)
    fleet = start_fleet("--acknowledged", str(proof))
    assert fleet.finish() == 2
    assert "exists already" in fleet.output
    assert list(read_proof(proof)) == [line]


def test_a_fleet_keeps_no_more_pings_than_its_limit(monkeypatch):
    monkeypatch.setattr(sending, "WAITING_MAX_PINGS", 50)
    monkeypatch.setattr(sending, "END_MAX_SECONDS", 0)
    pings = Pings(7, 5, Shares(), lambda: datetime(2026, 11, 23, tzinfo=UTC))
    nobody = sending.Target("127.0.0.1", free_ports(1))
    sender = sending.Sender(pings, nobody, rate=400, connections_max=4, seed=7)

    asyncio.run(sender.run(0.5))
    assert sender.tally.dropped > 0
    assert sender.tally.pings == sender.tally.unsent + sender.tally.dropped
    assert sender.tally.unsent == 50


def test_percentiles_are_within_five_percent():
    latencies = Latencies()
    for milliseconds in range(1, 1_001):
        latencies.add(milliseconds / 1_000)
    assert latencies.percentile(0.5) == pytest.approx(0.5, rel=0.05)
    assert latencies.percentile(0.99) == pytest.approx(0.99, rel=0.05)
    assert Latencies().percentile(0.5) is None
