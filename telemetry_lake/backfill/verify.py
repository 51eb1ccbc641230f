"""The proof that a date has arrived, before readers see it.

For each unit the records of the source are compared with what was staged: counts, bytes, document ids,
dates, and the digest over document ids and contents (`digest`). Then the source is listed once more. Every
difference is a line of the report and belongs to a class:

- *Left out without loss*, because something else stands for it. `duplicate`: document id and content are
  those of a record that comes before, by path, offset and number. `arrived_live`: the ingest servers
  received the same document id within `LIVE_WINDOW_DAYS` of the date.
- *Loss*. Every kind of problem with the archive (`ProblemKind`), and `conflicting`: a converted record whose
  document id came before with other content. A person may accept a class of losses for a date; that is
  recorded, and then the date can be published.
- *Unexplained*: a unit that was not copied, and anything that does not add up. That cannot be accepted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime

from telemetry_lake.backfill.archive.source import ProblemKind
from telemetry_lake.backfill.plan import DatePlan, PlannedFile, Problem, Unit
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.units.check_unit import UnitCheck
from telemetry_lake.backfill.units.digest import Digest
from telemetry_lake.storage.records import Record

LIVE_WINDOW_DAYS: Final = 1
"""A ping that arrived live and a document of the archive are the same when their dates are so close."""


class LeftOut(StrEnum):
    """Why a record that was staged does not go into a table."""

    DUPLICATE = "duplicate"
    CONFLICTING = "conflicting"
    ARRIVED_LIVE = "arrived_live"


LOSSES: Final = frozenset({*ProblemKind, LeftOut.CONFLICTING} - {ProblemKind.NO_CHECKSUM})
"""The classes that a person has to accept. Without a checksum a file is still compared by its length and its
modification time."""


class LeftOutCount(Record):
    """How many records of a unit are left out for one reason.

    `error_type` is that of their rows in the rejected table, None for converted records.
    """

    unit: str
    reason: LeftOut
    error_type: str | None
    count: int


class Duplicates(Record):
    """What looking for duplicates over all units of a date found."""

    left_out: tuple[LeftOutCount, ...]
    document_ids: int


class UnitLine(Record):
    """A unit's part of a date: records = converted + rejected + left out, or it is unexplained.

    `records` and `bytes` are the source's; the others were found in what was written.
    """

    unit: str
    records: int
    converted: int
    rejected: int
    left_out: dict[str, int]
    bytes: int
    written_bytes: int
    document_ids: int
    unexplained: tuple[str, ...]


class DigestPair(Record):
    """The digest of the source and the one of what was written."""

    source: str
    written: str


class Verification(Record):
    """What the verification of a date found; the totals are those of its units.

    `rejected` counts the rows that stay by error type, as the units' do. `losses` counts records for
    `conflicting`, and problems of the source for every other class.
    """

    backfill_id: str
    day: date
    verified_at: AwareDatetime
    files: int
    units: tuple[UnitLine, ...]
    rejected: dict[str, int]
    left_out: dict[str, int]
    document_ids: int
    converted_digest: DigestPair
    rejected_digest: DigestPair
    first_date: date | None
    last_date: date | None
    problems: tuple[Problem, ...]
    losses: dict[str, int]
    unexplained: tuple[str, ...]

    def total(self, column: str) -> int:
        """Return the sum of one of the numbers of the units."""
        return sum(getattr(line, column) for line in self.units)


def verify_date(
    backfill: str,
    plan: DatePlan | None,
    day: date,
    units: Sequence[Unit],
    tallies: Mapping[str, Tally],
    checks: Mapping[str, UnitCheck],
    duplicates: Duplicates,
    listed_now: Iterable[PlannedFile],
    *,
    verified_at: AwareDatetime,
) -> Verification:
    """Put together what was found of a date.

    `units` are those that may have records of the date, `listed_now` the files of the date as they are now.
    """
    left_out: dict[str, list[LeftOutCount]] = {}
    for count in duplicates.left_out:
        left_out.setdefault(count.unit, []).append(count)
    lines = [
        _line(day, unit, tallies.get(unit.name), checks.get(unit.name), left_out.get(unit.name, []))
        for unit in units
    ]
    copied = [tallies[unit.name] for unit in units if unit.name in tallies]
    day_tallies = [tally.dates[day] for tally in copied if day in tally.dates]
    written = [check.written for check in checks.values()]
    problems = [] if plan is None else [*plan.problems, *compare_listings(plan, listed_now)]
    losses = Counter(problem.kind.value for problem in problems)
    for tally in copied:
        problems += tally.problems.get(day, ())
        losses.update(tally.problem_counts.get(day, {}))
    reasons = Counter[str]()
    for count in duplicates.left_out:
        reasons[count.reason.value] += count.count
    losses[LeftOut.CONFLICTING.value] = reasons[LeftOut.CONFLICTING.value]
    rejected = Counter[str]()
    for found in written:
        rejected.update(found.rejected)
    rejected.subtract(_rejected_and_left_out(duplicates.left_out))
    ends = [end for found in written for end in (found.first, found.last) if end is not None]
    return Verification(
        backfill_id=backfill,
        day=day,
        verified_at=verified_at,
        files=0 if plan is None else len(plan.files),
        units=tuple(lines),
        rejected={kind: count for kind, count in sorted(rejected.items()) if count},
        left_out=dict(sorted(reasons.items())),
        document_ids=duplicates.document_ids,
        converted_digest=DigestPair(
            source=_sum(int(tallied.converted_digest, 16) for tallied in day_tallies),
            written=_sum(found.converted_digest.value for found in written),
        ),
        rejected_digest=DigestPair(
            source=_sum(int(tallied.rejected_digest, 16) for tallied in day_tallies),
            written=_sum(found.rejected_digest.value for found in written),
        ),
        first_date=min(ends, default=None),
        last_date=max(ends, default=None),
        problems=tuple(problems),
        losses={kind: count for kind, count in sorted(losses.items()) if count and kind in LOSSES},
        unexplained=tuple(f"{line.unit}: {sentence}" for line in lines for sentence in line.unexplained),
    )


def compare_listings(plan: DatePlan, listed_now: Iterable[PlannedFile]) -> Iterator[Problem]:
    """Yield what has changed in the source since a date was planned."""
    planned = {file.path: file for file in plan.files}
    for file in listed_now:
        before = planned.pop(file.path, None)
        if before is None:
            message = f"the file, {_identity(file)}, was not there when the backfill was planned"
        elif before != file:
            message = f"planned: {_identity(before)}; now: {_identity(file)}"
        else:
            continue
        yield Problem(path=file.path, offset=None, kind=ProblemKind.SOURCE_CHANGED, message=message)
    for path in planned:
        message = "planned, and not there any more"
        yield Problem(path=path, offset=None, kind=ProblemKind.MISSING_FILE, message=message)


def _line(
    day: date, unit: Unit, tally: Tally | None, check: UnitCheck | None, left_out: Sequence[LeftOutCount]
) -> UnitLine:
    if tally is None or check is None:
        sentence = "was not copied; `run` copies what is missing"
        return UnitLine(
            unit=unit.name,
            records=0,
            converted=0,
            rejected=0,
            left_out={},
            bytes=0,
            written_bytes=0,
            document_ids=0,
            unexplained=(sentence,),
        )
    source, written = tally.dates.get(day), check.written
    records, size = (source.records, source.bytes) if source else (0, 0)
    converted = written.converted - sum(entry.count for entry in left_out if entry.error_type is None)
    rejected = written.rejected.total() - _rejected_and_left_out(left_out).total()
    reasons = Counter[str]()
    for entry in left_out:
        reasons[entry.reason.value] += entry.count
    unexplained = list(check.differences)
    if (more := check.difference_count - len(check.differences)) > 0:
        unexplained.append(f"and {more} records more")
    digests = [str(written.converted_digest), str(written.rejected_digest)]
    if records != converted + rejected + reasons.total():
        unexplained.append(
            f"{records} records of the source are not {converted} converted + {rejected} rejected + "
            f"{reasons.total()} left out"
        )
    if source is not None and digests != [source.converted_digest, source.rejected_digest]:
        unexplained.append("the digest of what was written is not that of the source")
    if source is not None and source.rejected != written.rejected:
        unexplained.append(f"{source.rejected} were rejected, {dict(written.rejected)} written")
    if size != written.bytes:
        unexplained.append(f"{size} bytes of documents were read, {written.bytes} are in what was written")
    if check.document_ids != written.document_ids:
        unexplained.append(
            f"{check.document_ids} different document ids were read, {written.document_ids} written"
        )
    if any(end not in (None, day) for end in (written.first, written.last)):
        unexplained.append(f"dates from {written.first} to {written.last} are in the files of {day}")
    return UnitLine(
        unit=unit.name,
        records=records,
        converted=converted,
        rejected=rejected,
        left_out=dict(sorted(reasons.items())),
        bytes=size,
        written_bytes=written.bytes,
        document_ids=check.document_ids,
        unexplained=tuple(unexplained),
    )


def _rejected_and_left_out(left_out: Iterable[LeftOutCount]) -> "Counter[str]":
    """Return the number of records that would be rejected rows, by error type."""
    counts = Counter[str]()
    for entry in left_out:
        if entry.error_type is not None:
            counts[entry.error_type] += entry.count
    return counts


def _sum(values: Iterable[int]) -> str:
    total = Digest()
    for value in values:
        total.merge(value)
    return str(total)


def _identity(file: PlannedFile) -> str:
    checksum = f", {file.checksum}" if file.checksum else ""
    return f"{file.bytes} bytes, modified {file.modified_ms}{checksum}"
