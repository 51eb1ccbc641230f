"""A document put together again from the columns of its row and what was left of it.

`lifted` tells, for each row, where `document` was emptied and which column has what was there, so that a row
explains itself however schemas change later (`convert.lift` writes it)::

    {"/clientId": "client_id", "/version": "document_version:integer", "/payload/histograms": "histograms"}

UTF-8 has no halves of surrogate pairs, and engines that query the column refuse escapes of them: one ping
would stop a query over a day. In the column each is spelled as U+FFFD and its four hexadecimal digits, and so
is then each U+FFFD that was sent. The first entry of `lifted` says that this was done:
`{"": "halves_spelled", …}`.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from telemetry_lake import columns
from telemetry_lake.documents.exact_json import with_texts
from telemetry_lake.documents.text import parse_json
from telemetry_lake.histograms.stored import (
    CONTAINERS,
    PARENT_PROCESS,
    Json,
    container_of,
    path_in_container,
    restored_histogram,
)

LIFTED_REMEMBERED: Final = 1_024
"""Number of different values of `lifted` that are remembered."""

INTEGER: Final = ":integer"
"""After a column's name: the document had its value as a JSON integer."""
HALVES_SPELLED: Final = ("", "halves_spelled")
"""The entry of `lifted` for a document whose texts are spelled."""
_SPELLED_START: Final = '{"":"halves_spelled"'
_SPELLED: Final = re.compile("\ufffd([0-9a-f]{4})")
_TO_BE_SPELLED: Final = re.compile("[\ufffd\ud800-\udfff]")
HistogramSource = tuple[str, str]
"""Which histograms of a row: what `lifted` calls the object that they were lifted from, and the process."""


def restore_document(row: Mapping[str, Any]) -> Json:
    """Return the document of a row of `live.pings` as it was sent.

    `row` is the row as Python values (`pyarrow.Table.to_pylist`), with the columns that `lifted` names.
    Numbers compare equal to those sent: 523 may come back for 523.0.
    """
    document = stored_document(row[columns.DOCUMENT].encode(), row[columns.LIFTED])
    histograms: dict[HistogramSource, list[Mapping[str, Any]]] = {}
    for histogram in row[columns.HISTOGRAMS]:
        container = container_of(histogram["histogram_type"], histogram["key"])
        histograms.setdefault((container, histogram["process"]), []).append(histogram)

    def fill(container: Json, source: HistogramSource) -> None:
        for histogram in histograms[source]:
            _put_back(container, source[0], histogram)

    put_back(document, row, fill)
    return document


def stored_document(text: bytes, lifted: str) -> Json:
    """Return what is left of a document, of the columns `document` and `lifted`; raises ValueError."""
    document: Json = parse_json(text)  # type: ignore[assignment]
    if lifted.startswith(_SPELLED_START):
        document = with_texts(
            document, lambda spelled: _SPELLED.sub(lambda match: chr(int(match[1], 16)), spelled)
        )
    return document


def with_halves_spelled(document: Json) -> Json:
    """Return a copy of `document` for the column of that name."""
    spelled: Json = with_texts(
        document, lambda text: _TO_BE_SPELLED.sub(lambda match: f"\ufffd{ord(match[0]):04x}", text)
    )
    return spelled


def put_back(document: Json, row: Mapping[str, Any], fill: Callable[[Json, HistogramSource], None]) -> None:
    """Put everything back into what is left of a document: fields from their columns, histograms by `fill`.

    `fill` is given each object that histograms were lifted from, and which histograms were in it.
    """
    for parents, field, column, qualifier in _lifted_places(row[columns.LIFTED]):
        holder: Any = document
        for part in parents:
            holder = holder[part]
        if column in CONTAINERS:
            if not isinstance(holder[field], dict):
                raise TypeError(f"{field} is not an object that histograms were lifted from")
            fill(holder[field], (column, qualifier or PARENT_PROCESS))
        else:
            holder[field] = int(row[column]) if qualifier else row[column]


@lru_cache(maxsize=LIFTED_REMEMBERED)
def _lifted_places(lifted: str) -> list[tuple[list[str], str, str, str]]:
    """Return what the column `lifted` says: names of parents, field, column, what follows its name."""
    places = []
    for pointer, source in json.loads(lifted).items():
        if (pointer, source) == HALVES_SPELLED:
            continue
        *parents, field = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        column, _, qualifier = source.partition(":")
        places.append((parents, field, column, qualifier))
    return places


def _put_back(container: dict[str, Any], name: str, row: Mapping[str, Any]) -> None:
    *parents, label = path_in_container(name, row["name"], row["key"])
    for parent in parents:
        container = container.setdefault(parent, {})
    container[label] = restored_histogram(row, container.get(label))
