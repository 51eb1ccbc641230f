"""All documents below a prefix, read again only when they have changed.

A listing has the ETag of each object, so one request for a thousand documents says which of them are known.
Where there is an index, an object with copies of many documents, a process that has just started reads that
first. It is a copy only: what a listing says wins, and nothing is lost with it.
"""

import json
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.storage.records import all_at_once

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

INDEX_AFTER_READS: Final = 20
"""The index is written again by who had to read this many documents that are not in it."""
INDEXED_MAX_BYTES: Final = 16 * 1024
"""Larger documents are not in the index."""

R = TypeVar("R", bound=BaseModel)

_log = logging.getLogger(__name__)


class CachedDocuments(Generic[R]):
    """The documents of one form below a prefix; safe to share between threads."""

    def __init__(
        self, store: "ObjectStore", bucket: str, prefix: str, form: type[R], *, index_key: str | None = None
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = prefix
        self._form = form
        self._index_key = index_key
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, R]] = {}
        self._index_was_read = index_key is None

    def all(self) -> dict[str, R]:
        """Return every document by its key, as it is now; one that cannot be read is logged and left out."""
        listed = {item.key: item.etag for item in self._store.list_objects(self._bucket, self._prefix)}
        with self._lock:
            if not self._index_was_read:
                self._known = self._index()
                self._index_was_read = True
            known = self._known
        current = {key: known[key] for key, etag in listed.items() if key in known and known[key][0] == etag}
        unknown = [key for key in listed if key not in current]
        bodies: dict[str, bytes] = {}
        for key, read in zip(
            unknown, all_at_once(lambda key: self._store.read(self._bucket, key), unknown), strict=True
        ):
            if read is None:
                continue
            try:
                current[key] = read.etag, self._form.model_validate_json(read.body)
            except ValidationError as error:
                _log.warning("s3://%s/%s cannot be read: %s", self._bucket, key, error)
            bodies[key] = read.body
        with self._lock:
            self._known = current
        if self._index_key is not None and len(bodies) >= INDEX_AFTER_READS:
            self._write_index(self._index_key, current)
        return {key: document for key, (_, document) in current.items()}

    def _index(self) -> dict[str, tuple[str, R]]:
        assert self._index_key is not None
        content = self._store.get_or_none(self._bucket, self._index_key)
        if content is None:
            return {}
        try:
            return {
                key: (etag, self._form.model_validate(document))
                for key, (etag, document) in json.loads(content).items()
            }
        except (ValueError, TypeError, AttributeError) as error:
            # ValidationError is a ValueError. The next one who reads many documents writes a new index.
            _log.warning("s3://%s/%s cannot be used: %s", self._bucket, self._index_key, error)
            return {}

    def _write_index(self, key: str, current: dict[str, tuple[str, R]]) -> None:
        texts = {name: (etag, document.model_dump_json()) for name, (etag, document) in current.items()}
        lines = (
            f"{json.dumps(name)}:[{json.dumps(etag)},{text}]"
            for name, (etag, text) in texts.items()
            if len(text) <= INDEXED_MAX_BYTES
        )
        with suppress(TelemetryLakeError):
            self._store.put(self._bucket, key, f"{{{','.join(lines)}}}".encode())
