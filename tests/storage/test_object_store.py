"""The object store against a real S3."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from telemetry_lake.failures import RetriableError
from telemetry_lake.storage import object_store
from telemetry_lake.storage.object_store import ObjectNotFound, ObjectStore


@pytest.fixture
def bucket(lake_settings):
    return lake_settings.s3.lake_bucket


@pytest.fixture
def store(lake_settings):
    return ObjectStore(lake_settings.s3)


def test_of_many_writers_of_one_key_exactly_one_wins_and_its_body_stays(store, bucket):
    def write(number):
        return store.put_if_absent(bucket, "claims/one", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(16)))
    assert won.count(True) == 1
    assert store.get(bucket, "claims/one") == str(won.index(True)).encode()


def test_what_is_not_there_is_none_or_an_error_that_names_it(store, bucket):
    assert store.get_or_none(bucket, "nowhere") is None
    with pytest.raises(ObjectNotFound, match=f"s3://{bucket}/nowhere"):
        store.get(bucket, "nowhere")


@pytest.mark.parametrize("size", [0, 999, 1_000, 1_001])
def test_an_object_is_a_file_in_memory_or_on_the_disk(store, bucket, size, monkeypatch, tmp_path):
    monkeypatch.setattr(object_store, "IN_MEMORY_MAX_BYTES", 1_000)
    monkeypatch.setattr(object_store, "DOWNLOAD_CHUNK_BYTES", 300)
    body = bytes(number % 251 for number in range(size))
    store.put(bucket, f"object-{size}", body)
    with store.opened(bucket, f"object-{size}") as file:
        assert file.read() == body
    with pytest.raises(ObjectNotFound, match="nowhere"), store.opened(bucket, "nowhere"):
        pass
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "is-not-there"))
    if size <= 1_000:
        with store.opened(bucket, f"object-{size}") as file:
            assert file.read() == body
    else:
        with pytest.raises(RetriableError, match="TMPDIR"), store.opened(bucket, f"object-{size}"):
            pass


def test_put_replaces(store, bucket):
    store.put(bucket, "report", b"old")
    store.put(bucket, "report", b"new")
    assert store.get(bucket, "report") == b"new"


def test_a_listing_is_complete_and_in_the_order_of_keys_over_several_pages(store, bucket):
    keys = [f"many/{number:04d}" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(bucket, key, b"xy"), reversed(keys)))
    store.put(bucket, "more/0000", b"")
    listed = [(item.key, item.bytes) for item in store.list_objects(bucket, "many/")]
    assert listed == [(key, 2) for key in keys]


def test_a_store_that_is_away_is_retriable_and_not_reachable(lake_settings, bucket):
    away = lake_settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:9", "max_attempts": 1})
    store = ObjectStore(away)
    assert not store.is_reachable(bucket)
    with pytest.raises(RetriableError, match=f"reading s3://{bucket}/key"):
        store.get(bucket, "key")


def test_a_bucket_that_answers_is_reachable(store, bucket):
    assert store.is_reachable(bucket)
    assert not store.is_reachable("no-such-bucket")


def test_objects_are_deleted_as_many_as_there_are_and_what_is_gone_is_left_alone(store, bucket, monkeypatch):
    monkeypatch.setattr(object_store, "DELETED_AT_ONCE", 2)
    for number in range(6):
        store.put(bucket, f"old/{number}", b"x")
    store.delete(bucket, (f"old/{number}" for number in (1, 2, 3, 4, 5, 6)))
    assert [item.key for item in store.list_objects(bucket, "old/")] == ["old/0"]
    store.delete(bucket, [])


def test_what_has_changed_since_it_was_read_is_not_written_over(lake_settings):
    store, bucket = ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket
    assert store.read(bucket, "pointer") is None
    assert store.put_if_unchanged(bucket, "pointer", b"1", etag=None)
    assert not store.put_if_unchanged(bucket, "pointer", b"2", etag=None)
    first = store.read(bucket, "pointer")
    assert first is not None
    assert first.body == b"1"
    assert store.put_if_unchanged(bucket, "pointer", b"3", etag=first.etag)
    assert not store.put_if_unchanged(bucket, "pointer", b"4", etag=first.etag)
    assert store.get(bucket, "pointer") == b"3"
    store.delete(bucket, ["pointer", "nowhere"])
    assert not store.put_if_unchanged(bucket, "pointer", b"5", etag=first.etag)
    assert store.read(bucket, "pointer") is None
