"""A document of the historic archive in the form of a ping, with substitutes for what was lost.

The archive kept the document id and the document; path, headers, address and time of the request are lost.
So that a document is converted by the same code as a ping, it gets

- a path, made of members of the document (`submission_path`);
- a submission date: that of its directory, else what the document says (`date_of_document`);
- a submission timestamp: midnight (UTC) of the submission date, because the time is not known;
- no headers, no method and no address, so its country is `??`.

The kind of a document shows in its members: `application` and `type` make it a unified ping (version 4),
`info` one of the years before (`ver` 1 as clients sent it, `ver` 2 with the compact histograms that the
previous backend made of them, `ver` 5 a unified one that it brought into that form), `ver` 3 one of Firefox
OS. The previous backend raised `ver` when it converted histograms; a document of `ver` 1 that has compact
ones all the same fits no schema, and becomes a rejected row with its bytes.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import pyarrow as pa

from telemetry_lake.convert.arrays import of_bytes, of_integers, of_lists, of_texts
from telemetry_lake.convert.derivation.dimensions import UNKNOWN
from telemetry_lake.documents.text import without_halves
from telemetry_lake.raw.raw_object import RAW_SCHEMA
from telemetry_lake.raw.submission_path import SUBMIT_PREFIX, TELEMETRY_NAMESPACE

UNKNOWN_TYPE: Final = "unknown"
"""The document type in the path of a document that does not name one."""
FIREFOX_OS_TYPE: Final = "ftu"
FIREFOX_OS: Final = "FirefoxOS"
MILLISECONDS: Final = 1_000

_UNIFIED: Final = ("name", "version", "channel", "buildId")
_CLASSIC: Final = ("appName", "appVersion", "appUpdateChannel", "appBuildID")
_FIREFOX_OS: Final = (
    ("deviceinfo.platform_version",),
    ("deviceinfo.update_channel", "app.update.channel"),
    ("deviceinfo.platform_build_id",),
)
_PATH_START: Final = f"{SUBMIT_PREFIX}{TELEMETRY_NAMESPACE}/"


def submission_path(document_id: bytes, document: object) -> bytes:
    """Return the path that a client would have posted `document` to; None is a document that is not JSON."""
    parts = [
        quote(document_id, safe=""),
        *(quote(part, safe="", errors="replace") for part in _described(document)),
    ]
    return (_PATH_START + "/".join(parts)).encode()


def document_type(document: object) -> str:
    """Return the document type in the path of `document`."""
    return without_halves(_described(document)[0])


def document_id_of_path(path: str) -> bytes:
    """Return the document id in a path of `submission_path`, as its bytes were."""
    return unquote_to_bytes(path.removeprefix(_PATH_START).partition("/")[0])


def date_of_document(document: object, modified_ms: int) -> date:
    """Return the submission date of a document whose directory has none.

    The UTC date of `creationDate` (unified pings), else of `pingTime` (Firefox OS, in milliseconds since
    1970), else of the modification of its file: the versions before have no date.
    """
    if isinstance(document, dict):
        created, sent = document.get("creationDate"), document.get("pingTime")
        try:
            if isinstance(created, str):
                moment = datetime.fromisoformat(created)
                return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
            if isinstance(sent, int | float) and not isinstance(sent, bool):
                return datetime.fromtimestamp(sent / MILLISECONDS, UTC).date()
        except (ValueError, OverflowError, OSError):
            pass
    return datetime.fromtimestamp(modified_ms / MILLISECONDS, UTC).date()


def submission_timestamp(day: date) -> datetime:
    """Return the submission timestamp of all historic documents of a date."""
    return datetime.combine(day, time(), UTC)


def record_batch(paths: Sequence[bytes], contents: Sequence[bytes], days: Sequence[date]) -> pa.RecordBatch:
    """Return documents as rows of a raw object."""
    count = len(paths)
    microseconds = [round(submission_timestamp(day).timestamp()) * 1_000_000 for day in days]
    no_bytes, no_text = of_bytes([b""] * count), of_texts([""] * count)
    headers: Any = RAW_SCHEMA.field("headers").type
    no_headers = pa.StructArray.from_arrays(
        [of_texts([]), of_bytes([])], fields=[headers.key_field, headers.item_field]
    )
    columns: dict[str, pa.Array[Any]] = {
        "submission_timestamp": of_integers(microseconds, pa.int64()).view(
            RAW_SCHEMA.field("submission_timestamp").type
        ),
        "method": no_text,
        "path": of_bytes(paths),
        "query": no_bytes,
        "protocol": no_text,
        "remote_address": no_text,
        "host": no_bytes,
        "headers": of_lists(np.zeros(count, np.int32), no_headers, headers),
        "body": of_bytes(contents),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in RAW_SCHEMA.names], schema=RAW_SCHEMA)


def _described(document: object) -> list[str]:
    """Return the document type, and application, version, channel and build id."""
    if not isinstance(document, dict):
        return [UNKNOWN_TYPE, *[UNKNOWN] * 4]
    application, info = document.get("application"), document.get("info")
    if isinstance(application, dict) and "type" in document:
        return [_text(document["type"], UNKNOWN_TYPE), *(_text(application.get(name)) for name in _UNIFIED)]
    if isinstance(info, dict):
        return [_text(info.get("reason"), UNKNOWN_TYPE), *(_text(info.get(name)) for name in _CLASSIC)]
    if document.get("ver") in (3, "3"):
        return [FIREFOX_OS_TYPE, FIREFOX_OS, *(_first_text(document, names) for names in _FIREFOX_OS)]
    return [UNKNOWN_TYPE, *[UNKNOWN] * 4]


def _first_text(document: Mapping[str, object], names: Sequence[str]) -> str:
    """Return the first of these members that says something."""
    return next((text for name in names if (text := _text(document.get(name))) != UNKNOWN), UNKNOWN)


def _text(value: object, otherwise: str = UNKNOWN) -> str:
    return value if isinstance(value, str) and value else otherwise
