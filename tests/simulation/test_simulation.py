"""Every acknowledged ping is accounted for exactly once, whatever a seed brings."""

from collections.abc import Iterable

import pytest

from lake_testing.simulation.aws import SimulatedS3
from lake_testing.simulation.deterministic import deterministic
from lake_testing.simulation.scenario import Act, drawn, failures, killed_after_each_call, shrunk, without_one
from telemetry_lake.drain import steps
from telemetry_lake.drain.acknowledge import Acknowledged
from telemetry_lake.recovery import replay_rejected
from telemetry_lake.tables import commits

SEEDS = range(400)
MANY_SEEDS = range(400, 3_000)
THREE_DAYS = (Act.WAIT, 5)
"""Longer than snapshots are kept."""
ONE_BAD_PING = 3
TWO_BAD_PINGS = 7
SEEDS_THAT_FIND_IT = range(200, 1_000)
"""A broken line has to be found by one of these."""


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic():
        yield


def assert_accounted(seeds: Iterable[int]) -> None:
    for seed in seeds:
        scenario = drawn(seed)
        if failures(scenario):
            smallest = shrunk(scenario)
            pytest.fail("\n".join([str(smallest), *failures(smallest)]))


@pytest.mark.slow
def test_every_ping_is_accounted_for_once():
    assert_accounted(SEEDS)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_every_ping_is_accounted_for_once_by_many_seeds():
    assert_accounted(MANY_SEEDS)


def test_a_seed_gives_the_same_world_each_time():
    assert drawn(7) == drawn(7)
    assert failures(drawn(7)) == failures(drawn(7)) == []


def assert_survives_a_kill_after_each_call(*acts: tuple[Act, int], calls: int) -> None:
    for scenario in killed_after_each_call(acts, calls=calls):
        assert failures(scenario) == [], str(scenario)


def test_a_replay_that_was_killed_is_finished_after_its_snapshot_has_expired():
    assert_survives_a_kill_after_each_call(
        (Act.SHIP, TWO_BAD_PINGS),
        (Act.DRAIN, 0),
        (Act.REPLAY_REJECTED, 0),
        (Act.SHIP, ONE_BAD_PING),
        (Act.DRAIN, 0),
        THREE_DAYS,
        (Act.MAINTAIN, 0),
        calls=90,
    )


def test_replays_of_one_commit_that_were_killed_are_all_finished(monkeypatch):
    monkeypatch.setattr(replay_rejected, "REPLAY_MAX_PINGS", 1)
    assert_survives_a_kill_after_each_call(
        (Act.SHIP, TWO_BAD_PINGS),
        (Act.DRAIN, 0),
        (Act.REPLAY_REJECTED, 0),
        THREE_DAYS,
        (Act.MAINTAIN, 0),
        calls=110,
    )


def test_a_batch_without_a_record_is_not_committed_again_after_its_rejected_pings_were_replayed():
    assert_survives_a_kill_after_each_call(
        (Act.SHIP, TWO_BAD_PINGS),
        (Act.DRAIN_WITHOUT_RETRY, 0),
        (Act.REPLAY_REJECTED, 0),
        THREE_DAYS,
        (Act.MAINTAIN, 0),
        calls=90,
    )


def found() -> str:
    return next(("\n".join(lines) for seed in SEEDS_THAT_FIND_IT if (lines := failures(drawn(seed)))), "")


def test_an_acknowledgement_before_the_commit_is_found(monkeypatch):
    def acknowledge(queue, ledger, batch):
        queue.delete([held.receipt for held in batch.held])
        return Acknowledged(batch_id=batch.batch_id, committed=True)

    monkeypatch.setattr(steps, "acknowledge", acknowledge)
    assert "was deleted before its pings were in a table" in found()


def test_a_claim_without_a_condition_is_found(monkeypatch):
    put = SimulatedS3.put_object

    def unconditional(self, *, Key, IfNoneMatch="", **arguments):  # noqa: N803
        condition = "" if "ledger/claims/" in Key else IfNoneMatch
        return put(self, Key=Key, IfNoneMatch=condition, **arguments)

    monkeypatch.setattr(SimulatedS3, "put_object", unconditional)
    assert found()


def test_a_commit_that_does_not_search_the_history_is_found(monkeypatch):
    monkeypatch.setattr(commits, "find_batch", lambda *_: None)
    assert "2 rows" in found()


def test_a_commit_that_the_catalog_repeats_blindly_is_found(monkeypatch):
    monkeypatch.setattr(commits, "forbid_commit_retry", lambda _table: None)
    assert "2 rows" in found()


def test_a_failure_is_shrunk_to_what_it_takes(monkeypatch):
    monkeypatch.setattr(commits, "find_batch", lambda *_: None)
    failing = next(drawn(seed) for seed in SEEDS_THAT_FIND_IT if failures(drawn(seed)))
    smallest = shrunk(failing)
    assert failures(smallest)
    assert not any(failures(smaller) for smaller in without_one(smallest))
