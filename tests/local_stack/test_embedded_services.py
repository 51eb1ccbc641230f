"""The servers that every other test stands on: they keep what they acknowledged when they are killed."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyiceberg.catalog import load_catalog

from local_stack.elasticmq import ElasticMq
from telemetry_lake.index_message import IndexMessage
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.object_keys import raw_object_key
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.settings import PROJECT_ROOT, Settings, SqsSettings
from tests.stack_fixture import EmbeddedS3, EmbeddedSqs, free_ports

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MESSAGE = IndexMessage(
    bucket="raw",
    key=raw_object_key(NOON, "node-1", "segment-1"),
    bytes=1,
    ping_count=1,
    sha256="0" * 64,
    first_submission_timestamp=NOON,
    last_submission_timestamp=NOON,
)


def test_objects_and_tables_survive_a_kill(embedded_s3: EmbeddedS3, lake_settings: Settings) -> None:
    store = ObjectStore(lake_settings.s3)
    assert store.put_if_absent(lake_settings.s3.raw_bucket, "key", b"first")
    catalog = load_catalog(lake_settings.catalog.name, **lake_settings.catalog.properties)
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
    queue.send(MESSAGE)

    embedded_sqs.kill()
    embedded_sqs.start()

    assert [message.body for message in queue.receive(10, wait_seconds=1)] == [MESSAGE.to_json()]


@pytest.mark.parametrize("_run", [1, 2])
def test_every_test_has_a_lake_of_its_own(lake_settings: Settings, _run: int) -> None:
    store = ObjectStore(lake_settings.s3)
    assert store.put_if_absent(lake_settings.s3.lake_bucket, "same key", b"")
    queue = IndexQueue(lake_settings.sqs)
    assert queue.waiting() == 0
    queue.send(MESSAGE)


def test_compaction_shrinks_the_queue_file_and_keeps_its_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ElasticMq(
        data_directory=tmp_path / "data",
        log_file=tmp_path / "elasticmq.log",
        jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
        port=free_ports(1),
    )
    queue = IndexQueue(
        SqsSettings(
            endpoint_url=service.url, access_key_id="any", secret_access_key=SecretStr("any"), max_attempts=1
        )
    )
    server = EmbeddedSqs(service)
    try:
        server.start()
        for _ in range(20):
            queue.send(MESSAGE)
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
