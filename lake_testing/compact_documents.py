"""The `value` that `map` must get, made the plain way: restore the whole document, then make it compact."""

import json
from typing import Any

from telemetry_lake.documents.restore import restore_document
from telemetry_lake.documents.text import document_text
from telemetry_lake.histograms.stored import SUM_FIELDS, dense_counts


def compact_document(row: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a row; plain histograms of the parent process are all counts and five sums."""
    document = restore_document(row)
    rows = {
        entry["name"]: entry
        for entry in row["histograms"]
        if entry["key"] is None and entry["process"] == "parent"
    }
    for pointer, source in json.loads(row["lifted"]).items():
        if source != "histograms":
            continue
        container: Any = document
        for part in pointer[1:].split("/"):
            container = container[part]
        for name, entry in rows.items():
            sent = container[name]
            sums = sent[-5:] if isinstance(sent, list) else [sent.get(field, -1) for field in SUM_FIELDS]
            container[name] = [*dense_counts(entry), *(-1 if value is None else value for value in sums)]
    return document


def value_of(row: dict[str, Any]) -> str:
    """Return the text of `compact_document`."""
    return document_text(compact_document(row))
