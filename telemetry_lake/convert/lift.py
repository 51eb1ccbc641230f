"""Fields of a document that become typed columns: each is moved, not copied, and can be put back.

A field is lifted out of the document when its column holds exactly what it said; a value that a
dimension turned into OTHER stays. `lifted` tells, for each row, where `document` was emptied and which
column has what was there, so that a row explains itself however schemas change later::

    {"/clientId": "client_id", "/version": "document_version:integer", "/payload/histograms": "histograms"}
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from telemetry_lake import columns
from telemetry_lake.convert.document_schemas import Extraction
from telemetry_lake.convert.histograms import KEYED, PARENT_PROCESS, PLAIN, Json, restored_histogram
from telemetry_lake.failures import ErrorType, PingRejected, Stage

INTEGER: Final = ":integer"
"""After a column's name: the document had its value as a JSON integer."""
LIFTED_REMEMBERED: Final = 1_024

HistogramSource = tuple[bool, str]
"""Which histograms of a row: whether they have keys, and the process."""
Decide = Callable[[str | None], str]
"""Turns what a ping says into the value of a dimension."""

_IDENTITY: Final = frozenset({columns.DOCUMENT_ID, columns.DOCUMENT_TYPE, columns.DOCUMENT_VERSION})
"""Known before the document is lifted; a field of the document can only repeat them."""


class Lifter:
    """Fills the columns of one document type."""

    def __init__(self, extraction: Extraction, dimensions: Mapping[str, Decide]) -> None:
        self._constants = extraction.constants
        self._sources = [
            (
                column,
                dimensions.get(column),
                [(pointer, *pointer[1:].rpartition("/")[::2]) for pointer in pointers],
            )
            for column, pointers in extraction.columns.items()
        ]

    def lift(
        self, document: Json, known: Mapping[str, str | None]
    ) -> tuple[dict[str, str | None], list[tuple[str, str]]]:
        """What the ping says for each column, and where in `document`, which loses it, that was.

        `known` is what the path says; the document itself and the constants of its type come before it.
        Dimensions are as the ping says them, and stay in the document if that will not be their value.
        Raises PingRejected with `invalid_value` when a field is not what its column can hold.
        """
        said = {**known, **self._constants}
        lifted: list[tuple[str, str]] = []
        holders: dict[str, Json] = {"": document}
        for column, decide, sources in self._sources:
            for pointer, parents, field in sources:
                holder = holders.get(parents)
                if holder is None:
                    holder = holders[parents] = _object_at(document, parents)
                value = holder.get(field)
                if value is None:
                    continue
                if column not in _IDENTITY:
                    if not isinstance(value, str):
                        raise PingRejected(
                            ErrorType.INVALID_VALUE,
                            f"{pointer}: the value is not of type string",
                            stage=Stage.CONVERT,
                        )
                    said[column] = value
                stored = said[column] if decide is None else decide(said[column])
                if value == stored:
                    lifted.append((pointer, column))
                    del holder[field]
                elif type(value) is int and str(value) == stored:
                    lifted.append((pointer, column + INTEGER))
                    del holder[field]
                break
        return said, lifted


def _object_at(document: Json, parents: str) -> Json:
    """The object at a path of names; an empty one when there is none."""
    holder: object = document
    for part in parents.split("/"):
        holder = holder.get(part) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


@lru_cache(maxsize=LIFTED_REMEMBERED)
def lifted_text(lifted: Sequence[tuple[str, str]]) -> str:
    """The value of the column `lifted`; most pings of a type share one."""
    return orjson.dumps(dict(lifted)).decode()


def restore_document(row: Mapping[str, Any]) -> Json:
    """The document of a row of `live.pings` as it was sent, of its columns and of what is left of it.

    `row` is the row as Python values (`pyarrow.Table.to_pylist`), with the columns that `lifted` names.
    Numbers compare equal to those sent: 523 may come back for 523.0.
    """
    document: Json = json.loads(row[columns.DOCUMENT])
    histograms: dict[HistogramSource, list[Mapping[str, Any]]] = {}
    for histogram in row[columns.HISTOGRAMS]:
        histograms.setdefault((histogram["key"] is not None, histogram["process"]), []).append(histogram)

    def fill(container: Json, source: HistogramSource) -> None:
        for histogram in histograms[source]:
            _put_back(container, histogram)

    put_back(document, row, fill)
    return document


def put_back(document: Json, row: Mapping[str, Any], fill: Callable[[Json, HistogramSource], None]) -> None:
    """Put everything back into what is left of a document: fields from their columns, histograms by `fill`.

    `fill` is given each object that histograms were lifted from, and says what was in it.
    """
    for parents, field, column, qualifier in _lifted_places(row[columns.LIFTED]):
        holder: Any = document
        for part in parents:
            holder = holder[part]
        if column in (PLAIN, KEYED):
            if not isinstance(holder[field], dict):
                raise TypeError(f"{field} is no object that histograms were lifted from")
            fill(holder[field], (column == KEYED, qualifier or PARENT_PROCESS))
        else:
            holder[field] = int(row[column]) if qualifier else row[column]


@lru_cache(maxsize=LIFTED_REMEMBERED)
def _lifted_places(lifted: str) -> list[tuple[list[str], str, str, str]]:
    """What the column `lifted` says: names of parents, field, column, and what stands behind its name."""
    places = []
    for pointer, source in json.loads(lifted).items():
        *parents, field = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        column, _, qualifier = source.partition(":")
        places.append((parents, field, column, qualifier))
    return places


def _put_back(container: dict[str, Any], row: Mapping[str, Any]) -> None:
    label = row["name"]
    if row["key"] is not None:
        container = container.setdefault(label, {})
        label = row["key"]
    container[label] = restored_histogram(row, container.get(label))
