"""The report of a verification as text for people; for machines there is the JSON in the lake bucket."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from telemetry_lake.backfill.journal import AcceptedLoss
from telemetry_lake.backfill.verify import Verification

LINES_MAX: Final = 50
"""How many units, problems and differences are printed; the JSON has all of them."""

_UNIT_COLUMNS: Final = ("unit", "records", "converted", "rejected", "left out", "documents", "bytes", "")


def report_text(report: Verification, accepted: Mapping[str, AcceptedLoss]) -> str:
    """Return the whole report of a date."""
    return "\n".join(_lines(report, accepted))


def _lines(report: Verification, accepted: Mapping[str, AcceptedLoss]) -> Iterator[str]:
    yield f"{report.day}: {report.files:,} files, {len(report.units):,} units"
    rows = [
        (
            line.unit,
            f"{line.records:,}",
            f"{line.converted:,}",
            f"{line.rejected:,}",
            f"{sum(line.left_out.values()):,}",
            f"{line.document_ids:,}",
            f"{line.written_bytes:,}",
            "UNEXPLAINED" if line.unexplained else "",
        )
        for line in report.units[:LINES_MAX]
    ]
    names = ("records", "converted", "rejected")
    left_out = f"{sum(report.left_out.values()):,}"
    totals = [f"{report.total(name):,}" for name in names]
    total = ("total", *totals, left_out, f"{report.document_ids:,}", f"{report.total('written_bytes'):,}", "")
    yield from _table([_UNIT_COLUMNS, *rows, total])
    yield from _more("units", report.units)
    yield f"dates in what was written: {report.first_date} to {report.last_date}"
    for what, pair in (("converted", report.converted_digest), ("rejected", report.rejected_digest)):
        verdict = "equal" if pair.source == pair.written else f"DIFFERENT, {pair.written} was written"
        yield f"digest of {what} records: {pair.source}, {verdict}"
    for reason, count in report.rejected.items():
        yield f"rejected, kept in live.rejected_pings: {count:,} {reason}"
    for reason, count in report.left_out.items():
        if reason not in report.losses:
            yield f"left out without loss: {count:,} {reason}"
    for loss, count in report.losses.items():
        decision = accepted.get(loss)
        verdict = f"accepted: {decision.reason}" if decision else "NOT ACCEPTED"
        yield f"loss: {count:,} {loss}, {verdict}"
    for problem in report.problems[:LINES_MAX]:
        where = problem.path if problem.offset is None else f"{problem.path} at byte {problem.offset}"
        yield f"  {problem.kind.value}: {where or 'the archive'}: {problem.message}"
    yield from _more("problems", report.problems)
    for sentence in report.unexplained[:LINES_MAX]:
        yield f"  UNEXPLAINED: {sentence}"
    yield from _more("differences", report.unexplained)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        numbers = zip(row[1:], widths[1:], strict=True)
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in numbers)]
        yield "  ".join(cells).rstrip()


def _more(what: str, things: Sequence[object]) -> Iterator[str]:
    if len(things) > LINES_MAX:
        yield f"  and {len(things) - LINES_MAX:,} {what} more, in the JSON"
