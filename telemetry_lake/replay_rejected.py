"""Send rejected pings through the drain again, once the reason for their rejection is mended.

A rejected ping is a row. Sending it again moves it: out of `live.rejected_pings`, into a new raw object
that goes the way of every other. So that it is never in two places, and never lost in between:

1. The raw object is made of the rows and put below `replays/`, where no drain looks. Its id follows
   from the rows' raw objects and positions.
2. The rows are deleted in one commit with the replay's id in its summary, as a compare-and-swap: the table
   must still be at the snapshot in which all these rows were seen.
3. The raw object is put into the raw bucket under a key that follows from the id, and its message is sent.

A death before 2 changes nothing. After 2 `finish_replays`, which the reconciler calls, does 3; doing it twice
does nothing more. A ping that is rejected again becomes a rejected row again, under its new raw object.

The client's address was dropped when the ping was rejected: the country of a replayed ping is `??`.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table

from telemetry_lake.columns import (
    BODY,
    DOCUMENT_TYPE,
    ERROR_TYPE,
    HEADERS,
    RAW_OBJECT,
    RAW_OBJECT_POSITION,
    REQUEST,
    SUBMISSION_DATE,
    SUBMISSION_TIMESTAMP,
)
from telemetry_lake.drain import Drain
from telemetry_lake.failures import RetriableError
from telemetry_lake.index_message import IndexMessage
from telemetry_lake.object_keys import (
    REPLAY_PREFIX,
    raw_object_key,
    replay_pings_key,
    replay_selection_key,
)
from telemetry_lake.publish import UNDECIDED, history, only_as_loaded
from telemetry_lake.raw_object import Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.row_filters import all_of, any_of, at_least, at_most, equal_to, one_of
from telemetry_lake.tables import LIVE_REJECTED_PINGS

REPLAY_ID_PROPERTY: Final = "telemetry-lake.replay-id"
"""The name of the replay's id in the summary of the snapshot that took its rows out."""
REPLAY_NODE: Final = "replay"
"""Stands for the ingest node in the keys of raw objects made by replays."""
REPLAY_MAX_PINGS: Final = 2_000
"""So many pings make one raw object of a replay, and one commit."""

_log = logging.getLogger(__name__)

_Position = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RejectedSelection:
    """Which rejected pings: all that fit every condition that is given; days are UTC and inclusive."""

    error_type: str | None = None
    document_type: str | None = None
    first_day: date | None = None
    last_day: date | None = None

    def expression(self) -> BooleanExpression:
        """The selection as a row filter."""
        first = self.first_day.isoformat() if self.first_day else None
        last = self.last_day.isoformat() if self.last_day else None
        conditions = [
            (equal_to, ERROR_TYPE, self.error_type),
            (equal_to, DOCUMENT_TYPE, self.document_type),
            (at_least, SUBMISSION_DATE, first),
            (at_most, SUBMISSION_DATE, last),
        ]
        return all_of([make(column, value) for make, column, value in conditions if value is not None])


class _Replay(BaseModel):
    """What is kept of one replay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replay_id: str
    message: IndexMessage


def replay_rejected(drain: Drain, selection: RejectedSelection) -> int:
    """Send the rejected pings of `selection` through the drain again; how many.

    Those that are there when it starts: what is rejected again meanwhile is left alone. Rows that another
    replay takes meanwhile are left to it. Raises RetriableError when S3, SQS or the catalog is away.
    """
    finish_replays(drain)
    sent = 0
    for day, group in _groups(drain.catalog.load_table(LIVE_REJECTED_PINGS), selection):
        sent += _replay_group(drain, day, group)
    return sent


def finish_replays(drain: Drain) -> list[str]:
    """Put the raw objects of replays that died half-way into their places, and send their messages.

    Returns their keys.
    """
    replays = [
        _Replay.model_validate_json(drain.store.get(drain.settings.s3.lake_bucket, item.key))
        for item in drain.store.list_objects(drain.settings.s3.lake_bucket, REPLAY_PREFIX)
        if item.key.endswith("/selection.json")
    ]
    waiting = [replay for replay in replays if not _is_shipped(drain, replay)]
    if not waiting:
        return []
    table = drain.catalog.load_table(LIVE_REJECTED_PINGS)
    finished = [replay for replay in waiting if _rows_have_left(table, replay.replay_id)]
    for replay in finished:
        _ship(drain, replay)
    return [replay.message.key for replay in finished]


def _groups(table: Table, selection: RejectedSelection) -> Iterator[tuple[date, list[_Position]]]:
    """The selected rows by day, in groups of `REPLAY_MAX_PINGS`; the same rows make the same groups."""
    rows = table.scan(
        row_filter=selection.expression(),
        selected_fields=(SUBMISSION_DATE, RAW_OBJECT, RAW_OBJECT_POSITION),
    ).to_arrow()
    by_day: dict[date, list[_Position]] = {}
    for row in rows.to_pylist():
        by_day.setdefault(row[SUBMISSION_DATE], []).append((row[RAW_OBJECT], row[RAW_OBJECT_POSITION]))
    for day in sorted(by_day):
        positions = sorted(by_day[day])
        for start in range(0, len(positions), REPLAY_MAX_PINGS):
            yield day, positions[start : start + REPLAY_MAX_PINGS]


def _replay_group(drain: Drain, day: date, group: Sequence[_Position]) -> int:
    """Send one group again; how many of its rows were still there."""
    positions = list(group)
    key = ""
    for _ in range(drain.settings.drain.commit_max_attempts):
        try:
            table = drain.catalog.load_table(LIVE_REJECTED_PINGS)
            rows = _rows(table, day, positions)
            # Rows that are gone were taken by another replay; what is left makes a replay of its own.
            positions = sorted(_positions(rows))
            if not positions:
                return 0
            replay = _prepare(drain, positions, rows)
            key = replay.message.key
            with only_as_loaded(table).transaction() as transaction:
                transaction.delete(_filter(day, positions), {REPLAY_ID_PROPERTY: replay.replay_id})
        except UNDECIDED as error:
            _log.warning("replay of %d rejected pings, looking again after: %s", len(positions), error)
            if key in finish_replays(drain):
                return len(positions)
        else:
            _ship(drain, replay)
            return len(positions)
    raise RetriableError(f"{LIVE_REJECTED_PINGS} stayed too busy to take {len(positions)} rows out of it")


def _positions(rows: pa.Table) -> Iterator[_Position]:
    columns = (rows.column(name).to_pylist() for name in (RAW_OBJECT, RAW_OBJECT_POSITION))
    return zip(*columns, strict=True)


def _filter(day: date, positions: Sequence[_Position]) -> BooleanExpression:
    """Exactly the rows at these positions of their raw objects."""
    by_object: dict[str, set[int]] = {}
    for raw_object, position in positions:
        by_object.setdefault(raw_object, set()).add(position)
    rows = [
        all_of([equal_to(RAW_OBJECT, raw_object), one_of(RAW_OBJECT_POSITION, numbers)])
        for raw_object, numbers in by_object.items()
    ]
    return all_of([equal_to(SUBMISSION_DATE, day.isoformat()), any_of(rows)])


def _rows(table: Table, day: date, positions: Sequence[_Position]) -> pa.Table:
    """Those rows of the table that are at these positions."""
    return table.scan(row_filter=_filter(day, positions)).to_arrow()


def _prepare(drain: Drain, positions: Sequence[_Position], rows: pa.Table) -> _Replay:
    """Make the raw object of a replay and keep it below `replays/`."""
    lines = "\n".join(f"{raw_object}#{position}" for raw_object, position in positions)
    identity = hashlib.sha256(lines.encode()).hexdigest()[:32]
    pings = [_as_received(row) for row in sorted(rows.to_pylist(), key=_order)]
    first, last = pings[0].submission_timestamp, pings[-1].submission_timestamp
    body = write_raw_object(pings, Promise(len(pings), first, last, REPLAY_NODE, identity))
    raw = RawObject(raw_object_key(first, REPLAY_NODE, identity), body)
    replay = _Replay(replay_id=identity, message=raw.index_message(drain.settings.s3.raw_bucket))
    bucket = drain.settings.s3.lake_bucket
    drain.store.put_if_absent(bucket, replay_pings_key(identity), body)
    drain.store.put_if_absent(bucket, replay_selection_key(identity), replay.model_dump_json().encode())
    return _Replay.model_validate_json(drain.store.get(bucket, replay_selection_key(identity)))


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row[SUBMISSION_TIMESTAMP], row[RAW_OBJECT], row[RAW_OBJECT_POSITION]


def _as_received(row: Mapping[str, Any]) -> RawPing:
    """The ping of a rejected row, as it was received, without the client's address."""
    request = row[REQUEST]
    return RawPing(
        submission_timestamp=row[SUBMISSION_TIMESTAMP],
        method=request["method"],
        path=request["path"].encode("latin-1"),
        query=request["query"].encode("latin-1"),
        protocol=request["protocol"],
        remote_address="",
        host=request["host"].encode("latin-1"),
        headers=tuple((name, value.encode("latin-1")) for name, value in row[HEADERS]),
        body=row[BODY],
    )


def _is_shipped(drain: Drain, replay: _Replay) -> bool:
    found = drain.store.list_objects(drain.settings.s3.raw_bucket, replay.message.key)
    return any(item.key == replay.message.key for item in found)


def _rows_have_left(table: Table, replay_id: str) -> bool:
    return any(
        snapshot.summary is not None and snapshot.summary.get(REPLAY_ID_PROPERTY) == replay_id
        for snapshot in history(table)
    )


def _ship(drain: Drain, replay: _Replay) -> None:
    body = drain.store.get(drain.settings.s3.lake_bucket, replay_pings_key(replay.replay_id))
    drain.store.put_if_absent(drain.settings.s3.raw_bucket, replay.message.key, body)
    drain.queue.send(replay.message)
