"""What the gates look at: the harmless columns of a staged batch, as frames that checks can be asked of.

Only columns that are cheap to read are read; documents, bodies, headers and histograms are not.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from telemetry_lake.columns import (
    BODY,
    DOCUMENT,
    DOCUMENT_TYPE,
    ERROR_TYPE,
    NAMESPACE,
    NORMALIZED_CHANNEL,
    RAW_OBJECT,
    RAW_OBJECT_POSITION,
    SUBMISSION_TIMESTAMP,
)
from telemetry_lake.drain.batch import Member
from telemetry_lake.drain.ledger import RowCount
from telemetry_lake.drain.usual_shares import UsualShares
from telemetry_lake.failures import ErrorType
from telemetry_lake.tables.batch_checks import Subject
from telemetry_lake.tables.checks import checks_of_batch, checks_of_table
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition
from telemetry_lake.tables.staged import StagedFile

if TYPE_CHECKING:
    import pandas as pd

RATIO_MIN_PINGS: Final = 100
"""A share of fewer pings means nothing."""
FILES_AT_ONCE: Final = 8
COUNTED_GROUPS_MAX: Final = 500
"""The most groups of rows of a batch that are counted: clients can invent any number of types."""

_NEVER_READ: Final = frozenset({DOCUMENT, BODY})
_NESTED: Final = frozenset({"struct", "list", "map"})
_TIMESTAMP: Final = pl.Datetime("us", "UTC")
_REFUSED: Final = (
    ErrorType.SCHEMA_VIOLATION,
    ErrorType.UNKNOWN_HISTOGRAM_REVISION,
    ErrorType.INVALID_HISTOGRAM,
    ErrorType.INVALID_VALUE,
    ErrorType.TOO_COSTLY,
    ErrorType.CONVERSION_FAILED,
)
"""The reasons that may be a fault of the lake: of a schema, a definition, a limit or the conversion."""


class StagedRows(NamedTuple):
    """The columns of a staged batch that are checked, one table for each of its two tables."""

    pings: pa.Table
    rejected: pa.Table

    def by_table(self) -> dict[str, int]:
        """Return how many rows each table is to get."""
        return {LIVE_PINGS: self.pings.num_rows, LIVE_REJECTED_PINGS: self.rejected.num_rows}


def read_staged_rows(catalog: Catalog, files: Sequence[StagedFile]) -> StagedRows:
    """Read the columns that are checked of all files of a batch."""
    return StagedRows(
        *(_rows(catalog.load_table(table), files) for table in (LIVE_PINGS, LIVE_REJECTED_PINGS))
    )


class NamedTypes(NamedTuple):
    """The namespaces and document types that schemas name, and which share of each is usually refused."""

    names: frozenset[tuple[str, str]]
    usual: UsualShares


def subjects_of(
    rows: StagedRows, promised: Mapping[str, Member], document_types: "pd.DataFrame"
) -> list[Subject]:
    """Return the frames to check; `promised` are the raw objects, by key, whose pings are in the rows."""
    position = (RAW_OBJECT, RAW_OBJECT_POSITION)
    return [
        Subject(LIVE_PINGS, checks_of_table(LIVE_PINGS), rows.pings.to_pandas(), position),
        Subject(
            LIVE_REJECTED_PINGS, checks_of_table(LIVE_REJECTED_PINGS), rows.rejected.to_pandas(), position
        ),
        Subject(
            "raw objects",
            checks_of_batch("raw_objects"),
            raw_objects_frame(promised, rows),
            (RAW_OBJECT,),
        ),
        Subject(
            "document types",
            checks_of_batch("document_types"),
            document_types,
            (NAMESPACE, DOCUMENT_TYPE),
        ),
    ]


def raw_objects_frame(promised: Mapping[str, Member], rows: StagedRows) -> "pd.DataFrame":
    """Return one row for each raw object; `sql/live/batch_checks.yaml` describes the columns.

    A raw object that rows name and that is not among the promised ones has a row too, with 0 promised.
    """
    messages = [member.message for member in promised.values()]
    promises = pl.DataFrame(
        {
            RAW_OBJECT: list(promised),
            "promised": [message.ping_count for message in messages],
            "first": [message.first_submission_timestamp for message in messages],
            "last": [message.last_submission_timestamp for message in messages],
        },
        schema={RAW_OBJECT: pl.String, "promised": pl.Int64, "first": _TIMESTAMP, "last": _TIMESTAMP},
    )
    stamp = pl.col(SUBMISSION_TIMESTAMP)
    found = (
        _both(rows, [RAW_OBJECT, SUBMISSION_TIMESTAMP])
        .join(promises, on=RAW_OBJECT, how="left")
        .group_by(RAW_OBJECT)
        .agg(
            pings=(~pl.col("rejected")).sum(),
            rejected=pl.col("rejected").sum(),
            outside_range=((stamp < pl.col("first")) | (stamp > pl.col("last"))).sum(),
        )
    )
    counts = ["promised", "pings", "rejected", "outside_range"]
    return (
        promises.join(found, on=RAW_OBJECT, how="full", coalesce=True)
        .select(RAW_OBJECT, pl.col(counts).cast(pl.Int64).fill_null(0))
        .with_columns(missing=pl.col("promised") - pl.col("pings") - pl.col("rejected"))
        .sort(RAW_OBJECT)
        .to_pandas()
    )


def document_types_frame(rows: StagedRows, named: NamedTypes) -> "pd.DataFrame":
    """Return one row for each document type; `sql/live/batch_checks.yaml` describes the columns."""
    kind = [NAMESPACE, DOCUMENT_TYPE]
    usual = pl.DataFrame(
        [(*name, named.usual.refused_percent("/".join(name))) for name in sorted(named.names)],
        schema={NAMESPACE: pl.String, DOCUMENT_TYPE: pl.String, "usual_percent": pl.Float64},
        orient="row",
    )
    return (
        _both(rows, [*kind, ERROR_TYPE])
        .with_columns(pl.col(kind).fill_null("unknown"))
        .group_by(kind)
        .agg(
            rejected=pl.col("rejected").cast(pl.Int64).sum(),
            refused=pl.col(ERROR_TYPE).is_in(_REFUSED).cast(pl.Int64).sum(),
            total=pl.len().cast(pl.Int64),
        )
        .with_columns(
            pl.when(pl.col("total") >= RATIO_MIN_PINGS)
            .then(100 * pl.col(name) / pl.col("total"))
            .otherwise(0.0)
            .alias(f"{name}_percent")
            for name in ("rejected", "refused")
        )
        .join(usual, on=kind, how="left")
        .with_columns(above_usual=(pl.col("refused_percent") - pl.col("usual_percent")).fill_null(0.0))
        .sort(kind)
        .to_pandas()
    )


def row_counts(rows: StagedRows, named: NamedTypes) -> tuple[RowCount, ...]:
    """Return how many rows there are by type, channel and error; named types first, then large groups."""
    names = pl.DataFrame(
        sorted(named.names), schema={NAMESPACE: pl.String, DOCUMENT_TYPE: pl.String}, orient="row"
    ).with_columns(is_named=pl.lit(value=True))
    group = [NAMESPACE, DOCUMENT_TYPE, NORMALIZED_CHANNEL, ERROR_TYPE]
    counted = (
        _both(rows, group)
        .group_by(group)
        .agg(rows=pl.len())
        .join(names, on=[NAMESPACE, DOCUMENT_TYPE], how="left")
        .sort("is_named", "rows", *group, descending=[False, True, *(False for _ in group)], nulls_last=True)
        .head(COUNTED_GROUPS_MAX)
        .select(*group, "rows")
    )
    return tuple(
        RowCount(
            namespace=namespace, document_type=document_type, channel=channel, error_type=error, rows=count
        )
        for namespace, document_type, channel, error, count in counted.iter_rows()
    )


def refused_percents(document_types: "pd.DataFrame") -> dict[str, float]:
    """Return the share that was refused of each named type with pings enough, from `document_types_frame`."""
    judged = document_types[
        document_types["usual_percent"].notna() & (document_types["total"] >= RATIO_MIN_PINGS)
    ]
    return {
        f"{namespace}/{document_type}": float(percent)
        for namespace, document_type, percent in zip(
            judged[NAMESPACE], judged[DOCUMENT_TYPE], judged["refused_percent"], strict=True
        )
    }


def _both(rows: StagedRows, names: Sequence[str]) -> pl.DataFrame:
    """Return the named columns of both tables, null where one lacks it, and whether a row is `rejected`."""
    return pl.concat(
        [
            pl.DataFrame(table.select([name for name in names if name in table.column_names])).with_columns(
                rejected=pl.lit(is_rejected)
            )
            for table, is_rejected in ((rows.pings, False), (rows.rejected, True))
        ],
        how="diagonal",
    )


def _rows(table: Table, files: Iterable[StagedFile]) -> pa.Table:
    """Read the columns that are checked, of those of `files` that are meant for `table`."""
    name = ".".join(table.name())
    definition = table_definition(name)
    columns = [
        column.name
        for column in definition.columns
        if column.type not in _NESTED and column.name not in _NEVER_READ
    ]

    def read(file: StagedFile) -> pa.Table:
        with table.io.new_input(file.uri).open() as stream:
            return pq.read_table(stream, columns=columns)  # type: ignore[arg-type]  # it is a NativeFile

    schema = definition.arrow_schema(columns)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        tables = list(pool.map(read, [file for file in files if file.table == name]))
    return pa.concat_tables([schema.empty_table(), *(found.cast(schema) for found in tables)])
