"""Records against a real S3."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from pydantic import ValidationError

from telemetry_lake.failures import FatalError
from telemetry_lake.storage.object_store import ObjectNotFound, ObjectStore
from telemetry_lake.storage.records import Record, RecordStore


class Number(Record):
    number: int


@pytest.fixture
def records(lake_settings):
    return RecordStore(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)


def test_all_that_decide_at_once_go_on_with_one_record(records):
    with ThreadPoolExecutor(8) as pool:
        decided = set(pool.map(lambda number: records.decide("one.json", Number(number=number)), range(16)))
    assert decided == {records.read("one.json", Number)}


def test_records_are_read_in_the_order_of_their_keys_with_none_for_what_is_missing(records):
    for number in range(25):
        records.put(f"some/{number:02d}.json", Number(number=number))
    keys = records.keys("some/")
    assert len(keys) == 25
    found = records.read_all([*reversed(keys), "some/25.json"], Number)
    assert found == [*(Number(number=number) for number in reversed(range(25))), None]


def test_a_record_that_has_to_be_there_is_an_error_without_it(records):
    assert records.read("nowhere.json", Number) is None
    with pytest.raises(ObjectNotFound, match=r"nowhere\.json"):
        records.require("nowhere.json", Number)


def test_a_report_is_written_again_and_a_decision_is_not(records):
    records.put("report.json", Number(number=1))
    records.put("report.json", Number(number=2), indent=1)
    assert records.read("report.json", Number) == Number(number=2)
    assert not records.put_if_absent("report.json", Number(number=3))
    assert records.decide("report.json", Number(number=3)) == Number(number=2)


def test_a_field_that_is_not_known_is_refused(records, lake_settings):
    ObjectStore(lake_settings.s3).put(lake_settings.s3.lake_bucket, "other.json", b'{"number": 1, "more": 2}')
    with pytest.raises(ValidationError, match="more"):
        records.read("other.json", Number)


def test_a_record_that_is_deleted_while_it_is_decided_says_what_to_do(lake_settings):
    class Forgetful(ObjectStore):
        """An S3 from which the record is deleted right after its put was refused."""

        def get(self, bucket: str, key: str, *, max_bytes: int | None = None) -> bytes:
            self._s3.delete_object(Bucket=bucket, Key=key)
            return super().get(bucket, key)

    records = RecordStore(Forgetful(lake_settings.s3), lake_settings.s3.lake_bucket)
    records.put("one.json", Number(number=1))
    with pytest.raises(FatalError, match=r"one\.json was deleted.*Stop that first"):
        records.decide("one.json", Number(number=2))


@pytest.mark.parametrize("page_keys", [2, 4, 1_000], ids=["hour by hour", "a page more", "one page"])
def test_the_newest_keys_are_the_same_however_many_a_listing_holds(records, monkeypatch, page_keys):
    monkeypatch.setattr("telemetry_lake.storage.records.PAGE_KEYS", page_keys)
    times = ["000000.000001-a", "000000.000001-b", "095959.999999-a", "100000.000000-a", "235959.999999-a"]
    keys = [f"entries/2026-11-30/{time}.json" for time in times]
    for key in (*keys, "entries/2026-11-29/120000.json", "entries/2026-12-01/120000.json"):
        records.put(key, Number(number=1))
    newest = partial(records.newest_keys, "entries/2026-11-30/")
    assert newest(9) == keys[::-1]
    assert newest(2) == keys[:-3:-1]
    assert newest(9, before="100000.000000") == keys[2::-1]
    assert newest(1, before="095959.999999") == [keys[1]]
    assert newest(9, before="000000.000001") == []
