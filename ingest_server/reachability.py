"""Looks whether S3 and SQS answer, for the node's health pages. Shipping does not depend on it."""

import threading
from typing import Final

from ingest_server.counters import Counters
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.storage.object_store import ObjectStore

REACHABILITY_LOOK_SECONDS: Final = 10


class Reachability:
    """Counts as 1 or 0 whether the raw bucket and the index queue answer."""

    def __init__(self, store: ObjectStore, bucket: str, queue: IndexQueue, counters: Counters) -> None:
        self._store = store
        self._bucket = bucket
        self._queue = queue
        self._counters = counters

    def run(self, stop: threading.Event) -> None:
        """Look at both, now and every REACHABILITY_LOOK_SECONDS, until `stop` is set."""
        while not stop.is_set():
            self._counters.set("s3_reachable", self._store.is_reachable(self._bucket))
            self._counters.set("s3_looks", 1)
            self._counters.set("sqs_reachable", self._queue.is_reachable())
            self._counters.set("sqs_looks", 1)
            stop.wait(REACHABILITY_LOOK_SECONDS)
