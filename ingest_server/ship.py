"""The shipper: one process that turns sealed segments into raw objects and index messages.

The order is what makes it safe to die anywhere: the raw object, then its message, then the local file
goes. Shipping a segment again gives the same key, and whatever is there already is compared.
"""

import hashlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import pyarrow as pa
import tenacity

from ingest_server.counters import Counters
from ingest_server.segment import CapturedPing, pings, scan, split_segment_id
from ingest_server.spool import SealedSegment, Spool
from ingest_server.stop_signals import STOP_SIGNALS, unblock_signals
from telemetry_lake.failures import DamagedRawObject, FatalError, RetriableError
from telemetry_lake.index_message import IndexMessage
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.object_keys import raw_object_key
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.raw_object import RAW_SCHEMA, Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.settings import Settings

LANES: Final = 2
"""Segments under way at once: one is encoded while another is on the wire. Each takes four times its size."""
LOOK_SECONDS: Final = 0.2
REACHABILITY_LOOK_SECONDS: Final = 10
RETRY_FIRST_SECONDS: Final = 0.5
RETRY_MAX_SECONDS: Final = 15
RETRY_JITTER_SECONDS: Final = 1

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Stopped(Exception):
    """The shipper has to end; what it was about is left for the next start."""


class OtherPings(Exception):
    """The segment's key exists and holds other pings."""


class Shipper:
    """Ships the segments of one spool; `run` returns when it has stopped."""

    def __init__(self, settings: Settings, spool: Spool, counters: Counters) -> None:
        self._settings = settings
        self._spool = spool
        self._counters = counters
        self._store = ObjectStore(settings.s3)
        self._queue = IndexQueue(settings.sqs)
        self._counters_lock = threading.Lock()
        self._under_way: set[str] = set()
        self._under_way_lock = threading.Lock()
        self._last_round = threading.Event()
        self._stop = threading.Event()

    def run(self, parent_pipe: int) -> None:
        """Ship until SIGTERM or SIGINT, then what is left, within a limit; stop at once without a parent."""
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._last_round.set())
        unblock_signals()
        lanes = [
            threading.Thread(target=self._lane, name=f"lane-{number}", daemon=True) for number in range(LANES)
        ]
        for thread in (*lanes, threading.Thread(target=self._look_at_services, daemon=True)):
            thread.start()
        log.info("shipper_ready")
        while not self._last_round.is_set():
            ready, _, _ = select.select([parent_pipe], [], [], LOOK_SECONDS)
            if ready:
                return
        deadline = time.monotonic() + self._settings.ingest.stop_ship_seconds
        while any(lane.is_alive() for lane in lanes) and time.monotonic() < deadline:
            for lane in lanes:
                lane.join(LOOK_SECONDS / LANES)
        self._stop.set()
        log.info("shipper_stopped", extra={"segments_left": len(self._spool.sealed_segments())})

    def _lane(self) -> None:
        """Take segments, oldest first, until there are none left in the last round."""
        try:
            while not self._stop.is_set():
                is_last_round = self._last_round.is_set()
                segment = self._take()
                if segment is None:
                    if is_last_round:
                        return
                    self._last_round.wait(LOOK_SECONDS)
                    continue
                try:
                    self._ship(segment)
                finally:
                    with self._under_way_lock:
                        self._under_way.discard(segment.segment_id)
        except Stopped:
            return
        except BaseException:
            log.critical("shipper_died", exc_info=True)
            os._exit(1)

    def _take(self) -> SealedSegment | None:
        with self._under_way_lock:
            for segment in self._spool.sealed_segments():
                if segment.segment_id not in self._under_way:
                    self._under_way.add(segment.segment_id)
                    return segment
        return None

    def _ship(self, segment: SealedSegment) -> None:
        data = segment.read()
        found = scan(data, split_segment_id(segment.segment_id).marker)
        if len(data) < segment.length or len(found.records) != segment.pings or found.damaged:
            salvaged = self._spool.set_aside(
                segment.path,
                segment.segment_id,
                data,
                found,
                f"{len(data)} of {segment.length} bytes, {len(found.records)} of {segment.pings} pings",
            )
            self._count("damaged_segments")
            self._count("salvaged_pings", salvaged)
            return
        captured = [_raw_ping(ping) for ping in pings(data, found.records)]
        times = [ping.submission_timestamp for ping in captured]
        promise = Promise(
            len(captured), min(times), max(times), self._settings.ingest.node, segment.segment_id
        )
        key = raw_object_key(promise.first_submission_timestamp, promise.node, promise.segment_id)
        body = write_raw_object(captured, promise)
        try:
            message = self._try_for_ever(
                "upload_errors", segment, lambda: self._store_raw(key, body, promise)
            )
        except OtherPings as error:
            log.error("segment_conflicts", extra={"segment": segment.segment_id, "why": str(error)})
            self._spool.move_to_damaged(segment.path)
            self._count("damaged_segments")
            return
        self._try_for_ever("queue_errors", segment, lambda: self._queue.send(message))
        self._spool.remove(segment.path)
        self._count("shipped_segments")
        self._count("shipped_pings", message.ping_count)
        self._count("shipped_bytes", message.bytes)
        log.info("segment_shipped", extra={"key": key, "pings": message.ping_count, "bytes": message.bytes})

    def _store_raw(self, key: str, body: bytes, promise: Promise) -> IndexMessage:
        """Write the raw object unless it is there; the message about whichever is in S3 then."""
        bucket = self._settings.s3.raw_bucket
        if not self._store.put_if_absent(bucket, key, body):
            stored = self._store.get(bucket, key)
            if stored != body:
                _compare(key, stored, body)
                body = stored
        return IndexMessage(
            bucket=bucket,
            key=key,
            bytes=len(body),
            ping_count=promise.ping_count,
            sha256=hashlib.sha256(body).hexdigest(),
            first_submission_timestamp=promise.first_submission_timestamp,
            last_submission_timestamp=promise.last_submission_timestamp,
        )

    def _try_for_ever(self, counter: str, segment: SealedSegment, act: Callable[[], _Result]) -> _Result:
        """Until it works, with exponential back-off and jitter; raises Stopped when the shipper ends."""

        def note(state: tenacity.RetryCallState) -> None:
            self._count(counter)
            log.warning(
                counter,
                extra={
                    "segment": segment.segment_id,
                    "tries": state.attempt_number,
                    "error": str(state.outcome.exception()) if state.outcome else "",
                    "next_try_seconds": round(state.upcoming_sleep, 1),
                },
            )
            if self._stop.is_set():
                raise Stopped

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((RetriableError, FatalError)),
            wait=tenacity.wait_exponential_jitter(
                initial=RETRY_FIRST_SECONDS, max=RETRY_MAX_SECONDS, jitter=RETRY_JITTER_SECONDS
            ),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=note,
        )
        return retrying(act)

    def _look_at_services(self) -> None:
        while not self._stop.is_set():
            self._counters.set("s3_reachable", self._store.is_reachable(self._settings.s3.raw_bucket))
            self._counters.set("s3_looks", 1)
            self._counters.set("sqs_reachable", self._queue.is_reachable())
            self._counters.set("sqs_looks", 1)
            self._stop.wait(REACHABILITY_LOOK_SECONDS)

    def _count(self, name: str, amount: float = 1) -> None:
        with self._counters_lock:
            self._counters.add(name, amount)


def _raw_ping(ping: CapturedPing) -> RawPing:
    """The ping of a segment as a raw object holds it."""
    return RawPing(
        ping.submission_timestamp,
        ping.method.decode("ascii"),
        ping.path,
        ping.query,
        ping.protocol.decode("ascii"),
        ping.remote_address.decode("ascii"),
        ping.host,
        tuple((name.decode("latin-1"), value) for name, value in ping.headers),
        ping.body,
    )


def _compare(key: str, stored: bytes, ours: bytes) -> None:
    """Raise OtherPings unless two raw objects hold the same pings.

    Arrow and Zstandard may write the same pings in other bytes after an upgrade.
    """
    try:
        both = [
            pa.Table.from_batches(RawObject(key, data).record_batches(), RAW_SCHEMA)
            for data in (stored, ours)
        ]
    except (DamagedRawObject, pa.ArrowInvalid) as error:
        raise OtherPings(f"what is at {key} cannot be read: {error}") from error
    if not both[0].equals(both[1]):
        raise OtherPings(
            f"{key} holds {both[0].num_rows} pings that are not the {both[1].num_rows} of the segment"
        )
