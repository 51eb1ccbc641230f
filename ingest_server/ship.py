"""The shipper: one process that turns sealed segments into raw objects and index messages.

The order makes it safe to end anywhere: first the raw object is put, then its message is sent, then the local
file is removed. Shipping a segment again gives the same key, and what is there already is compared.
"""

import hashlib
import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import pyarrow as pa
import tenacity

from ingest_server.counters import Counters
from ingest_server.reachability import Reachability
from ingest_server.segment import CapturedPing, pings, scan, split_segment_id
from ingest_server.spool import SealedSegment, Spool
from ingest_server.stop_signals import STOP_SIGNALS, unblock_signals
from telemetry_lake.failures import AccessRefused, DamagedRawObject, FatalError, RetriableError
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.raw.raw_object import RAW_SCHEMA, Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import raw_object_key
from telemetry_lake.storage.object_store import ObjectStore

LANES: Final = 2
"""Segments under way at once: one is encoded while another is on the wire. Each takes four times its size."""
LOOK_SECONDS: Final = 0.2
ANNOUNCE_TRIES: Final = 3
"""After this many the message is kept, and sent when the queue answers again."""
ANNOUNCEMENTS_MAX: Final = 10_000
"""No more messages are kept than this: the reconciler announces what nobody has announced."""
FAILURES_MAX: Final = 3
"""A segment that ended the shipper this often is set aside."""
RETRY_FIRST_SECONDS: Final = 0.5
RETRY_MAX_SECONDS: Final = 15
RETRY_JITTER_SECONDS: Final = 1
REFUSED_WAIT_SECONDS: Final = 60
"""How long to wait after S3 or SQS refused this node's key, and how often to say so: a person has to act."""

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Stopped(Exception):
    """The shipper has to end; what is not shipped is left for the next start."""


class OtherPings(Exception):
    """The segment's key exists and holds other pings."""


class _Raw(NamedTuple):
    """A raw object to be put: its key, its bytes and what it promises."""

    key: str
    body: bytes
    promise: Promise


class Shipper:
    """Ships the segments of one spool; `run` returns when it has stopped."""

    def __init__(self, settings: Settings, spool: Spool, counters: Counters) -> None:
        self._settings = settings
        self._spool = spool
        self._counters = counters
        self._store = ObjectStore(settings.s3)
        self._queue = IndexQueue(settings.sqs)
        self._reachability = Reachability(self._store, settings.s3.raw_bucket, self._queue, counters)
        self._counters_lock = threading.Lock()
        self._refusal_reported_until = float("-inf")
        self._found: deque[SealedSegment] = deque()
        """Sealed segments that are not taken yet, oldest first; looked for again when there are none."""
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
            threading.Thread(target=_exit_on_failure, args=(self._lane,), name=f"lane-{number}", daemon=True)
            for number in range(LANES)
        ]
        announcer = threading.Thread(
            target=_exit_on_failure, args=(self._announce_kept,), name="announcer", daemon=True
        )
        looks = threading.Thread(target=self._reachability.run, args=(self._stop,), daemon=True)
        for thread in (*lanes, announcer, looks):
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
        """Ship segments, oldest first, until there are none left in the last round."""
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
            except Exception as error:
                # A full disk or the like says nothing about the segment.
                if not isinstance(error, Stopped | OSError):
                    self._failed(segment)
                raise
            finally:
                with self._under_way_lock:
                    self._under_way.discard(segment.segment_id)

    def _failed(self, segment: SealedSegment) -> None:
        """Count that the segment ends this process, and set it aside if that happens again and again.

        The oldest segment is shipped first: without this, one that cannot be converted would keep all others
        on this node.
        """
        failures = self._spool.count_failure(segment.segment_id)
        if failures < FAILURES_MAX:
            return
        log.error(
            "segment_cannot_be_shipped",
            extra={
                "segment": segment.segment_id,
                "failures": failures,
                "action": f"look at the exceptions logged before; to ship it again, move it from "
                f"{self._spool.damaged_directory} to {self._spool.sealed_directory}",
            },
        )
        self._spool.move_to_damaged(segment.path)
        self._spool.forget_failures(segment.segment_id)
        self._count("damaged_segments")

    def _take(self) -> SealedSegment | None:
        with self._under_way_lock:
            if not self._found:
                self._found.extend(
                    segment
                    for segment in self._spool.sealed_segments()
                    if segment.segment_id not in self._under_way
                )
            if not self._found:
                return None
            segment = self._found.popleft()
            self._under_way.add(segment.segment_id)
            return segment

    def _ship(self, segment: SealedSegment) -> None:
        """Put the raw object, send its message, remove the segment; or set the segment aside."""
        raw = self._raw_object_of(segment)
        if raw is None:
            return
        try:
            message = self._try_until_it_works("upload_errors", segment.segment_id, partial(self._put, raw))
        except OtherPings as error:
            log.error("segment_conflicts", extra={"segment": segment.segment_id, "why": str(error)})
            self._spool.move_to_damaged(segment.path)
            self._count("damaged_segments")
            return
        announced = self._can_announce(segment, message)
        if not announced:
            self._keep_announcement(segment, message)
        self._spool.remove(segment.path)
        self._spool.forget_failures(segment.segment_id)
        if announced:
            self._count_shipped(message)

    def _can_announce(self, segment: SealedSegment, message: IndexMessage) -> bool:
        """Send the message, and return whether it was; False once the queue seems to be unavailable.

        A message is only a hint, so an upload must not wait for it: the spool would fill up. While others
        wait to be announced, this one is not tried at all.
        """
        if self._spool.has_announcements():
            return False
        try:
            self._try(
                "queue_errors",
                segment.segment_id,
                partial(self._queue.send, message),
                tenacity.stop_after_attempt(ANNOUNCE_TRIES) | _WhenRefused(),
            )
        except tenacity.RetryError:
            log.error(
                "segment_not_announced",
                extra={
                    "segment": segment.segment_id,
                    "key": message.key,
                    "action": "look at SQS; the message is kept, and sent when the queue answers",
                },
            )
            return False
        return True

    def _keep_announcement(self, segment: SealedSegment, message: IndexMessage) -> None:
        """Keep the message until the queue answers, unless ANNOUNCEMENTS_MAX are kept already."""
        if len(self._spool.waiting_announcements()) < ANNOUNCEMENTS_MAX:
            self._spool.keep_announcement(segment.segment_id, message.to_json())
            return
        log.error(
            "announcement_not_kept",
            extra={"key": message.key, "action": "look at SQS; the reconciler announces the raw object"},
        )

    def _announce_kept(self) -> None:
        """Send the messages that were kept, oldest first, until the last round."""
        while not self._stop.is_set():
            kept = self._spool.waiting_announcements()
            if not kept:
                if self._last_round.is_set():
                    return
                self._last_round.wait(LOOK_SECONDS)
                continue
            for path in kept:
                self._announce(path)

    def _announce(self, path: Path) -> None:
        """Send one message that was kept."""
        try:
            message = IndexMessage.from_json(path.read_text())
        except FatalError as error:
            log.error(
                "announcement_damaged",
                extra={
                    "file": path.name,
                    "error": str(error),
                    "action": "none: the reconciler announces the raw object",
                },
            )
            self._spool.move_to_damaged(path)
            return
        self._try_until_it_works("queue_errors", path.stem, partial(self._queue.send, message))
        self._spool.remove(path)
        self._count_shipped(message)

    def _count_shipped(self, message: IndexMessage) -> None:
        self._count("shipped_segments")
        self._count("shipped_pings", message.ping_count)
        self._count("shipped_bytes", message.bytes)
        log.info(
            "segment_shipped",
            extra={"key": message.key, "pings": message.ping_count, "bytes": message.bytes},
        )

    def _raw_object_of(self, segment: SealedSegment) -> _Raw | None:
        """Return the raw object that holds the pings; None when the segment is damaged, and set aside now."""
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
            return None
        captured = [_raw_ping(ping) for ping in pings(data, found.records)]
        times = [ping.submission_timestamp for ping in captured]
        promise = Promise(
            len(captured), min(times), max(times), self._settings.ingest.node, segment.segment_id
        )
        key = raw_object_key(promise.first_submission_timestamp, promise.node, promise.segment_id)
        return _Raw(key, write_raw_object(captured, promise), promise)

    def _put(self, raw: _Raw) -> IndexMessage:
        """Write the raw object unless its key exists; the message is about what is in S3 then.

        Raises OtherPings when what is there holds other pings.
        """
        bucket = self._settings.s3.raw_bucket
        message = self._message(raw, raw.body)
        if self._store.put_if_absent(bucket, raw.key, raw.body, metadata=message.metadata()):
            return message
        stored = self._store.get(bucket, raw.key)
        if stored == raw.body:
            return message
        _compare(raw.key, stored, raw.body)
        return self._message(raw, stored)

    def _message(self, raw: _Raw, body: bytes) -> IndexMessage:
        return IndexMessage(
            bucket=self._settings.s3.raw_bucket,
            key=raw.key,
            bytes=len(body),
            ping_count=raw.promise.ping_count,
            sha256=hashlib.sha256(body).hexdigest(),
            first_submission_timestamp=raw.promise.first_submission_timestamp,
            last_submission_timestamp=raw.promise.last_submission_timestamp,
        )

    def _try_until_it_works(self, counter: str, segment_id: str, act: Callable[[], _Result]) -> _Result:
        return self._try(counter, segment_id, act, tenacity.stop_never)

    def _try(
        self,
        counter: str,
        segment_id: str,
        act: Callable[[], _Result],
        stop: tenacity.stop.stop_base,
    ) -> _Result:
        """Return what `act` returns, tried with exponential back-off and jitter until `stop` ends it.

        A FatalError is tried again as well: it comes from a missing bucket, queue or right, which an operator
        mends while the node runs. To give up would leave acknowledged pings on this disk only. What is
        refused is tried once a minute.
        Raises tenacity.RetryError when `stop` ended it, Stopped when the shipper has to end.
        """

        def note(state: tenacity.RetryCallState) -> None:
            self._count(counter)
            if not _was_refused(state) or self._may_report_refusal():
                log.warning(
                    counter,
                    extra={
                        "segment": segment_id,
                        "tries": state.attempt_number,
                        "error": str(state.outcome.exception()) if state.outcome else "",
                        "next_try_seconds": round(state.upcoming_sleep, 1),
                    },
                )
            if self._stop.is_set():
                raise Stopped

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((RetriableError, FatalError)),
            wait=_wait,
            stop=stop,
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=note,
        )
        return retrying(act)

    def _may_report_refusal(self) -> bool:
        """Return whether a refusal is to be logged: all lanes meet the same one, once a minute is enough."""
        with self._counters_lock:
            now = time.monotonic()
            if now < self._refusal_reported_until:
                return False
            self._refusal_reported_until = now + REFUSED_WAIT_SECONDS
            return True

    def _count(self, name: str, amount: float = 1) -> None:
        with self._counters_lock:
            self._counters.add(name, amount)


_back_off = tenacity.wait_exponential_jitter(
    multiplier=RETRY_FIRST_SECONDS, max=RETRY_MAX_SECONDS, jitter=RETRY_JITTER_SECONDS
)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return how many seconds to wait for the next try."""
    return REFUSED_WAIT_SECONDS if _was_refused(state) else _back_off(state)


def _was_refused(state: tenacity.RetryCallState) -> bool:
    return state.outcome is not None and isinstance(state.outcome.exception(), AccessRefused)


class _WhenRefused(tenacity.stop.stop_base):
    """Ends tries as soon as one was refused."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return _was_refused(retry_state)


def _exit_on_failure(work: Callable[[], None]) -> None:
    """Do the `work` of a thread; when it fails, the process ends, and the node starts it again."""
    try:
        work()
    except Stopped:
        return
    except BaseException:
        log.critical("shipper_died", exc_info=True)
        os._exit(1)


def _raw_ping(ping: CapturedPing) -> RawPing:
    """Return the ping of a segment as a raw object holds it."""
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
