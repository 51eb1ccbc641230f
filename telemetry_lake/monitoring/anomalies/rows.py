"""The rows of derived.anomalies: one for each change, committed once."""

import uuid
from datetime import UTC

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And
from pyiceberg.table import Table

from telemetry_lake.monitoring.anomalies.state import Decision
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import staging_area
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.commits import commit_once
from telemetry_lake.tables.definitions import ANOMALIES, table_definition
from telemetry_lake.tables.expressions import equal_to, one_of
from telemetry_lake.tables.staged import Publication


def record(settings: Settings, catalog: Catalog, decision: Decision) -> None:
    """Commit the rows of a decision unless they are in the table.

    The history of the table says so, by the id of the decision, and where snapshots have expired its rows do.
    All changes of a decision are of one moment, so of one partition. Raises RetriableError when the catalog
    stays unavailable, and ConfigurationError when the table does not exist.
    """
    with catalog_failures(f"writing rows of {ANOMALIES}"):
        table = catalog.load_table(ANOMALIES)
        if _is_recorded(table, decision):
            return
        uri = _stage(table, decision)
    publication = Publication(
        batch_id=decision.decision_id,
        raw_objects=(),
        files={ANOMALIES: (uri,)},
        rows={ANOMALIES: len(decision.changes)},
        quarantined={},
    )
    commit_once(settings.drain, catalog, ANOMALIES, publication, decision.decided_at)


def rows_of(decision: Decision) -> pa.Table:
    """Return the rows of a decision."""
    rows = [
        {
            "change_id": change.change_id,
            "changed_date": change.changed_date,
            "changed_at": change.changed_at.astimezone(UTC),
            "change": change.change.value,
            "kind": change.anomaly.kind.value,
            "series": change.anomaly.series,
            "since": change.anomaly.since.astimezone(UTC),
            "opened_at": change.anomaly.opened_at.astimezone(UTC),
            "value": change.anomaly.value,
            "expected": change.anomaly.expected,
            "severity": change.anomaly.severity.value,
            "link": change.anomaly.link,
            "silenced": change.anomaly.silenced,
            "why": change.why or None,
        }
        for change in decision.changes
    ]
    return pa.Table.from_pylist(rows, schema=table_definition(ANOMALIES).arrow_schema())


def _is_recorded(table: Table, decision: Decision) -> bool:
    dates = {change.changed_date for change in decision.changes}
    assert len(dates) == 1
    ids = [change.change_id for change in decision.changes]
    condition = And(equal_to("changed_date", dates.pop().isoformat()), one_of("change_id", ids))
    return bool(table.scan(row_filter=condition, selected_fields=("change_id",)).to_arrow().num_rows)


def _stage(table: Table, decision: Decision) -> str:
    area = staging_area(table, decision.decision_id)
    name = f"{uuid.uuid4().hex}.parquet"
    with area.filesystem.open_output_stream(f"{area.path}/{name}") as stream:
        pq.write_table(rows_of(decision), stream, compression="zstd")
    return f"{area.uri}/{name}"
