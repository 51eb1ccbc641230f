"""Measure what operations cost in a lake that is a year old, beside one that is new.

    python -m benchmarks.aged_lake

Starts two lakes on servers of their own. One of them gets, written directly, what a year at 732 pings/s
leaves behind where maintenance and housekeeping do their work: the files of all days in the manifests of the
live tables, the snapshots of an hour and a half, claims, batches, audits, replays. Then each operation takes
turns on both, and the medians are compared. All keys of a year would take hours to write: the objects of
batches are a sample, of days that no operation looks at one by one.
"""

import argparse
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.typedef import Record
from rich.console import Console
from rich.table import Table as ShownTable

from benchmarks.results import Recorder, add_results_option, recording
from lake_testing.shipping import MORNING, greeting, ship_pings
from lake_testing.stack import DrivenStack
from telemetry_lake.audits.dates import DateAudits
from telemetry_lake.audits.pages import AuditRecords, page_of_day
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import AuditOutcome, Claim
from telemetry_lake.drain.steps import Drain, utc_now
from telemetry_lake.query.lake import open_lake
from telemetry_lake.recovery.reconcile import reconcile
from telemetry_lake.recovery.remove_old import remove_old
from telemetry_lake.settings import Role, Settings
from telemetry_lake.storage.object_keys import (
    audit_entry_key,
    claim_key,
    committed_key,
    manifest_key,
    publication_key,
    raw_object_key,
    replay_pings_key,
    replay_selection_key,
)
from telemetry_lake.tables.catalog import create_tables
from telemetry_lake.tables.commits import TABLES_IN_ORDER
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.units import MIB

PINGS_PER_SECOND: Final = 732
SECONDS_PER_DAY: Final = 86_400
STORED_BYTES_PER_PING: Final = 5_073
"""Of the benchmark `convert`: a ping of 72 KB."""
FILE_BYTES: Final = 256 * MIB
"""What compaction makes."""
FILES_A_DAY: Final = PINGS_PER_SECOND * SECONDS_PER_DAY * STORED_BYTES_PER_PING // FILE_BYTES
ROWS_OF_A_FILE: Final = FILE_BYTES // STORED_BYTES_PER_PING
REJECTED_FILES_A_DAY: Final = 20
DAYS: Final = 365
MANIFEST_FILES: Final = 520
"""How many files one manifest names: the live tables have manifests of 256 KB, 503 bytes a file."""
SNAPSHOTS: Final = 400
"""In 90 minutes at 6,000 commits a day."""
DOCUMENT_TYPES: Final = ("main", "baseline", "metrics", "events")
AUDITS_A_DAY: Final = 6_000
ENTRY: Final = (
    AuditOutcome(may_be_published=True, waived=False, failed=0, warned=0, rows={LIVE_PINGS: 100_000})
    .model_dump_json()
    .encode()
)
WRITERS: Final = 16
RATIO_MAX: Final = 1.3
GROWING: Final = frozenset({"query: count(*)", "housekeeping"})
"""What has to look at all that there is: the files of all days, and what was written in the last months."""
PINGS: Final = 200
RAW_OBJECTS: Final = 4


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of everything in an aged lake."""

    days: int
    files_a_day: int
    batches: int
    """The sample of the bucket, all of them older than a month."""
    replays: int = 2_000


@dataclass(frozen=True, slots=True)
class Lake:
    """One of the two lakes, as the programs see it that work with it."""

    node: Settings
    analyst: Settings
    drain: LakeConnections
    web: LakeConnections
    maintenance: LakeConnections

    @classmethod
    def of(cls, stack: DrivenStack) -> "Lake":
        """Return the lake of a started stack."""
        return cls(
            node=stack.settings(Role.NODE),
            analyst=stack.settings(Role.ANALYST),
            drain=LakeConnections(stack.settings(Role.DRAIN)),
            web=LakeConnections(stack.settings(Role.WEB)),
            maintenance=LakeConnections(stack.settings(Role.MAINTENANCE)),
        )


@dataclass(slots=True)
class Timed:
    """The seconds that an operation took, in the new lake and in the aged one."""

    new: list[float] = field(default_factory=list)
    aged: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Return how many times as long it takes in the aged lake, by the medians."""
        return statistics.median(self.aged) / statistics.median(self.new)


def main() -> None:
    """Build both lakes, measure, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aged_lake",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", type=int, default=DAYS, help=f"age of the lake (default {DAYS})")
    parser.add_argument(
        "--files-a-day",
        type=int,
        default=FILES_A_DAY,
        help=f"files of live.pings that compaction leaves of each day (default {FILES_A_DAY})",
    )
    parser.add_argument("--rounds", type=int, default=7, help="of each operation (default 7)")
    parser.add_argument("--batches", type=int, default=10_000, help="batches in the bucket (default 10000)")
    add_results_option(parser)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="aged-"))
    stacks = {name: DrivenStack(folder / name) for name in ("new", "aged")}
    try:
        with recording("aged_lake", arguments.results) as recorder:
            for stack in stacks.values():
                stack.command("start", "--only", "seaweedfs", "--only", "elasticmq")
            lakes = {name: with_tables(Lake.of(stack)) for name, stack in stacks.items()}
            started = time.monotonic()
            make_old(lakes["aged"], Counts(arguments.days, arguments.files_a_day, arguments.batches))
            recorder.add("building the aged lake", time.monotonic() - started, "s")
            report(measure(lakes["new"], lakes["aged"], arguments.rounds), recorder)
    finally:
        for stack in stacks.values():
            stack.command("stop")
        shutil.rmtree(folder, ignore_errors=True)


def with_tables(lake: Lake) -> Lake:
    """Create the tables, drain one batch, which compiles the conversion, and list a day of audits."""
    create_tables(lake.maintenance.catalog)
    drain_a_batch(lake, {})
    put_all(lake.drain, audits_of_a_day())
    return lake


def make_old(lake: Lake, counts: Counts) -> None:
    """Write what so many days leave behind."""
    for name, files_a_day in (
        (LIVE_PINGS, counts.files_a_day),
        (LIVE_REJECTED_PINGS, REJECTED_FILES_A_DAY),
    ):
        table = lake.maintenance.catalog.load_table(name)
        add_files_of_days(table, counts.days, files_a_day)
        add_snapshots(lake.maintenance, table)
    put_all(lake.drain, old_objects(counts))
    remove_old(lake.maintenance, now=MORNING)


def add_files_of_days(table: Table, days: int, files_a_day: int) -> None:
    """Let the table name the files of the days before today's, as compaction and rewriting leave them."""
    sample = next(iter(table.scan().plan_files())).file
    newest = MORNING.date()
    files = (
        copied(sample, table, newest - timedelta(days=age), DOCUMENT_TYPES[number % 4])
        for age in range(days, 0, -1)
        for number in range(files_a_day)
    )
    while some := list(islice(files, MANIFEST_FILES)):
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            for file in some:
                append.append_data_file(file)


def copied(sample: DataFile, table: Table, day: date, document_type: str) -> DataFile:
    """Return a file with the statistics of `sample`, of another partition and under another name."""
    file = DataFile(*sample._data)
    values = {"submission_date": (day - date(1970, 1, 1)).days, "document_type": document_type}
    names = [field.name for field in table.spec().fields]
    path = f"{table.location()}/data/{day}/{uuid.uuid4().hex}.parquet"
    partition = Record(*(values.get(name, "schema_violation") for name in names))
    for position, value in enumerate(
        (path, sample.file_format, partition, ROWS_OF_A_FILE, FILE_BYTES), start=1
    ):
        file[position] = value
    return file


def add_snapshots(lake: LakeConnections, table: Table) -> None:
    """Give the table the history of an hour and a half of commits, in one request."""
    current = table.current_snapshot()
    assert current is not None
    snapshots = [current]
    random = Random(0)
    for number in range(1, SNAPSHOTS):
        snapshots.append(
            Snapshot(
                snapshot_id=random.getrandbits(62),
                parent_snapshot_id=snapshots[-1].snapshot_id,
                sequence_number=(current.sequence_number or 0) + number,
                timestamp_ms=current.timestamp_ms + number,
                manifest_list=current.manifest_list,
                summary=current.summary,
                schema_id=current.schema_id,
            )
        )
    lake.catalog.commit_table(
        table,
        (AssertRefSnapshotId(ref="main", snapshot_id=current.snapshot_id),),
        (
            *(AddSnapshotUpdate(snapshot=snapshot) for snapshot in snapshots[1:]),
            SetSnapshotRefUpdate(
                ref_name="main",
                type="branch",
                snapshot_id=snapshots[-1].snapshot_id,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            ),
        ),
    )


def put_all(lake: LakeConnections, objects: Iterable[tuple[str, bytes]]) -> None:
    """Write objects into the lake bucket, several at a time."""
    bucket = lake.settings.s3.lake_bucket
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda item: lake.store.put(bucket, *item), objects):
            pass


def audits_of_a_day() -> Iterator[tuple[str, bytes]]:
    """Yield the entries about the audits of the day that is looked at, which a new lake has as well."""
    for number in range(AUDITS_A_DAY):
        yield audit_entry_key(uuid.uuid4().hex, MORNING - timedelta(seconds=number)), ENTRY


def old_objects(counts: Counts) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and bodies of objects that no operation of today reads."""
    record = b"{}" + b" " * 1_000
    for number in range(counts.batches):
        at = MORNING - timedelta(days=40 + number % max(1, counts.days - 40), seconds=number)
        batch = uuid.uuid4().hex
        for segment in range(3):
            key = raw_object_key(at, "node-1", f"{batch}-{segment}")
            yield claim_key(key), Claim(batch_id=batch).model_dump_json().encode()
        for of_batch in (manifest_key, publication_key, committed_key):
            yield of_batch(batch), record
        yield audit_entry_key(batch, at), ENTRY
    for _ in range(counts.replays):
        replay = uuid.uuid4().hex
        yield replay_selection_key(replay), record
        yield replay_pings_key(replay), record


def measure(new: Lake, aged: Lake, rounds: int) -> dict[str, Timed]:
    """Let every operation take turns on both lakes. Returns what it took, by its name."""
    timed: dict[str, Timed] = {}
    for _ in range(rounds):
        for lake, name in ((new, "new"), (aged, "aged")):
            seconds: dict[str, float] = {}
            drain_a_batch(lake, seconds)
            for operation, act in operations(lake).items():
                started = time.monotonic()
                act()
                seconds[operation] = time.monotonic() - started
            for operation, value in seconds.items():
                getattr(timed.setdefault(operation, Timed()), name).append(value)
    return timed


def operations(lake: Lake) -> dict[str, Callable[[], object]]:
    """Return the operations by what the report calls them."""
    web = lake.web
    audits = AuditRecords(web.ledger, DateAudits(web.store, web.settings.s3.lake_bucket), web.days)
    today, now = MORNING.date(), utc_now()
    return {
        "reconcile": lambda: reconcile(lake.drain, now=now),
        "housekeeping": lambda: remove_old(lake.maintenance, now=MORNING),
        "page of audits": lambda: page_of_day(audits, today, now=MORNING),
        "query: one day": lambda: ask(
            lake.analyst,
            f"SELECT count(DISTINCT document_id) FROM {LIVE_PINGS} WHERE submission_date = '{today}'",
        ),
        "query: count(*)": lambda: ask(lake.analyst, f"SELECT count(*) FROM {LIVE_PINGS}"),
    }


def drain_a_batch(lake: Lake, seconds: dict[str, float]) -> None:
    """Ship raw objects and drain them; note how long each step took, and all of them."""
    for _ in range(RAW_OBJECTS):
        pings = [greeting(str(uuid.uuid4())) for _ in range(PINGS)]
        ship_pings(lake.node, [*pings, greeting(str(uuid.uuid4()), body=b"{")])
    drain = Drain(LakeConnections(lake.drain.settings))
    begun = started = time.monotonic()

    def note(step: str) -> None:
        nonlocal started
        seconds[f"batch: {step}"] = time.monotonic() - started
        started = time.monotonic()

    claimed = drain.claim()
    note("claim")
    for batch in claimed.batches:
        for part in batch.parts:
            drain.convert(part)
    note("convert")
    drain.validate(claimed)
    note("validate")
    commitments = drain.publish(claimed)
    note("publish, two commits")
    drain.acknowledge(claimed)
    note("acknowledge")
    seconds["batch: all steps"] = time.monotonic() - begun
    if [set(done.snapshots) for done in commitments] != [set(TABLES_IN_ORDER)]:
        raise SystemExit(f"one batch of both tables was to be committed, and these were: {commitments}")


def ask(settings: Settings, sql: str) -> Sequence[object]:
    """Return the answer of a query, asked as the command line asks it."""
    with open_lake(settings) as lake:
        return lake.query(sql).fetchall()


def report(timed: dict[str, Timed], recorder: Recorder) -> None:
    """Print and record the medians and their ratios."""
    shown = ShownTable(title=f"{datetime.now(UTC):%Y-%m-%d}: a year at {PINGS_PER_SECOND} pings/s")
    for heading in ("operation", "new", "aged", "ratio"):
        shown.add_column(heading, justify="left" if heading == "operation" else "right")
    for operation, both in timed.items():
        new, aged = statistics.median(both.new), statistics.median(both.aged)
        shown.add_row(operation, f"{new:.3f} s", f"{aged:.3f} s", f"{both.ratio:.2f}")
        recorder.add(operation, new, "s", measure="new lake")
        recorder.add(operation, aged, "s", measure="aged lake")
        at_most = None if operation in GROWING else RATIO_MAX
        recorder.add(operation, both.ratio, "times", measure="ratio", at_most=at_most)
    Console().print(shown)


if __name__ == "__main__":
    main()
