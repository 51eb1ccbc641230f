"""Converted and rejected pings on their way from Python values to Arrow tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_lake import columns
from telemetry_lake.failures import PingRejected
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition

PINGS_SCHEMA: Final = table_definition(LIVE_PINGS).arrow_schema()
REJECTED_SCHEMA: Final = table_definition(LIVE_REJECTED_PINGS).arrow_schema()


class Request(NamedTuple):
    """The captured request, without its body and without the client's address."""

    position: int
    """Row of the ping in its raw object."""
    row: int
    """Row of the ping in its record batch."""
    path: str
    query: str
    host: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Identity:
    """What is known of a ping so far, for the row of one that gets no further."""

    document_id: str | None = None
    namespace: str | None = None
    document_type: str | None = None
    document_version: str | None = None


@dataclass(slots=True)
class PingRows:
    """Rows of `live.pings`, column by column."""

    requests: list[Request] = field(default_factory=list)
    values: dict[str, list[object]] = field(default_factory=dict)

    def add(self, request: Request, values: Mapping[str, object]) -> None:
        """Append one row; `values` has the same columns for every row."""
        self.requests.append(request)
        for column, value in values.items():
            self.values.setdefault(column, []).append(value)

    def table(self, raw_object: str, batch: pa.RecordBatch, histograms: pa.Array) -> pa.Table:
        """The rows as a table with the schema of `live.pings`; `batch` is the one they come from."""
        arrays = _captured(raw_object, batch, self.requests)
        arrays[columns.HISTOGRAMS] = histograms
        return _table(PINGS_SCHEMA, self.values, arrays, len(self.requests))


@dataclass(slots=True)
class RejectedRows:
    """Rows of `live.rejected_pings`."""

    requests: list[Request] = field(default_factory=list)
    values: dict[str, list[object]] = field(default_factory=dict)

    def add(self, request: Request, identity: Identity, body: bytes, why: PingRejected) -> None:
        """Append the row of a ping that was rejected."""
        self.requests.append(request)
        for column, value in (
            (columns.DOCUMENT_ID, identity.document_id),
            (columns.NAMESPACE, identity.namespace),
            (columns.DOCUMENT_TYPE, identity.document_type),
            (columns.DOCUMENT_VERSION, identity.document_version),
            (columns.ERROR_TYPE, why.error_type.value),
            (columns.ERROR_MESSAGE, why.message),
            (columns.STAGE, why.stage.value),
            (columns.SCHEMA_PATH, why.schema_path),
            (columns.BODY, body),
        ):
            self.values.setdefault(column, []).append(value)

    def table(self, raw_object: str, batch: pa.RecordBatch) -> pa.Table:
        """The rows as a table with the schema of `live.rejected_pings`."""
        return _table(
            REJECTED_SCHEMA, self.values, _captured(raw_object, batch, self.requests), len(self.requests)
        )


def _captured(raw_object: str, batch: pa.RecordBatch, requests: Sequence[Request]) -> dict[str, pa.Array]:
    """The columns about the request, the time and the origin."""
    rows = pa.array([request.row for request in requests], pa.int32())
    timestamps = batch.column("submission_timestamp").take(rows)
    request_type = PINGS_SCHEMA.field(columns.REQUEST).type
    request = pa.StructArray.from_arrays(
        [
            batch.column("method").take(rows),
            pa.array([request.path for request in requests], pa.string()),
            pa.array([request.query for request in requests], pa.string()),
            batch.column("protocol").take(rows),
            pa.array([request.host for request in requests], pa.string()),
        ],
        fields=list(request_type),
    )
    return {
        columns.SUBMISSION_TIMESTAMP: timestamps,
        columns.SUBMISSION_DATE: pc.cast(timestamps, pa.date32()),
        columns.REQUEST: request,
        columns.HEADERS: pa.array(
            [list(request.headers.items()) for request in requests], PINGS_SCHEMA.field(columns.HEADERS).type
        ),
        columns.RAW_OBJECT: pa.repeat(pa.scalar(raw_object, pa.string()), len(requests)),
        columns.RAW_OBJECT_POSITION: pa.array([request.position for request in requests], pa.int64()),
    }


def _table(
    schema: pa.Schema, values: Mapping[str, list[object]], arrays: Mapping[str, pa.Array], rows: int
) -> pa.Table:
    if not rows:
        return schema.empty_table()
    return pa.Table.from_arrays(
        [
            arrays[name] if name in arrays else pa.array(values[name], schema.field(name).type)
            for name in schema.names
        ],
        schema=schema,
    )
