"""The gates of a simulated batch: what is counted exactly is judged here, without Great Expectations."""

from collections.abc import Iterable, Mapping

from lake_testing.simulation.tables import Row, SimulatedCatalog
from telemetry_lake.columns import RAW_OBJECT, RAW_OBJECT_POSITION
from telemetry_lake.drain.audit import Audit
from telemetry_lake.drain.audit_frames import NamedTypes
from telemetry_lake.drain.batch import Member, StagedPart
from telemetry_lake.drain.ledger import RowCount, Waiver
from telemetry_lake.tables.commits import TABLES_IN_ORDER
from telemetry_lake.tables.staged import StagedFile

StagedTables = dict[str, list[Row]]


def read_staged_rows(catalog: SimulatedCatalog, files: Iterable[StagedFile]) -> StagedTables:
    """Return the rows of staged files, by table."""
    tables: StagedTables = {name: [] for name in TABLES_IN_ORDER}
    for file in files:
        tables[file.table] += catalog.staged[file.uri].rows
    return tables


def row_counts(_rows: StagedTables, _named: NamedTypes) -> tuple[RowCount, ...]:
    """Return no counts: they are for the metrics."""
    return ()


def judge(
    batch: str,
    rows: StagedTables,
    parts: Iterable[StagedPart],
    members: Mapping[str, Member],
    waiver: Waiver | None,
    _named: NamedTypes,
) -> Audit:
    """Judge a batch: each ping that its raw objects promise has to be staged once."""
    quarantined = {key: reason for part in parts for key, reason in part.quarantined.items()}
    places = [(row[RAW_OBJECT], row[RAW_OBJECT_POSITION]) for table in rows.values() for row in table]
    promised = {
        (key, position)
        for key, member in members.items()
        if key not in quarantined
        for position in range(member.message.ping_count)
    }
    return Audit(
        batch_id=batch,
        passed=len(places) == len(promised) and set(places) == promised,
        waived=waiver.reason if waiver else None,
        rows={name: len(table) for name, table in rows.items()},
        quarantined=quarantined,
        results=(),
    )
