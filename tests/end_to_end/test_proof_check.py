"""The verdicts of the proof of a fleet, without a lake."""

import pytest

from client_fleet.proof import Acknowledgement
from lake_testing.proof_check import compare


def _acknowledged(document_id="a", *, expected="live", unanswered=0):
    return Acknowledgement(
        document_id,
        "main",
        "normal",
        expected,
        f"/submit/telemetry/{document_id}/main",
        200,
        1 + unanswered,
        unanswered,
        "2026-11-23T12:00:00+00:00",
    )


@pytest.mark.parametrize(
    "acknowledgements,places",
    [
        ([_acknowledged()], {"a": {"live": 1}, "never acknowledged": {"live": 1}}),
        ([_acknowledged(), _acknowledged()], {"a": {"live": 2}}),
        ([_acknowledged(unanswered=1)], {"a": {"live": 1}}),
        ([_acknowledged(unanswered=1)], {"a": {"live": 2}}),
        ([_acknowledged(expected="rejected:empty_body")], {"a": {"rejected:empty_body": 1}}),
        ([_acknowledged(expected="none")], {}),
    ],
)
def test_kept_promises(acknowledgements, places):
    verdict = compare(acknowledgements, places)
    assert verdict.holds, verdict
    assert "none is doubled" in str(verdict)


@pytest.mark.parametrize(
    "acknowledgements,places,complaint",
    [
        ([_acknowledged()], {}, "1 lost (a: 0 rows of 1)"),
        ([_acknowledged(), _acknowledged()], {"a": {"live": 1}}, "1 lost (a: 1 rows of 2)"),
        ([_acknowledged()], {"a": {"live": 2}}, "1 doubled (a: 2 rows, at most 1 were sent)"),
        ([_acknowledged(unanswered=1)], {"a": {"live": 3}}, "1 doubled (a: 3 rows, at most 2 were sent)"),
        (
            [_acknowledged()],
            {"a": {"rejected:invalid_json": 1}},
            "1 in a wrong place (a: rejected:invalid_json",
        ),
        ([_acknowledged()], {"a": {"live": 1, "rejected:invalid_json": 1}}, "1 doubled"),
        ([_acknowledged(expected="none")], {"a": {"live": 1}}, "1 doubled (a: 1 rows, at most 0 were sent)"),
    ],
)
def test_broken_promises_are_named(acknowledgements, places, complaint):
    verdict = compare(acknowledgements, places)
    assert not verdict.holds
    assert complaint in str(verdict)


def test_a_stored_ping_may_not_become_two_rows():
    verdict = compare([_acknowledged(unanswered=1)], {"a": {"live": 2}})
    verdict.rows_doubled = 1
    assert not verdict.holds
    assert "1 stored pings became more than one row" in str(verdict)
