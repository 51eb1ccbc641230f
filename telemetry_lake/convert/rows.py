"""Converted and rejected pings on their way from Python values to Arrow tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl
import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.convert.arrays import Array, of_bytes, of_integers, of_series, of_texts
from telemetry_lake.convert.captured import CapturedRequests
from telemetry_lake.convert.derivation.derived import SENT_COLUMNS
from telemetry_lake.convert.extraction import EXTRACTED_COLUMNS
from telemetry_lake.convert.lift import lifted_text
from telemetry_lake.convert.ping import Ping
from telemetry_lake.documents.text import without_halves
from telemetry_lake.failures import PingRejected
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition

PINGS_SCHEMA: Final = table_definition(LIVE_PINGS).arrow_schema()
REJECTED_SCHEMA: Final = table_definition(LIVE_REJECTED_PINGS).arrow_schema()

_FIRST_OF_DOCUMENT: Final = EXTRACTED_COLUMNS.index(columns.REASON)
"""Those before it are known of a ping before its document is lifted."""

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
    columns.OS,
    columns.OS_VERSION,
    columns.ARCHITECTURE,
    columns.CLIENT_ID,
    columns.UNKNOWN_HISTOGRAMS,
    columns.DOCUMENT,
    columns.LIFTED,
    columns.DOCUMENT_BYTES,
)
"""What the conversion says of a ping, in this order; dimensions as they were sent."""
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
"""What the conversion says of a ping that it rejects, in this order."""


class Rows:
    """Rows of one of the two tables while they are collected."""

    def __init__(self, schema: pa.Schema, value_columns: Sequence[str]) -> None:
        """`value_columns` are those whose values are added, in the order in which they are added."""
        self._schema = schema
        self._value_columns = value_columns
        self._values: list[Sequence[object]] = []
        self._places: list[int] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, place: int, values: Sequence[object]) -> None:
        """Append the row of the ping in the row `place` of the record batch."""
        self._places.append(place)
        self._values.append(values)

    def table(
        self,
        raw_object: str,
        requests: CapturedRequests,
        nested: Mapping[str, Array],
        derived: Sequence[pl.Expr],
    ) -> pa.Table:
        """Return the rows as a table with the schema of its definition.

        `requests` are those of the record batch. `nested` are columns that are ready. `derived` are columns
        made of those that were added and of the time of the submission.
        """
        if not self._values:
            return pa.Table.from_batches([], self._schema)
        arrays = {
            columns.RAW_OBJECT: of_texts([raw_object] * len(self)),
            **requests.columns(self._places),
            **nested,
        }
        for column, values in zip(self._value_columns, zip(*self._values, strict=True), strict=True):
            arrays[column] = _array(values, self._schema.field(column).type)
        # Of the sent values, only some are stored as they are; the others make room for what is derived.
        sent = [name for name in SENT_COLUMNS if name in arrays]
        frame = pl.DataFrame(pa.RecordBatch.from_arrays([arrays[name] for name in sent], names=sent))
        # A hundred rows are not worth waking threads for.
        for series in frame.select_seq(derived):
            arrays[series.name] = of_series(series, self._schema.field(series.name).type)
        return pa.Table.from_arrays([arrays[name] for name in self._schema.names], schema=self._schema)


def ping_rows() -> Rows:
    """Return no rows of `live.pings` yet."""
    return Rows(PINGS_SCHEMA, PING_VALUES)


def rejected_rows() -> Rows:
    """Return no rows of `live.rejected_pings` yet."""
    return Rows(REJECTED_SCHEMA, REJECTED_VALUES)


def ping_values(ping: Ping) -> Sequence[object]:
    """Return what `PING_VALUES` names of a ping that was converted."""
    path = ping.submission
    return (
        path.document_id,
        path.namespace,
        path.document_type,
        ping.document_version,
        *ping.sent[_FIRST_OF_DOCUMENT:],
        ping.histograms.unknown,
        ping.rest,
        lifted_text((*ping.lifted, *ping.histograms.containers)),
        len(ping.text),
    )


def rejected_values(ping: Ping, why: PingRejected) -> Sequence[object]:
    """Return what `REJECTED_VALUES` names of a ping that was rejected."""
    path = ping.path
    return (
        path and path.document_id,
        path and path.namespace,
        path and path.document_type,
        ping.document_version or (path and path.document_version),
        why.error_type.value,
        without_halves(why.message),
        why.stage.value,
        why.schema_path,
        ping.body,
    )


def _array(values: Sequence[Any], of: pa.DataType) -> Array:
    if pa.types.is_string(of):
        return of_texts(values)
    return of_bytes(values) if pa.types.is_binary(of) else of_integers(values, of)
