"""A batch and its parts keep their limits to the byte; a part has the messages of its raw objects only."""

from datetime import UTC, datetime

import pytest

from telemetry_lake.drain.batch import HeldMessage, Member, cut_into_batches, cut_into_parts
from telemetry_lake.raw.index_message import IndexMessage

MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC)


def member(number: int, size: int) -> Member:
    message = IndexMessage(
        bucket="raw",
        key=f"raw/v1/2026-11-23/09/node-1/segment-{number}.arrows",
        bytes=size,
        ping_count=1,
        sha256="0" * 64,
        first_submission_timestamp=MOMENT,
        last_submission_timestamp=MOMENT,
    )
    return Member(message=message)


def members_of(sizes: list[int]) -> list[Member]:
    return [member(number, size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "sizes, groups",
    [
        ([4, 6], [[4, 6]]),
        ([4, 7], [[4], [7]]),
        # The second group is full to the byte as well.
        ([10, 4, 6], [[10], [4, 6]]),
        ([11, 1], [[11], [1]]),
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
    ],
)
def test_a_batch_is_full_at_its_limits_and_not_before(sizes, groups):
    batches = cut_into_batches(members_of(sizes), max_bytes=10, max_members=3)
    assert [[found.message.bytes for found in batch] for batch in batches] == groups


def test_a_part_has_the_receipts_of_its_own_raw_objects():
    members = members_of([6, 6])
    held = [
        HeldMessage(key=found.key, receipt=f"receipt of {found.key}", receive_count=1, body="")
        for found in members
    ]
    parts = cut_into_parts("0" * 32, {found.key: found for found in members}, held, max_bytes=10)
    assert [(part.keys, part.receipts) for part in parts] == [
        ((message.key,), (message.receipt,)) for message in held
    ]
