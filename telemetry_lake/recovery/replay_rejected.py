"""Send rejected pings through the drain again, once the reason for their rejection is gone.

A rejected ping is a row. Sending it again moves it: out of `live.rejected_pings`, into a new raw object
that goes the way of every other. So that it is never in two places, and never lost in between:

1. Raw objects are made of the rows and put below `replays/`, where no drain looks. Their ids follow
   from the rows' raw objects and positions.
2. The batches that the rows came with get their commit records if they lack them: without its rows, a batch
   whose record was never written could not be recognised, and would be committed again.
3. The rows are deleted in one commit with a digest of the ids in its summary. The same commit sets a property
   of the table for each raw object, `UNSHIPPED_PREFIX` and its id: unlike a snapshot, it does not expire.
4. The raw objects are put into the raw bucket under keys that follow from the ids, and their messages are
   sent.
5. The properties are removed.

A process that is killed before 3 changes nothing in the table. After 3 `finish_replays`, which the reconciler
calls, does 4 and 5; doing it twice does nothing more. A ping that is rejected again becomes a rejected row
again, under its new raw object.

**A million rows while the drain commits.** Rows leave in groups of up to `GROUP_MAX_PINGS`, those of some raw
objects of a day, because each commit reads and writes the files in which its rows are. That takes longer than
the drain waits between two commits. So the deletion is no compare-and-swap on the whole table: it holds if
the files that it replaces are still there (isolation level `snapshot` in `sql/live/rejected_pings`), and
pyiceberg then only lists it again behind what was appended meanwhile. When a file is gone, because of a
compaction or another replay, the rows are looked for again.

The client's address was dropped when the ping was rejected: the country of a replayed ping is `??`.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import NoSuchTableError, ValidationException
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
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.publish import publish
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.storage.object_keys import (
    REPLAY_NODE,
    digest_of_keys,
    raw_object_key,
    replay_pings_key,
    replay_selection_key,
)
from telemetry_lake.storage.records import Record, all_at_once
from telemetry_lake.tables.catalog_failures import explained
from telemetry_lake.tables.commits import UNDECIDED, retrying
from telemetry_lake.tables.definitions import LIVE_REJECTED_PINGS
from telemetry_lake.tables.expressions import all_of, at_least, at_most, equal_to, one_of
from telemetry_lake.units import MIB

REPLAYS_PROPERTY: Final = "telemetry-lake.replays"
"""The name of the digest of replays in the summary of the snapshot that took all their rows out."""
UNSHIPPED_PREFIX: Final = "telemetry-lake.unshipped-replay."
"""Starts the name of a table property: the rows of this replay have left, its raw object may be missing."""
REPLAYS_MARKED_MAX: Final = 100
"""How many replays a mass replay ships before it removes their properties in one commit."""
REPLAY_MAX_PINGS: Final = 2_000
REPLAY_MAX_BYTES: Final = 32 * MIB
"""How many pings make one raw object of a replay, and how large their bodies are in all."""
GROUP_MAX_PINGS: Final = 100_000
GROUP_MAX_BYTES: Final = 128 * MIB
"""How many pings leave in one commit, and how large their rows are in files; they are held in memory."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RejectedSelection:
    """Which rejected pings: all that fit every condition that is given; days are UTC and inclusive."""

    error_type: str | None = None
    document_type: str | None = None
    first_day: date | None = None
    last_day: date | None = None

    def expression(self) -> BooleanExpression:
        """Return the selection as a row filter."""
        first = self.first_day.isoformat() if self.first_day else None
        last = self.last_day.isoformat() if self.last_day else None
        conditions = [
            (equal_to, ERROR_TYPE, self.error_type),
            (equal_to, DOCUMENT_TYPE, self.document_type),
            (at_least, SUBMISSION_DATE, first),
            (at_most, SUBMISSION_DATE, last),
        ]
        return all_of([make(column, value) for make, column, value in conditions if value is not None])


class _Replay(Record):
    """What is kept of one replay."""

    replay_id: str
    message: IndexMessage


def replay_rejected(lake: LakeConnections, selection: RejectedSelection) -> int:
    """Send the rejected pings of `selection` through the drain again; returns how many.

    These are the pings that are there when it starts: what is rejected again meanwhile is left alone. Rows
    that another replay takes meanwhile are left to it. Raises RetriableError when S3, SQS or the catalog is
    unavailable.
    """
    finish_replays(lake)
    sent = 0
    shipped: list[str] = []
    for group in _groups(lake.catalog.load_table(LIVE_REJECTED_PINGS), selection):
        replays = _replay_group(lake, group)
        sent += sum(replay.message.ping_count for replay in replays)
        shipped += [replay.replay_id for replay in replays]
        if len(shipped) >= REPLAYS_MARKED_MAX:
            retrying(lake.settings.drain)(_unmark, lake, shipped)
            shipped.clear()
    retrying(lake.settings.drain)(_unmark, lake, shipped)
    return sent


def finish_replays(lake: LakeConnections) -> list[str]:
    """Put the raw objects of replays that stopped half-way into their places, and send their messages.

    Costs nothing for replays that are finished. Returns the keys of the raw objects. Raises RetriableError
    when S3, SQS or the catalog is unavailable.
    """
    marked = unfinished_replays(lake)
    replays = [lake.records.require(replay_selection_key(replay_id), _Replay) for replay_id in marked]
    unshipped = [replay for replay in replays if not _is_shipped(lake, replay)]
    all_at_once(partial(_ship, lake), unshipped)
    retrying(lake.settings.drain)(_unmark, lake, marked)
    return [replay.message.key for replay in unshipped]


def unfinished_replays(lake: LakeConnections) -> list[str]:
    """Return the ids of the replays whose rows have left the table and that are not known to be shipped.

    Raises RetriableError when the catalog is unavailable.
    """
    return retrying(lake.settings.drain)(_marked, lake)


def shipped_replays(lake: LakeConnections, replay_ids: Sequence[str]) -> list[str]:
    """Return those of the replays whose raw object is in the raw bucket.

    Of them, those are finished that `unfinished_replays` does not name when it is asked afterwards.
    """
    keys = map(replay_selection_key, replay_ids)
    replays = [replay for replay in lake.records.read_all(keys, _Replay) if replay is not None]
    shipped = all_at_once(lambda replay: _is_shipped(lake, replay), replays)
    return [replay.replay_id for replay, is_shipped in zip(replays, shipped, strict=True) if is_shipped]


def _marked(lake: LakeConnections) -> list[str]:
    """Return the ids of the replays that the table's properties name."""
    try:
        table = lake.catalog.load_table(LIVE_REJECTED_PINGS)
    except (NoSuchTableError, *UNDECIDED) as error:
        raise explained(f"looking for unfinished replays in {LIVE_REJECTED_PINGS}", error) from error
    names = sorted(name for name in table.metadata.properties if name.startswith(UNSHIPPED_PREFIX))
    return [name.removeprefix(UNSHIPPED_PREFIX) for name in names]


def _unmark(lake: LakeConnections, shipped: Sequence[str]) -> None:
    """Remove the table's properties of these replays, whose raw objects are in their places."""
    if not shipped:
        return
    try:
        table = lake.catalog.load_table(LIVE_REJECTED_PINGS)
        names = [
            name
            for replay_id in shipped
            if (name := UNSHIPPED_PREFIX + replay_id) in table.metadata.properties
        ]
        if names:
            with table.transaction() as transaction:
                transaction.remove_properties(*names)
    except UNDECIDED as error:
        raise explained(f"removing properties of {LIVE_REJECTED_PINGS}", error) from error


def _groups(table: Table, selection: RejectedSelection) -> Iterator["_Group"]:
    """Yield the selected rows by day and raw objects; the same rows make the same groups."""
    rows = table.scan(
        row_filter=selection.expression(), selected_fields=(SUBMISSION_DATE, RAW_OBJECT)
    ).to_arrow()
    counted = rows.group_by([SUBMISSION_DATE, RAW_OBJECT]).aggregate([([], "count_all")])
    most = min(GROUP_MAX_PINGS, GROUP_MAX_BYTES // _bytes_of_a_row(table, selection))
    group: _Group | None = None
    held = 0
    for row in sorted(counted.to_pylist(), key=lambda row: (row[SUBMISSION_DATE], row[RAW_OBJECT])):
        count = row["count_all"]
        if group is None or group.day != row[SUBMISSION_DATE] or held + count > most:
            if group is not None:
                yield group
            group, held = _Group(selection, row[SUBMISSION_DATE], []), 0
        group.raw_objects.append(row[RAW_OBJECT])
        held += count
    if group is not None:
        yield group


def _bytes_of_a_row(table: Table, selection: RejectedSelection) -> int:
    """Return how many bytes a row takes on average in the files that may have rows of the selection."""
    files = [task.file for task in table.scan(row_filter=selection.expression()).plan_files()]
    rows = sum(file.record_count for file in files)
    return max(1, sum(file.file_size_in_bytes for file in files) // max(1, rows))


@dataclass(slots=True)
class _Group:
    """The selected rows of some raw objects on one day, which leave together, and their replays."""

    selection: RejectedSelection
    day: date
    raw_objects: list[str]
    """In order."""
    replays: list[_Replay] = field(default_factory=list)

    def between(self) -> BooleanExpression:
        """Return the filter for the selected rows of all raw objects from the first to the last.

        Files of which all rows fit it leave as a whole: their statistics say so, and nothing is read.
        """
        return all_of(
            [
                self.selection.expression(),
                equal_to(SUBMISSION_DATE, self.day.isoformat()),
                at_least(RAW_OBJECT, self.raw_objects[0]),
                at_most(RAW_OBJECT, self.raw_objects[-1]),
            ]
        )

    def exactly(self) -> BooleanExpression:
        """Return the filter for the rows of the group and no others."""
        return all_of([self.between(), one_of(RAW_OBJECT, self.raw_objects)])


def _replay_group(lake: LakeConnections, group: _Group) -> list[_Replay]:
    """Send one group again; returns the replays of its rows that were still there."""
    _record_commits(lake, group.raw_objects)
    retrying(lake.settings.drain)(_take_out, lake, group)
    all_at_once(partial(_ship, lake), group.replays)
    return group.replays


def _take_out(lake: LakeConnections, group: _Group) -> None:
    """Prepare the replays of a group and delete its rows; without a replay afterwards, no row was left.

    Raises RetriableError when the rows were not deleted, or perhaps were: the next call finds out.
    """
    try:
        table = lake.catalog.load_table(LIVE_REJECTED_PINGS)
        if group.replays and _rows_have_left(table, group.replays):
            return
        # Rows that are gone were taken by another replay; what is left makes replays of its own.
        group.replays = []
        rows, condition = _rows(table, group)
        if not rows.num_rows:
            return
        group.replays = _prepare(lake, rows)
        with table.transaction() as transaction:
            transaction.set_properties(
                {UNSHIPPED_PREFIX + replay.replay_id: replay.message.key for replay in group.replays}
            )
            transaction.delete(condition, {REPLAYS_PROPERTY: _digest(group.replays)})
    except (ValidationException, *UNDECIDED) as error:
        count = sum(replay.message.ping_count for replay in group.replays)
        _log.warning("replay of %d rejected pings, looking again after: %s", count, error)
        raise explained(f"taking {count} rows out of {LIVE_REJECTED_PINGS}", error) from error


def _rows(table: Table, group: _Group) -> tuple[pa.Table, BooleanExpression]:
    """Return the rows of a group that the table has, and a filter that fits them and no others of it."""
    rows = table.scan(row_filter=group.between()).to_arrow()
    if set(rows.column(RAW_OBJECT).unique().to_pylist()) <= set(group.raw_objects):
        return rows, group.between()
    return table.scan(row_filter=group.exactly()).to_arrow(), group.exactly()


def _record_commits(lake: LakeConnections, raw_objects: Iterable[str]) -> None:
    """Write the commit records that are missing of the batches that own these raw objects.

    Rows of a batch in `live.rejected_pings` show that all of it is committed, because that table comes last;
    `publish` finds them there and adds nothing. A raw object without an owner is left alone: its claim was
    lost, which is repaired by `rebuild-ledger`.
    """
    owners = {owned.batch for owned in lake.ledger.ownerships(sorted(raw_objects)).values()}
    batches = sorted(filter(None, owners))
    committed = lake.ledger.commitments(batches)
    for batch in batches:
        if batch not in committed:
            publish(lake.settings.drain, lake.catalog, lake.ledger, batch, at=datetime.now(UTC))


def _prepare(lake: LakeConnections, rows: pa.Table) -> list[_Replay]:
    """Make the raw objects of replays from rows of one day, and keep them below `replays/`."""
    ordered = rows.sort_by([(RAW_OBJECT, "ascending"), (RAW_OBJECT_POSITION, "ascending")])
    return all_at_once(partial(_prepare_one, lake), _cut(ordered))


def _cut(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows one after another by as many as make one raw object."""
    start = size = 0
    for place, bytes_of_body in enumerate(pc.binary_length(rows.column(BODY)).to_pylist()):
        if place > start and (place - start == REPLAY_MAX_PINGS or size + bytes_of_body > REPLAY_MAX_BYTES):
            yield rows.slice(start, place - start)
            start, size = place, 0
        size += bytes_of_body
    yield rows.slice(start)


def _prepare_one(lake: LakeConnections, rows: pa.Table) -> _Replay:
    """Make one raw object and keep it."""
    places = zip(*(rows.column(name).to_pylist() for name in (RAW_OBJECT, RAW_OBJECT_POSITION)), strict=True)
    lines = "\n".join(f"{raw_object}#{position}" for raw_object, position in places)
    identity = hashlib.sha256(lines.encode()).hexdigest()[:32]
    pings = [_as_received(row) for row in sorted(rows.to_pylist(), key=_order)]
    first, last = pings[0].submission_timestamp, pings[-1].submission_timestamp
    body = write_raw_object(pings, Promise(len(pings), first, last, REPLAY_NODE, identity))
    raw = RawObject(raw_object_key(first, REPLAY_NODE, identity), body)
    replay = _Replay(replay_id=identity, message=raw.index_message(lake.settings.s3.raw_bucket))
    lake.store.put_if_absent(lake.settings.s3.lake_bucket, replay_pings_key(identity), body)
    return lake.records.decide(replay_selection_key(identity), replay)


def _order(row: Mapping[str, Any]) -> tuple[datetime, str, int]:
    return row[SUBMISSION_TIMESTAMP], row[RAW_OBJECT], row[RAW_OBJECT_POSITION]


def _as_received(row: Mapping[str, Any]) -> RawPing:
    """Return the ping of a rejected row as it was received, without the client's address."""
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


def _is_shipped(lake: LakeConnections, replay: _Replay) -> bool:
    found = lake.store.list_objects(lake.settings.s3.raw_bucket, replay.message.key)
    return any(item.key == replay.message.key for item in found)


def _rows_have_left(table: Table, replays: Sequence[_Replay]) -> bool:
    """Return whether all rows of these replays are gone; properties are, when they were finished since."""
    digest = _digest(replays)
    return all(UNSHIPPED_PREFIX + replay.replay_id in table.metadata.properties for replay in replays) or any(
        snapshot.summary is not None and snapshot.summary.get(REPLAYS_PROPERTY) == digest
        # Not only the history that is connected: expiry may have cut it.
        for snapshot in table.metadata.snapshots
    )


def _digest(replays: Iterable[_Replay]) -> str:
    return digest_of_keys(replay.replay_id for replay in replays)


def _ship(lake: LakeConnections, replay: _Replay) -> None:
    body = lake.store.get(lake.settings.s3.lake_bucket, replay_pings_key(replay.replay_id))
    message = replay.message
    lake.store.put_if_absent(lake.settings.s3.raw_bucket, message.key, body, metadata=message.metadata())
    lake.queue.send(message)
