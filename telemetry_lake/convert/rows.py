"""Converted and rejected pings on their way from Python values to Arrow tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_lake import columns
from telemetry_lake.convert.arrays import Array, of_bytes, of_integers, of_maps, of_texts
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
    headers: dict[str, str]


@dataclass(slots=True)
class Identity:
    """What is known of a ping so far, for the row of one that gets no further."""

    document_id: str | None = None
    namespace: str | None = None
    document_type: str | None = None
    document_version: str | None = None


class Rows:
    """Rows of one of the two tables."""

    def __init__(self, schema: pa.Schema, value_columns: Sequence[str]) -> None:
        """`value_columns` are those whose values come one by one, in the order they come in."""
        self._schema = schema
        self._value_columns = value_columns
        self._requests: list[Request] = []
        self._values: list[Sequence[object]] = []

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request, values: Sequence[object]) -> None:
        """Append one row."""
        self._requests.append(request)
        self._values.append(values)

    def table(self, raw_object: str, batch: pa.RecordBatch, nested: Mapping[str, Array]) -> pa.Table:
        """The rows as a table with the schema of its definition, of the record batch they come from."""
        if not self._requests:
            return pa.Table.from_batches([], self._schema)
        arrays = _captured(raw_object, batch, self._requests)
        arrays.update(nested)
        for column, values in zip(self._value_columns, zip(*self._values, strict=True), strict=True):
            arrays[column] = _array(values, self._schema.field(column).type)
        return pa.Table.from_arrays([arrays[name] for name in self._schema.names], schema=self._schema)


PING_VALUES: Final = (
    columns.DOCUMENT_ID,
    columns.NAMESPACE,
    columns.DOCUMENT_TYPE,
    columns.DOCUMENT_VERSION,
    columns.REASON,
    columns.APP_NAME,
    columns.APP_UPDATE_CHANNEL,
    columns.APP_VERSION,
    columns.APP_BUILD_ID,
    columns.NORMALIZED_CHANNEL,
    columns.OS,
    columns.OS_VERSION,
    columns.NORMALIZED_OS,
    columns.ARCHITECTURE,
    columns.COUNTRY,
    columns.CLIENT_ID,
    columns.SAMPLE_ID,
    columns.UNKNOWN_HISTOGRAMS,
    columns.DOCUMENT,
    columns.LIFTED,
    columns.DOCUMENT_BYTES,
)
REJECTED_VALUES: Final = (
    columns.DOCUMENT_ID,
    columns.NAMESPACE,
    columns.DOCUMENT_TYPE,
    columns.DOCUMENT_VERSION,
    columns.ERROR_TYPE,
    columns.ERROR_MESSAGE,
    columns.STAGE,
    columns.SCHEMA_PATH,
    columns.BODY,
)


def ping_rows() -> Rows:
    """No rows of `live.pings` yet."""
    return Rows(PINGS_SCHEMA, PING_VALUES)


def rejected_rows() -> Rows:
    """No rows of `live.rejected_pings` yet."""
    return Rows(REJECTED_SCHEMA, REJECTED_VALUES)


def rejected_values(identity: Identity, body: bytes, why: PingRejected) -> Sequence[object]:
    """The row of a ping that was rejected."""
    return (
        identity.document_id,
        identity.namespace,
        identity.document_type,
        identity.document_version,
        why.error_type.value,
        why.message,
        why.stage.value,
        why.schema_path,
        body,
    )


def _captured(raw_object: str, batch: pa.RecordBatch, requests: Sequence[Request]) -> dict[str, Array]:
    """The columns about the request, the time and the origin."""
    rows = of_integers([request.row for request in requests], pa.int32())
    timestamps = batch.column("submission_timestamp").take(rows)
    request_type = PINGS_SCHEMA.field(columns.REQUEST).type
    request = pa.StructArray.from_arrays(
        [
            batch.column("method").take(rows),
            of_texts([request.path for request in requests]),
            of_texts([request.query for request in requests]),
            batch.column("protocol").take(rows),
            of_texts([request.host for request in requests]),
        ],
        fields=list(request_type),
    )
    return {
        columns.SUBMISSION_TIMESTAMP: timestamps,
        columns.SUBMISSION_DATE: pc.cast(timestamps, pa.date32()),
        columns.REQUEST: request,
        columns.HEADERS: of_maps(
            [request.headers for request in requests], PINGS_SCHEMA.field(columns.HEADERS).type
        ),
        columns.RAW_OBJECT: of_texts([raw_object] * len(requests)),
        columns.RAW_OBJECT_POSITION: of_integers([request.position for request in requests], pa.int64()),
    }


def _array(values: Sequence[Any], of: pa.DataType) -> Array:
    if pa.types.is_string(of):
        return of_texts(values)
    return of_bytes(values) if pa.types.is_binary(of) else of_integers(values, of)
