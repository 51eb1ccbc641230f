"""Fields of a document that become typed columns: each is moved, not copied, and can be put back.

A field is lifted out of the document when its column holds exactly what it said; a value that a
dimension turned into OTHER stays. `lifted` tells, for each row, where `document` was emptied and which
column has what was there, so that a row explains itself however schemas change later::

    {"/clientId": "client_id", "/version": "document_version:integer", "/payload/histograms": "histograms"}
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from telemetry_lake import columns
from telemetry_lake.convert.extraction import EXTRACTED_COLUMNS, Extraction
from telemetry_lake.documents.restore import INTEGER, LIFTED_REMEMBERED
from telemetry_lake.documents.text import without_halves
from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.histograms.stored import Json

Decide = Callable[[str], str | None]
"""Turns what a ping sent for a dimension, or as its client id, into the value of its column."""

_IDENTITY: Final = frozenset({columns.DOCUMENT_ID, columns.DOCUMENT_TYPE, columns.DOCUMENT_VERSION})
"""Known before the document is lifted; a field of the document can only repeat them."""


class _Field(NamedTuple):
    """A field that can fill a column."""

    pointer: str
    parents: str
    """The pointer without its last name and without its first slash."""
    name: str


class _Source(NamedTuple):
    """How a column is filled."""

    number: int
    """Of the column in `EXTRACTED_COLUMNS`."""
    column: str
    is_identity: bool
    is_client_id: bool
    decide: Decide | None
    fields: tuple[_Field, ...]


class Lifter:
    """Fills the columns of one document type."""

    def __init__(self, extraction: Extraction, decide: Mapping[str, Decide]) -> None:
        """`decide` says for each dimension, and for the client id, what its column will hold of a value."""
        self._constants = [
            (EXTRACTED_COLUMNS.index(column), value) for column, value in extraction.constants.items()
        ]
        self._sources = [
            _Source(
                EXTRACTED_COLUMNS.index(column),
                column,
                column in _IDENTITY,
                column == columns.CLIENT_ID,
                decide.get(column),
                tuple(_Field(pointer, *pointer[1:].rpartition("/")[::2]) for pointer in pointers),
            )
            for column, pointers in extraction.columns.items()
        ]

    def lift(self, document: Json, sent: list[str | None]) -> list[tuple[str, str]]:
        """Move what fills a column from `document` into `sent`.

        `sent` has a value for each of `EXTRACTED_COLUMNS`, as the path of the ping says them. The constants
        of the type and the document come before it. Dimensions are filled in as they were sent. They and the
        client id stay in the document if their column will not hold what was sent.
        Returns the places in `document` that were emptied, each with its entry for the column `lifted`.
        Raises PingRejected with `invalid_value` when a field is not what its column can hold.
        """
        for number, constant in self._constants:
            sent[number] = constant
        lifted: list[tuple[str, str]] = []
        holders: dict[str, Json] = {"": document}
        for number, column, is_identity, is_client_id, decide, fields in self._sources:
            for pointer, parents, name in fields:
                holder = holders.get(parents)
                if holder is None:
                    holder = holders[parents] = _object_at(document, parents)
                value = holder.get(name)
                if value is None:
                    continue
                if is_identity:
                    if type(value) is int and str(value) == sent[number]:
                        lifted.append((pointer, column + INTEGER))
                        del holder[name]
                        break
                    stored = sent[number]
                elif isinstance(value, str):
                    text = value if value.isascii() else without_halves(value)
                    stored = text if decide is None else decide(text)
                    sent[number] = stored if is_client_id else text
                else:
                    raise _not_a_string(pointer)
                if value == stored:
                    lifted.append((pointer, column))
                    del holder[name]
                break
        return lifted


def _not_a_string(pointer: str) -> PingRejected:
    return PingRejected(
        ErrorType.INVALID_VALUE, f"{pointer}: the value is not of type string", stage=Stage.CONVERT
    )


def _object_at(document: Json, parents: str) -> Json:
    """Return the object at a path of names; an empty one when there is no object."""
    holder: object = document
    for part in parents.split("/"):
        holder = holder.get(part) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


@lru_cache(maxsize=LIFTED_REMEMBERED)
def lifted_text(lifted: Sequence[tuple[str, str]]) -> str:
    """Return the value of the column `lifted`; most pings of a type share one."""
    return orjson.dumps(dict(lifted)).decode()
