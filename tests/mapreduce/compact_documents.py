"""The `value` that `map` has to get, made the plain way: restore the whole document, then make it compact."""

import json
from typing import Any

from telemetry_lake.convert import restore_document
from telemetry_lake.convert.document_text import document_text
from telemetry_lake.convert.histograms import SUM_FIELDS, dense_counts


def compact_document(row: dict[str, Any]) -> dict[str, Any]:
    """The document of a row; plain histograms of the parent process are all counts and five sums."""
    document = restore_document(row)
    rows = {
        one["name"]: one for one in row["histograms"] if one["key"] is None and one["process"] == "parent"
    }
    for pointer, source in json.loads(row["lifted"]).items():
        if source != "histograms":
            continue
        container: Any = document
        for part in pointer[1:].split("/"):
            container = container[part]
        for name, one in rows.items():
            sent = container[name]
            sums = sent[-5:] if isinstance(sent, list) else [sent.get(field, -1) for field in SUM_FIELDS]
            container[name] = [*dense_counts(one), *(-1 if value is None else value for value in sums)]
    return document


def value_of(row: dict[str, Any]) -> str:
    """The text of `compact_document`."""
    return document_text(compact_document(row))
