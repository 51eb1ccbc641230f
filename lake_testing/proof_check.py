"""Compare what clients were promised with what the lake holds, document id by document id.

The proof is the file of `python -m client_fleet --acknowledged`. A document id that was acknowledged `a`
times, with `u` further attempts that were never answered, must be in the lake at least `a` times (else a ping
is lost) and at most `a + u` times (else a ping is doubled). In any case no ping that the ingest nodes stored
may have become two rows.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_fleet.pings import LIVE, NOT_STORED
from client_fleet.proof import Acknowledgement, read_proof
from telemetry_lake.failures import RetriableError
from telemetry_lake.query.lake import open_lake
from telemetry_lake.settings import Settings

_DOCUMENT_ID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# The path holds the document id even when it is too malformed to become a column.
_PLACES: Final = f"""
SELECT regexp_extract(request.path, '{_DOCUMENT_ID}') AS document_id, '{LIVE}' AS place, count(*) AS pings
FROM live.pings GROUP BY ALL
UNION ALL
SELECT regexp_extract(request.path, '{_DOCUMENT_ID}'), 'rejected:' || error_type, count(*)
FROM live.rejected_pings GROUP BY ALL
"""
_STORED_TWICE: Final = """
SELECT count(*) FROM (
    SELECT raw_object, raw_object_position FROM (
        SELECT raw_object, raw_object_position FROM live.pings
        UNION ALL SELECT raw_object, raw_object_position FROM live.rejected_pings
    ) GROUP BY ALL HAVING count(*) > 1
)
"""
POLL_SECONDS: Final = 2.0
"""A check reads the paths of all pings, which takes about a second."""
EXAMPLES_MAX: Final = 5
"""How many document ids of each kind a verdict names."""

Places = Mapping[str, Mapping[str, int]]
"""For each document id, how many rows there are in which place: `live` or `rejected:<error type>`."""


@dataclass(slots=True)
class Verdict:
    """The differences between a proof and a lake: document ids, with what is wrong."""

    acknowledged: int = 0
    document_ids: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    rows_doubled: int = 0
    """How many pings of raw objects became more than one row."""

    @property
    def holds(self) -> bool:
        """Return whether every promise was kept."""
        return not (self.lost or self.doubled or self.misplaced or self.rows_doubled)

    def __str__(self) -> str:
        text = f"{self.acknowledged:,} acknowledged pings with {self.document_ids:,} document ids"
        if self.holds:
            return f"{text}: each is in the lake, in its place, and none is doubled"
        differences = [
            f"{len(ids):,} {what} ({'; '.join(ids[:EXAMPLES_MAX])})"
            for ids, what in (
                (self.lost, "lost"),
                (self.doubled, "doubled"),
                (self.misplaced, "in a wrong place"),
            )
            if ids
        ]
        if self.rows_doubled:
            differences.append(f"{self.rows_doubled:,} stored pings became more than one row")
        return f"{text}: {', '.join(differences)}"


def check_proof(proof: Path, settings: Settings) -> Verdict:
    """Compare the acknowledgements in the file `proof` with the tables of the lake. Returns the verdict."""
    with open_lake(settings) as lake:
        rows = lake.query(_PLACES).fetchall()
        doubled = lake.query(_STORED_TWICE).fetchall()
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for document_id, place, pings in rows:
        places[document_id][place] = pings
    verdict = compare(read_proof(proof), places)
    verdict.rows_doubled = doubled[0][0]
    return verdict


def wait_for_verdict(proof: Path, settings: Settings, *, deadline_seconds: float) -> Verdict:
    """Check the proof until the verdict holds or the deadline has passed. Returns the last verdict.

    Raises RetriableError when the lake cannot be queried at the deadline.
    """
    ends = time.monotonic() + deadline_seconds
    while True:
        is_over = time.monotonic() > ends
        try:
            verdict = check_proof(proof, settings)
            if verdict.holds or is_over:
                return verdict
        except RetriableError:
            if is_over:
                raise
        time.sleep(POLL_SECONDS)


def compare(acknowledgements: Iterable[Acknowledgement], places: Places) -> Verdict:
    """Return the verdict on acknowledgements, given where each document id is found."""
    times: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    expected: dict[str, str] = {}
    for acknowledgement in acknowledgements:
        times[acknowledgement.document_id] += 1
        unanswered[acknowledgement.document_id] += acknowledgement.unanswered
        expected[acknowledgement.document_id] = acknowledgement.expected
    verdict = Verdict(acknowledged=times.total(), document_ids=len(times))
    for document_id, promised in times.items():
        rows_by_place = places.get(document_id, {})
        place = expected[document_id]
        rows = sum(rows_by_place.values())
        least, most = (0, 0) if place == NOT_STORED else (promised, promised + unanswered[document_id])
        if rows < least:
            verdict.lost.append(f"{document_id}: {rows} rows of {least}")
        elif rows > most:
            verdict.doubled.append(f"{document_id}: {rows} rows, at most {most} were sent")
        if set(rows_by_place) - {place}:
            verdict.misplaced.append(f"{document_id}: {', '.join(rows_by_place)}, not {place}")
    return verdict
