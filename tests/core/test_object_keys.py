"""Keys are built and taken apart in one place, and nothing a client says can escape its place in one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake import object_keys as keys

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)
MOMENTS = st.datetimes(datetime(2013, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, NAMES, NAMES)
def test_a_raw_object_key_splits_into_what_it_was_made_of(moment, node, segment):
    key = keys.raw_object_key(moment, node, segment)
    assert keys.split_raw_object_key(key) == keys.RawObjectKey(moment.date(), moment.hour, node, segment)
    assert key.startswith(keys.raw_object_prefix(moment.date()))


@given(MOMENTS, NAMES, NAMES)
def test_a_claim_key_leads_back_to_its_raw_object(moment, node, segment):
    raw = keys.raw_object_key(moment, node, segment)
    batch = keys.batch_id([raw])
    for after in (None, batch):
        claim = keys.claim_key(raw, after=after)
        assert keys.split_claim_key(claim) == (raw, after)
        assert claim.startswith(keys.claim_prefix(moment.date()))
    assert keys.split_release_key(keys.release_key(raw, batch)) == (raw, batch)
    assert keys.release_key(raw, batch).startswith(keys.release_prefix(moment.date()))


@pytest.mark.parametrize("key", ["ledger/claims/raw/v1/x.json", "ledger/releases/raw/v1/x.json", ""])
def test_anything_else_is_not_the_key_of_a_claim_or_a_release(key):
    for split in (keys.split_claim_key, keys.split_release_key):
        with pytest.raises(ValueError, match="not "):
            split(key)


def test_a_raw_object_that_was_given_back_makes_another_batch():
    raw = keys.raw_object_key(datetime(2026, 11, 23, tzinfo=UTC), "n", "s")
    first = keys.batch_id([raw])
    assert keys.batch_id({raw: None}) == first
    assert keys.batch_id({raw: first}) != first


def test_the_hour_is_in_utc_whatever_the_zone_of_the_timestamp():
    moment = datetime(2026, 11, 24, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert keys.raw_object_key(moment, "n", "s") == "raw/v1/2026-11-23/23/n/s.arrows"


def test_a_naive_timestamp_is_refused():
    with pytest.raises(ValueError, match="aware"):
        keys.raw_object_key(datetime(2026, 11, 23), "n", "s")  # noqa: DTZ001


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", ".hidden", "a\n", "é", "x" * 129])
def test_a_name_that_could_leave_its_place_is_refused(name):
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    with pytest.raises(ValueError, match="not the key of a raw object"):
        keys.raw_object_key(moment, name, "s")
    with pytest.raises(ValueError, match="not the key of a raw object"):
        keys.raw_object_key(moment, "n", name)


@pytest.mark.parametrize(
    "key",
    [
        "raw/v1/2026-11-23/24/n/s.arrows",
        "raw/v1/2026-02-30/10/n/s.arrows",
        "raw/v2/2026-11-23/10/n/s.arrows",
        "raw/v1/2026-11-23/10/n/s.arrows.tmp",
        "raw/v1/2026-11-23/10/n/x/s.arrows",
    ],
)
def test_anything_else_is_not_the_key_of_a_raw_object(key):
    with pytest.raises(ValueError, match=r"raw object|day is out of range"):
        keys.split_raw_object_key(key)


@given(st.lists(st.text(min_size=1), min_size=1, unique=True).flatmap(st.permutations))
def test_a_batch_has_the_same_identity_in_whatever_order_its_objects_come(raw_keys):
    assert keys.batch_id(raw_keys) == keys.batch_id(sorted(raw_keys)) == keys.batch_id(raw_keys + raw_keys)


def test_batches_of_different_objects_have_different_identities():
    assert keys.batch_id(["a", "b"]) != keys.batch_id(["a"])


@pytest.mark.parametrize("batch", ["", "../x", "ABCDEF0123456789ABCDEF0123456789", "0" * 31])
def test_only_a_batch_id_becomes_part_of_a_batch_key(batch):
    for build in (keys.manifest_key, keys.audit_key, keys.committed_key):
        with pytest.raises(ValueError, match="not a batch id"):
            build(batch)
