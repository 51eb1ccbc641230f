"""The servers that every other test stands on: they keep what they acknowledged when they are killed."""

import base64
import hmac
import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from lake_testing.shipping import SAMPLE_MESSAGE
from lake_testing.stack import EmbeddedS3, EmbeddedSqs, free_ports
from local_stack.elasticmq import ElasticMq
from local_stack.program import LOOPBACK
from local_stack.seaweedfs import SeaweedFs
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Settings, SqsSettings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import load_lake_catalog


def test_objects_and_tables_survive_a_kill(embedded_s3: EmbeddedS3, lake_settings: Settings) -> None:
    store = ObjectStore(lake_settings.s3)
    assert store.put_if_absent(lake_settings.s3.raw_bucket, "key", b"first")
    catalog = load_lake_catalog(lake_settings)
    catalog.create_namespace("live")

    embedded_s3.kill()
    assert not embedded_s3.is_running
    embedded_s3.start()

    assert store.put_if_absent(lake_settings.s3.raw_bucket, "other key", b"ready to write")
    assert not store.put_if_absent(lake_settings.s3.raw_bucket, "key", b"second")
    assert store.get(lake_settings.s3.raw_bucket, "key") == b"first"
    assert catalog.list_namespaces() == [("live",)]


def test_messages_are_there_again_as_soon_as_a_killed_queue_is_ready(
    embedded_sqs: EmbeddedSqs, lake_settings: Settings
) -> None:
    queue = IndexQueue(lake_settings.sqs)
    queue.send(SAMPLE_MESSAGE)

    embedded_sqs.kill()
    embedded_sqs.start()

    assert [message.body for message in queue.receive(10, wait_seconds=1)] == [SAMPLE_MESSAGE.to_json()]


@pytest.mark.parametrize("_run", [1, 2])
def test_every_test_has_a_lake_of_its_own(lake_settings: Settings, _run: int) -> None:
    store = ObjectStore(lake_settings.s3)
    assert store.put_if_absent(lake_settings.s3.lake_bucket, "same key", b"")
    queue = IndexQueue(lake_settings.sqs)
    assert queue.waiting() == 0
    queue.send(SAMPLE_MESSAGE)


@pytest.fixture
def service(tmp_path: Path) -> ElasticMq:
    """An ElasticMQ of the test's own, which does not run yet."""
    return ElasticMq(
        data_directory=tmp_path / "data",
        log_file=tmp_path / "elasticmq.log",
        jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
        port=free_ports(1),
    )


@pytest.fixture
def queue(service: ElasticMq) -> IndexQueue:
    """The index queue of `service`."""
    return IndexQueue(
        SqsSettings(
            endpoint_url=service.url, access_key_id="any", secret_access_key=SecretStr("any"), max_attempts=1
        )
    )


def test_compaction_shrinks_the_queue_file_and_keeps_its_messages(
    service: ElasticMq, queue: IndexQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedSqs(service)
    try:
        server.start()
        for _ in range(20):
            queue.send(SAMPLE_MESSAGE)
        server.kill()
        grown = service.message_file.stat().st_size

        monkeypatch.setattr("local_stack.elasticmq.COMPACT_ABOVE_BYTES", 1)
        step = service.compaction()
        assert step is not None
        subprocess.run(step.command, cwd=step.directory, check=True, capture_output=True)

        assert service.message_file.stat().st_size < grown
        server.start()
        assert queue.waiting() == 20
    finally:
        server.kill()


def test_the_queue_file_shrinks_while_messages_are_deleted(service: ElasticMq, queue: IndexQueue) -> None:
    server = EmbeddedSqs(service)
    try:
        server.start()
        for _ in range(200):
            queue.send(SAMPLE_MESSAGE)
        grown = service.message_file.stat().st_size
        while messages := queue.receive(10, wait_seconds=0):
            queue.delete([message.receipt for message in messages])
        assert service.message_file.stat().st_size < grown / 2
    finally:
        server.kill()


def _token(key_variable: str, service: SeaweedFs) -> str:
    """Return what a part of SeaweedFS shows another part: a claim signed with the key of that door."""

    def encoded(content: bytes) -> bytes:
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    claims = {"exp": int(time.time()) + 60}
    text = encoded(b'{"alg":"HS256","typ":"JWT"}') + b"." + encoded(json.dumps(claims).encode())
    key = service.program().environment[key_variable].encode()
    return (text + b"." + encoded(hmac.digest(key, text, "sha256"))).decode()


def test_nothing_is_read_or_deleted_past_s3_without_a_key(embedded_s3: EmbeddedS3, lake_settings: Settings):
    service = embedded_s3.service
    master, volume, filer = (service.first_internal_port + offset for offset in (0, 2, 4))
    bucket, key = lake_settings.s3.raw_bucket, "raw/v1/2026-11-23/09/node-1/segment.arrows"
    pings = b"pings of strangers " * 100
    store = ObjectStore(lake_settings.s3)
    store.put_if_absent(bucket, key, pings)
    place = f"http://{LOOPBACK}:{filer}/buckets/{bucket}/{key}"

    reader = {"Authorization": f"Bearer {_token('WEED_JWT_FILER_SIGNING_READ_KEY', service)}"}
    assert httpx.get(place, headers=reader).content == pings, "the address is right"
    metadata = httpx.get(f"{place}?metadata=true", headers=reader).json()
    (chunk,) = metadata["chunks"]
    file_id = chunk.get("file_id") or "{},{:x}{:08x}".format(
        chunk["fid"]["volume_id"], chunk["fid"]["file_key"], chunk["fid"]["cookie"]
    )

    for address in (
        place,
        f"{place}?metadata=true",
        f"http://{LOOPBACK}:{filer}/buckets/{bucket}/?limit=10",
        f"http://{LOOPBACK}:{volume}/{file_id}",
        f"http://{LOOPBACK}:{master}/{file_id}",
    ):
        answer = httpx.get(address, follow_redirects=True)
        assert pings not in answer.content, address
        assert key.rpartition("/")[2] not in answer.text, address
        assert answer.status_code in (401, 403, 404), address
    for address in (
        place,
        f"http://{LOOPBACK}:{filer}/buckets/{bucket}?recursive=true",
        f"http://{LOOPBACK}:{volume}/{file_id}",
        f"http://{LOOPBACK}:{master}/{file_id}",
    ):
        assert httpx.delete(address, follow_redirects=True).status_code in (401, 403, 404, 405), address
    assert httpx.put(place, content=b"others").status_code in (401, 403)
    assert store.get(bucket, key) == pings
