"""Keys are built and taken apart in one place, and nothing a client says can escape its place in one."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.storage import object_keys as keys

MONDAY = date(2026, 11, 23)
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


@given(MOMENTS, st.dates())
def test_an_audit_of_a_date_is_named_by_time_table_and_date(moment, day):
    name = keys.date_audit_name("stable.pings", day, moment)
    assert name.startswith(f"{moment.date().isoformat()}/")
    assert name.endswith(f"-stable.pings-{day.isoformat()}")
    assert keys.date_audit_key(name).startswith(keys.date_audit_prefix(moment.date()))


@pytest.mark.parametrize("name", ["", "../../batches/x", "2026-11-23/093000.000000-stable.pings"])
def test_anything_else_is_not_the_name_of_an_audit_of_a_date(name):
    with pytest.raises(ValueError, match="not the name of an audit"):
        keys.date_audit_key(name)
    with pytest.raises(ValueError, match="not the name of an audit"):
        keys.date_audit_name("a/b", MONDAY, datetime(2026, 11, 23, tzinfo=UTC))
    with pytest.raises(ValueError, match="aware"):
        keys.date_audit_name("stable.pings", MONDAY, datetime(2026, 11, 23))  # noqa: DTZ001


@pytest.mark.parametrize("batch", ["", "../x", "ABCDEF0123456789ABCDEF0123456789", "0" * 31])
def test_only_a_batch_id_becomes_part_of_a_batch_key(batch):
    for build in (keys.manifest_key, keys.audit_key, keys.committed_key):
        with pytest.raises(ValueError, match="not a batch id"):
            build(batch)


BATCH = "0123456789abcdef" * 2
RAW_KEY = "raw/v1/2026-11-23/09/n/s.arrows"
NOON = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
KEYS_IN_LAKES = {
    keys.raw_object_prefix(MONDAY): "raw/v1/2026-11-23/",
    keys.claim_prefix(MONDAY): "ledger/claims/raw/v1/2026-11-23/",
    keys.claim_key(RAW_KEY): f"ledger/claims/{RAW_KEY}.json",
    keys.claim_key(RAW_KEY, after=BATCH): f"ledger/claims/{RAW_KEY}@{BATCH}.json",
    keys.release_key(RAW_KEY, BATCH): f"ledger/releases/{RAW_KEY}@{BATCH}.json",
    keys.sent_prefix(MONDAY): "ledger/sent/raw/v1/2026-11-23/",
    keys.sent_key(RAW_KEY, 3): f"ledger/sent/{RAW_KEY}/0003.json",
    keys.day_key(MONDAY, 2): "ledger/days/2026-11-23/0002.json",
    keys.settled_key(MONDAY): "ledger/settled/2026-11-23.json",
    keys.COMPLETENESS_KEY: "ledger/completeness.json",
    keys.RECONCILED_KEY: "ledger/reconciled.json",
    keys.manifest_key(BATCH): f"batches/{BATCH}/manifest.json",
    keys.staged_key(BATCH, "0"): f"batches/{BATCH}/staged/0.json",
    keys.audit_key(BATCH): f"batches/{BATCH}/audit.json",
    keys.committed_key(BATCH): f"batches/{BATCH}/committed.json",
    keys.attempts_prefix(BATCH): f"batches/{BATCH}/attempts/",
    keys.attempts_prefix(BATCH, "0"): f"batches/{BATCH}/attempts/0/",
    keys.waiver_key(BATCH): f"batches/{BATCH}/waiver.json",
    keys.publication_key(BATCH): f"batches/{BATCH}/publication.json",
    keys.audit_entry_prefix(MONDAY): "audits/2026-11-23/",
    keys.audit_entry_key(BATCH, NOON): f"audits/2026-11-23/120000.000005-{BATCH}.json",
    keys.date_audit_key(keys.date_audit_name("stable.pings", MONDAY, NOON)): (
        "date-audits/2026-11-23/120000.000005-stable.pings-2026-11-23.json"
    ),
    keys.replay_selection_key("r"): "replays/r/selection.json",
    keys.replay_pings_key("r"): "replays/r/pings.arrows",
    keys.artifact_key("a" * 64, "jobs.zip"): f"artifacts/{'a' * 64}/jobs.zip",
    keys.backfill_manifest_key(BATCH): f"backfill/{BATCH}/manifest.json",
    keys.backfill_plan_key(BATCH, "2014-03-01", b"plan"): (
        f"backfill/{BATCH}/plan/2014-03-01-64879f7d6b960a01.json"
    ),
    keys.tally_key(BATCH, "u"): f"backfill/{BATCH}/tallies/u.json",
    keys.unit_index_key(BATCH, "u", "a"): f"backfill/{BATCH}/index/u/a.parquet",
    keys.verification_report_key(BATCH, MONDAY): f"backfill/{BATCH}/reports/2026-11-23.json",
    keys.accepted_loss_key(BATCH, MONDAY, "conflicting"): (
        f"backfill/{BATCH}/accepted/2026-11-23/conflicting.json"
    ),
    keys.date_record_key("source", MONDAY, 7, "decision"): (
        "backfill-dates/source/2026-11-23/0007/decision.json"
    ),
    keys.historic_raw_object(BATCH, "2014/03/01/a.txt", 5): f"historic/{BATCH}/2014/03/01/a.txt@5",
    keys.analysis_run_key("manual__2026-11-23T09:30+00:00", "job.json"): (
        "analyses/runs/manual__2026-11-23T09_30_00_00-aa51894b9992070d/job.json"
    ),
    keys.scheduled_analysis_key("weekly"): "analyses/scheduled/weekly/analysis.json",
    keys.started_key("weekly", MONDAY): "analyses/scheduled/weekly/started/2026-11-23.json",
}


@pytest.mark.parametrize("made,in_a_lake", KEYS_IN_LAKES.items())
def test_a_key_is_what_lakes_have(made, in_a_lake):
    """A lake outlives the code: what has been written under a key is looked for under the same key later."""
    assert made == in_a_lake


@given(MOMENTS)
def test_an_entry_about_an_audit_says_when_and_of_which_batch(moment):
    assert keys.split_audit_entry_key(keys.audit_entry_key(BATCH, moment)) == (moment, BATCH)


@given(st.integers(0, 9_999), st.dates())
def test_records_of_messages_and_days_say_what_they_are_about(number, day):
    assert keys.split_sent_key(keys.sent_key(RAW_KEY, number)) == (RAW_KEY, number)
    assert keys.split_day_key(keys.day_key(day, number)) == (day, number)


@pytest.mark.parametrize("key", ["", "ledger/sent/x/0000.json", "ledger/days/2026-11-23/1.json"])
def test_other_keys_are_neither_about_messages_nor_days(key):
    for split in (keys.split_sent_key, keys.split_day_key):
        with pytest.raises(ValueError, match="not a key below"):
            split(key)


def test_a_claim_is_not_taken_for_a_release():
    raw = keys.release_key(RAW_KEY, BATCH).replace(f"@{BATCH}", "")
    with pytest.raises(ValueError, match="not the key of a release"):
        keys.split_release_key(raw)


def test_a_unit_is_read_from_the_key_of_its_tally():
    assert keys.unit_of_tally_key(BATCH, keys.tally_key(BATCH, "u")) == "u"


@pytest.mark.parametrize("name", ["", "../x", "x" * 32])
def test_only_the_id_of_a_backfill_becomes_part_of_its_keys(name):
    with pytest.raises(ValueError, match="not the id of a backfill"):
        keys.backfill_manifest_key(name)


@pytest.mark.parametrize("sha256", ["", "a" * 63, "a" * 65, "A" * 64])
def test_an_artifact_is_named_by_a_whole_digest(sha256):
    with pytest.raises(ValueError, match="not a SHA-256"):
        keys.artifact_key(sha256, "jobs.zip")
