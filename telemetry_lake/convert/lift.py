"""Fields of a document that become typed columns: each is moved, not copied, and can be put back.

A field is lifted out of the document when its column holds exactly what it said; a value that a
dimension turned into OTHER stays. `lifted` tells, for each row, where `document` was emptied and which
column has what was there, so that a row explains itself however schemas change later::

    {"/clientId": "client_id", "/version": "document_version:integer", "/payload/histograms": "histograms"}
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import orjson

from telemetry_lake import columns
from telemetry_lake.convert.document_schemas import Extraction
from telemetry_lake.convert.histograms import KEYED, PARENT_PROCESS, Json, restored_histogram
from telemetry_lake.failures import ErrorType, PingRejected, Stage

INTEGER: Final = ":integer"
"""After a column's name: the document had its value as a JSON integer."""
LIFTED_REMEMBERED: Final = 1_024

Decide = Callable[[str | None], str]
"""Turns what a ping says into the value of a dimension."""

_IDENTITY: Final = frozenset({columns.DOCUMENT_ID, columns.DOCUMENT_TYPE, columns.DOCUMENT_VERSION})
"""Known before the document is lifted; a field of the document can only repeat them."""


@dataclass(frozen=True, slots=True)
class _Source:
    pointer: str
    parents: tuple[str, ...]
    field: str


class Lifter:
    """Fills the columns of one document type."""

    def __init__(self, extraction: Extraction, dimensions: Mapping[str, Decide]) -> None:
        self._constants = extraction.constants
        self._dimensions = dimensions
        self._sources = [
            (column, [_source(pointer) for pointer in pointers])
            for column, pointers in extraction.columns.items()
        ]

    def lift(
        self, document: Json, known: Mapping[str, str | None]
    ) -> tuple[dict[str, str | None], list[tuple[str, str]]]:
        """The values of the columns, and where in `document`, which loses them, they were.

        `known` is what the path says; the document itself and the constants of its type come before it.
        Raises PingRejected with `invalid_value` when a field is not what its column can hold.
        """
        values = {**known, **self._constants}
        lifted: list[tuple[str, str]] = []
        decided: set[str] = set()
        for column, sources in self._sources:
            for source in sources:
                holder: object = document
                for part in source.parents:
                    holder = holder.get(part) if isinstance(holder, dict) else None
                sent = holder.get(source.field) if isinstance(holder, dict) else None
                if sent is None:
                    continue
                assert isinstance(holder, dict)
                if column not in _IDENTITY:
                    if not isinstance(sent, str):
                        raise PingRejected(
                            ErrorType.INVALID_VALUE,
                            f"{source.pointer}: the value is not of type string",
                            stage=Stage.CONVERT,
                        )
                    if column in self._dimensions:
                        decided.add(column)
                        values[column] = self._dimensions[column](sent)
                    else:
                        values[column] = sent
                if sent == values[column]:
                    lifted.append((source.pointer, column))
                    del holder[source.field]
                elif type(sent) is int and str(sent) == values[column]:
                    lifted.append((source.pointer, column + INTEGER))
                    del holder[source.field]
                break
        for column, decide in self._dimensions.items():
            if column not in decided:
                values[column] = decide(values.get(column))
        return values, lifted


def _source(pointer: str) -> _Source:
    *parents, field = pointer[1:].split("/")
    return _Source(pointer, tuple(parents), field)


@lru_cache(maxsize=LIFTED_REMEMBERED)
def lifted_text(lifted: Sequence[tuple[str, str]]) -> str:
    """The value of the column `lifted`; most pings of a type share one."""
    return orjson.dumps(dict(lifted)).decode()


def restore_document(row: Mapping[str, object]) -> Json:
    """The document of a row of `live.pings` as it was sent, of its columns and of what is left of it.

    `row` is the row as Python values (`pyarrow.Table.to_pylist`), with the columns that `lifted` names.
    Numbers compare equal to those sent: 523 may come back for 523.0.
    """
    document: Json = json.loads(_text(row[columns.DOCUMENT]))
    sources: dict[str, str] = json.loads(_text(row[columns.LIFTED]))
    rows = row[columns.HISTOGRAMS]
    assert isinstance(rows, list)
    histograms: dict[tuple[bool, str], list[Mapping[str, object]]] = {}
    for histogram in rows:
        histograms.setdefault((histogram["key"] is not None, histogram["process"]), []).append(histogram)
    for pointer, source in sources.items():
        *parents, field = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
        holder: Json = document
        for part in parents:
            inner = holder[part]
            assert isinstance(inner, dict)
            holder = inner
        column, _, qualifier = source.partition(":")
        if column in (columns.HISTOGRAMS, KEYED):
            container = holder[field]
            assert isinstance(container, dict)
            for histogram in histograms[column == KEYED, qualifier or PARENT_PROCESS]:
                _put_back(container, histogram)
        else:
            value = row[column]
            holder[field] = int(_text(value)) if qualifier else value
    return document


def _put_back(container: Json, row: Mapping[str, object]) -> None:
    label = _text(row["name"])
    if row["key"] is not None:
        by_key = container.setdefault(label, {})
        assert isinstance(by_key, dict)
        container, label = by_key, _text(row["key"])
    container[label] = restored_histogram(row, container.get(label))


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value
