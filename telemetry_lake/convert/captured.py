"""The captured requests of a record batch, without the addresses that they came from.

A client's address is in the headers of proxies and in `remote_address`. Here its country is looked up;
neither the address nor such a header is in what leaves this module.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias, cast

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from telemetry_lake import columns
from telemetry_lake.convert.arrays import Array, of_latin_1, of_lists, of_numbers, of_series, of_texts
from telemetry_lake.convert.derivation.country import (
    ADDRESS_HEADERS,
    FORWARDED_FOR,
    UNKNOWN_COUNTRY,
    CountryLookup,
)
from telemetry_lake.convert.ping import Ping
from telemetry_lake.tables.definitions import LIVE_PINGS, table_definition

_SCHEMA: Final = table_definition(LIVE_PINGS).arrow_schema()
_REQUEST: Final = _SCHEMA.field(columns.REQUEST).type
_HEADERS: Final = _SCHEMA.field(columns.HEADERS).type
_HeaderArray: TypeAlias = "pa.MapArray[Any, Any]"
CONTENT_ENCODING: Final = "content-encoding"
_CAPTURED: Final = (columns.SUBMISSION_TIMESTAMP, columns.REQUEST, columns.HEADERS, columns.COUNTRY)


class CapturedRequests:
    """The requests of one record batch of a raw object."""

    def __init__(self, batch: pa.RecordBatch, first_position: int, countries: CountryLookup) -> None:
        """`first_position` is the place of the first ping of `batch` in its raw object."""
        self._first_position = first_position
        self._bodies = batch.column("body")
        self._headers = batch.column("headers")
        texts = {name: of_latin_1(batch.column(name)) for name in ("path", "query", "host")}
        self._paths = texts["path"].to_pylist()
        request = pa.StructArray.from_arrays(
            [batch.column("method"), texts["path"], texts["query"], batch.column("protocol"), texts["host"]],
            fields=list(_REQUEST),
        )
        headers = _headers(cast("_HeaderArray", batch.column("headers")))
        self._captured = pa.RecordBatch.from_arrays(
            [
                batch.column("submission_timestamp"),
                request,
                _kept_headers(headers, batch.num_rows),
                of_texts(_countries(headers, batch, countries)),
            ],
            names=list(_CAPTURED),
        )

    def pings(self) -> Iterator[Ping]:
        """Yield a ping for each request, of which nothing but its path is known."""
        for row, path in enumerate(self._paths):
            yield Ping(row, str(path))

    def body(self, row: int) -> bytes:
        """Return the body of the request in the row `row` of the batch."""
        body: bytes = self._bodies[row].as_py()
        return body

    def content_encoding(self, row: int) -> str:
        """Return the header of this name of the request in the row `row` of the batch; empty without one."""
        headers: list[tuple[str, bytes]] = self._headers[row].as_py()
        return ", ".join(str(value, "latin-1") for name, value in headers if name == CONTENT_ENCODING)

    def columns(self, rows: Sequence[int]) -> dict[str, Array]:
        """Return the columns about the requests in `rows` of the batch, in that order."""
        numbers = np.array(rows, np.int64)
        taken = self._captured.take(of_numbers(numbers, pa.int64()))
        arrays = dict(zip(_CAPTURED, taken.columns, strict=True))
        arrays[columns.RAW_OBJECT_POSITION] = of_numbers(numbers + self._first_position, pa.int64())
        return arrays


@cache
def _address_headers() -> pl.Series:
    """Return the names of the headers that hold an address, in the form that `is_in` takes.

    It is made when it is first needed: a module that is loaded must not start threads of Polars, which a
    process that Airflow forks afterwards would wait for.
    """
    return pl.Series(sorted(ADDRESS_HEADERS), dtype=pl.String).implode()


def _headers(captured: "_HeaderArray") -> pl.DataFrame:
    """Return the headers of all requests in their order: `row`, `name` and `value`."""
    ends = captured.offsets.to_numpy()
    first, count = int(ends[0]), int(ends[-1] - ends[0])
    return pl.DataFrame(
        {
            "row": np.repeat(np.arange(len(captured)), np.diff(ends)),
            "name": pl.from_arrow(captured.keys.slice(first, count)),
            "value": pl.from_arrow(of_latin_1(captured.items.slice(first, count))),
        }
    )


def _kept_headers(headers: pl.DataFrame, count: int) -> Array:
    """Return the headers of `count` requests that tell no address, as maps."""
    kept = headers.filter(~pl.col("name").is_in(_address_headers()))
    if len(set(kept.select("row", "name").iter_rows())) < len(kept):
        # A header that came twice is one with both values (RFC 9110, section 5.3).
        kept = kept.group_by("row", "name", maintain_order=True).agg(pl.col("value").str.join(", "))
    entries = pa.StructArray.from_arrays(
        [of_series(kept["name"], pa.string()), of_series(kept["value"], pa.string())],
        fields=[_HEADERS.key_field, _HEADERS.item_field],
    )
    rows: NDArray[np.int64] = kept["row"].to_numpy()
    return of_lists(np.cumsum(np.bincount(rows, minlength=count), dtype=np.int32), entries, _HEADERS)


def _countries(headers: pl.DataFrame, batch: pa.RecordBatch, countries: CountryLookup) -> list[str]:
    """Return the country of each request's sender."""
    if not countries.knows_any:
        return [UNKNOWN_COUNTRY] * batch.num_rows
    forwarded_for: list[list[str]] = [[] for _ in range(batch.num_rows)]
    for row, value in headers.filter(pl.col("name") == FORWARDED_FOR).select("row", "value").iter_rows():
        forwarded_for[row].append(value)
    addresses = batch.column("remote_address").to_pylist()
    return [
        countries.country_of(forwarded, str(address))
        for forwarded, address in zip(forwarded_for, addresses, strict=True)
    ]
