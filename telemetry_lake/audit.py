"""Audit: look at a staged batch before anybody else can, and decide whether it may become visible.

Only columns that are cheap and harmless are read; documents, bodies, headers and histograms are not.
When every check of severity `fail` holds, the batch's publication is written, which is the decision to
commit exactly these files; until then nothing of the batch is in a table. When one does not hold,
`GateFailed` is raised with what was found and what to do, and the raw objects go to the dead letters, from
where they can be replayed when the cause is mended.

A document id that occurs twice is a warning, never a failure: clients send again what they believe lost,
and are right to. What only we can double, a ping of a raw object, is a failure.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from telemetry_lake.batch import ClaimedBatch, Member, Publication, StagedFile, StagedPart
from telemetry_lake.checks import CheckResult, Severity, Subject, checks_of_batch, checks_of_table, run_checks
from telemetry_lake.columns import (
    BODY,
    DOCUMENT,
    DOCUMENT_TYPE,
    ERROR_TYPE,
    NAMESPACE,
    RAW_OBJECT,
    RAW_OBJECT_POSITION,
    SUBMISSION_TIMESTAMP,
)
from telemetry_lake.failures import ErrorType, GateFailed, RetriableError
from telemetry_lake.ledger import AuditOutcome, Ledger
from telemetry_lake.tables import LIVE_PINGS, LIVE_REJECTED_PINGS, table_definition

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

RATIO_MIN_PINGS: Final = 100
"""A share of fewer pings says nothing."""
FILES_AT_ONCE: Final = 8

_NEVER_READ: Final = frozenset({DOCUMENT, BODY})
_NESTED: Final = frozenset({"struct", "list", "map"})
_TIMESTAMP: Final = pl.Datetime("us", "UTC")
_REFUSED: Final = (
    ErrorType.SCHEMA_VIOLATION,
    ErrorType.UNKNOWN_HISTOGRAM_REVISION,
    ErrorType.INVALID_HISTOGRAM,
    ErrorType.INVALID_VALUE,
)
"""The reasons that may be our own fault: a schema, a definition or the conversion."""


class Audit(BaseModel):
    """What the gates found in one batch; kept beside it as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_id: str
    passed: bool
    waived: str | None
    """Why the batch may be published although it did not pass, when somebody said so."""
    rows: dict[str, int]
    quarantined: dict[str, str]
    results: tuple[CheckResult, ...]

    def failures(self, severity: Severity) -> list[CheckResult]:
        """The checks of this severity that do not hold."""
        return [result for result in self.results if not result.passed and result.severity is severity]

    @property
    def may_be_published(self) -> bool:
        """Whether the batch passed, or somebody waived its gates."""
        return self.passed or self.waived is not None

    def outcome(self) -> AuditOutcome:
        """What came of it, for the list of audits."""
        return AuditOutcome(
            may_be_published=self.may_be_published,
            waived=self.waived is not None,
            failed=len(self.failures(Severity.FAIL)),
            warned=len(self.failures(Severity.WARN)),
            rows=self.rows,
        )

    def lines(self) -> list[str]:
        """What was checked and found, one check a line, failures first; for logs and the browser."""
        results = sorted(self.results, key=lambda result: result.passed)
        counts = ", ".join(f"{rows} rows of {table}" for table, rows in self.rows.items())
        return [
            f"batch {self.batch_id}: {counts}, {len(self.quarantined)} raw objects set aside"
            + (f", gates waived: {self.waived}" if self.waived else ""),
            *(f"{'ok' if result.passed else result.severity.upper()}: {result}" for result in results),
        ]

    def message(self) -> str:
        """What is wrong and what to do, for the person who meets the failed run."""
        lines = [f"batch {self.batch_id} does not pass its gates; nothing of it is visible."]
        for result in self.failures(Severity.FAIL):
            lines += [f"- {result}", f"  Why it matters: {result.why}", f"  What to do: {result.remedy}"]
        return "\n".join(lines)


def validate(catalog: Catalog, ledger: Ledger, batch: ClaimedBatch, *, at: datetime) -> Audit | None:
    """Audit a staged batch at the time `at` and, when it may be published, decide its publication.

    None when it was decided before. Raises GateFailed when it may not be published, and RetriableError when a
    part of it is not staged.
    """
    if ledger.publication(batch.batch_id) is not None:
        return None
    staged = [ledger.staged(batch.batch_id, part.name) for part in batch.parts]
    parts = [part for part in staged if part is not None]
    if len(parts) < len(staged):
        raise RetriableError(
            f"batch {batch.batch_id}: {len(staged) - len(parts)} of {len(staged)} parts are not staged"
        )
    members = ledger.members(ledger.manifest(batch.batch_id))
    audit = _audit(catalog, ledger, batch.batch_id, parts, members)
    ledger.put_audit(batch.batch_id, audit, audit.outcome(), at)
    for line in audit.lines():
        _log.info("%s", line)
    if not audit.may_be_published:
        raise GateFailed(audit.message())
    ledger.decide(_publication(batch.batch_id, parts, members, audit))
    return audit


def _audit(
    catalog: Catalog,
    ledger: Ledger,
    batch: str,
    parts: Iterable[StagedPart],
    members: Mapping[str, Member],
) -> Audit:
    files = [file for part in parts for file in part.files]
    pings = _rows(catalog.load_table(LIVE_PINGS), files)
    rejected = _rows(catalog.load_table(LIVE_REJECTED_PINGS), files)
    quarantined = {key: reason for part in parts for key, reason in part.quarantined.items()}
    promised = {key: member for key, member in members.items() if key not in quarantined}
    position = (RAW_OBJECT, RAW_OBJECT_POSITION)
    results = run_checks(
        [
            Subject(LIVE_PINGS, checks_of_table(LIVE_PINGS), pings.to_pandas(), position),
            Subject(
                LIVE_REJECTED_PINGS, checks_of_table(LIVE_REJECTED_PINGS), rejected.to_pandas(), position
            ),
            Subject(
                "raw objects",
                checks_of_batch("raw_objects"),
                raw_objects_frame(promised, pings, rejected),
                (RAW_OBJECT,),
            ),
            Subject(
                "document types",
                checks_of_batch("document_types"),
                document_types_frame(pings, rejected),
                (NAMESPACE, DOCUMENT_TYPE),
            ),
        ]
    )
    waiver = ledger.waiver(batch)
    return Audit(
        batch_id=batch,
        passed=all(result.passed or result.severity is not Severity.FAIL for result in results),
        waived=waiver.reason if waiver else None,
        rows={LIVE_PINGS: pings.num_rows, LIVE_REJECTED_PINGS: rejected.num_rows},
        quarantined=quarantined,
        results=tuple(results),
    )


def raw_objects_frame(promised: Mapping[str, Member], pings: pa.Table, rejected: pa.Table) -> "pd.DataFrame":
    """One row for each raw object; the columns are described in `sql/live/batch_checks.yaml`.

    A raw object that rows name and nobody promised has a row too, with nothing promised.
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
        _both(pings, rejected, [RAW_OBJECT, SUBMISSION_TIMESTAMP])
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


def document_types_frame(pings: pa.Table, rejected: pa.Table) -> "pd.DataFrame":
    """One row for each document type; the columns are described in `sql/live/batch_checks.yaml`."""
    kind = [NAMESPACE, DOCUMENT_TYPE]
    return (
        _both(pings, rejected, [*kind, ERROR_TYPE])
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
        .sort(kind)
        .to_pandas()
    )


def _both(pings: pa.Table, rejected: pa.Table, names: Sequence[str]) -> pl.DataFrame:
    """The named columns of both tables, null where one lacks it, and whether a row is `rejected`."""
    return pl.concat(
        [
            pl.DataFrame(rows.select([name for name in names if name in rows.column_names])).with_columns(
                rejected=pl.lit(is_rejected)
            )
            for rows, is_rejected in ((pings, False), (rejected, True))
        ],
        how="diagonal",
    )


def _rows(table: Table, files: Iterable[StagedFile]) -> pa.Table:
    """The columns that may be looked at, of those of `files` that are meant for `table`."""
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


def _publication(
    batch: str, parts: Iterable[StagedPart], members: Mapping[str, Member], audit: Audit
) -> Publication:
    files: dict[str, list[str]] = {}
    for part in parts:
        for file in part.files:
            files.setdefault(file.table, []).append(file.uri)
    return Publication(
        batch_id=batch,
        raw_objects=tuple(sorted(members.keys() - audit.quarantined.keys())),
        files={table: tuple(uris) for table, uris in files.items()},
        rows=audit.rows,
        quarantined=audit.quarantined,
    )
