"""Results of runs: shown as a table with a plot, and sent so that nothing in them can act in a browser."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import Response
from fastapi.responses import StreamingResponse

from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import KIB

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import StoredObject

PREVIEW_MAX_BYTES: Final = 256 * KIB
ROWS_SHOWN_MAX: Final = 200
COLUMNS_SHOWN_MAX: Final = 30
CELL_MAX_CHARACTERS: Final = 300
POINTS_MAX_COUNT: Final = 60
HARMLESS: Final[Mapping[str, str]] = {
    # Written by scripts of analysts: it may be a page with a script in it.
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
_MEDIA_TYPES: Final = {
    OutputFormat.TEXT: "text/plain; charset=utf-8",
    OutputFormat.CSV: "text/csv; charset=utf-8",
    OutputFormat.PARQUET: "application/vnd.apache.parquet",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One point of a plot, with its place in a drawing that is 100 high."""

    label: str
    value: float
    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of a result with two columns, of which the second one is a number."""

    bars: Sequence[Bar]
    bar_width: float
    zero: float
    least: float
    greatest: float
    left_out: int


@dataclass(frozen=True, slots=True)
class Preview:
    """How a result begins."""

    rows: Sequence[Sequence[str]]
    columns: int
    is_whole: bool
    text: str
    plot: Plot | None


def download(
    store: ObjectStore, bucket: str, item: "StoredObject", output_format: OutputFormat, file_name: str
) -> Response:
    """Return the answer that sends a whole result as a file."""

    def chunks() -> Iterator[bytes]:
        with store.opened(bucket, item.key) as file:
            while chunk := file.read(256 * KIB):
                yield chunk

    headers = {**HARMLESS, "Content-Disposition": f'attachment; filename="{file_name}"'}
    return StreamingResponse(chunks(), media_type=_MEDIA_TYPES[output_format], headers=headers)


def preview(content: bytes, output_format: OutputFormat, *, is_whole: bool) -> Preview:
    """Return how a result in text or CSV begins; `content` is its beginning."""
    text = content.decode(errors="replace")
    if not is_whole:
        # Up to the last whole line.
        text = text.rpartition("\n")[0]
    lines = text.splitlines()
    is_csv = output_format is OutputFormat.CSV
    delimiter = "," if is_csv else "\t"
    # Lines of text hold tabs where scripts wrote keys and values, and quotes mean nothing there.
    try:
        rows = [
            [cell[:CELL_MAX_CHARACTERS] for cell in row[:COLUMNS_SHOWN_MAX]]
            for row in csv.reader(
                lines[:ROWS_SHOWN_MAX],
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if is_csv else csv.QUOTE_NONE,
            )
        ]
    except csv.Error:
        rows = []
    columns = max(map(len, rows), default=0)
    shown = rows if columns > 1 or is_csv else []
    is_all_shown = is_whole and len(lines) <= ROWS_SHOWN_MAX
    return Preview(
        [[*row, *[""] * (columns - len(row))] for row in shown],
        columns,
        is_all_shown,
        "\n".join(line[:CELL_MAX_CHARACTERS] for line in lines[:ROWS_SHOWN_MAX]),
        plot_of(shown),
    )


def plot_of(rows: Sequence[Sequence[str]]) -> Plot | None:
    """Return a plot of rows that all have a label and a number; None for others."""
    if len(rows) < 2 or any(len(row) != 2 for row in rows):
        return None
    values = [_number(row[1]) for row in rows]
    # The first row may be a header.
    if values[0] is None:
        rows, values = rows[1:], values[1:]
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2 or len(numbers) != len(values):
        return None
    shown = numbers[:POINTS_MAX_COUNT]
    least, greatest = min(0.0, *shown), max(0.0, *shown)
    span = (greatest - least) or 1.0
    width = 100 / len(shown)
    zero = 100 * greatest / span
    bars = [
        Bar(
            rows[place][0],
            value,
            place * width,
            100 * (greatest - max(value, 0.0)) / span,
            100 * abs(value) / span,
        )
        for place, value in enumerate(shown)
    ]
    return Plot(bars, width * 0.8, zero, least, greatest, len(numbers) - len(shown))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
