"""The raw object: pings exactly as they were received, in one immutable Arrow IPC stream.

One row per ping in the order in which they were made durable; the number of a row is the ping's
*position*. Buffers are compressed with Zstandard (most bodies are gzip already; what shrinks is the
metadata). The stream's schema carries what the index promises, so that a raw object found alone
can still be checked::

    telemetry_lake.format                       "1"
    telemetry_lake.ping_count                   "512"
    telemetry_lake.first_submission_timestamp   "2026-11-23T14:00:00.123456+00:00"
    telemetry_lake.last_submission_timestamp    "2026-11-23T14:00:59.654321+00:00"
    telemetry_lake.node, telemetry_lake.segment "node-1", "…"

Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import SEEK_END, BufferedIOBase
from itertools import accumulate
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.raw.index_message import IndexMessage

RAW_OBJECT_MAX_BYTES: Final = 512 * 1024 * 1024
"""A reader refuses anything larger; the largest segment is half of it."""
RECORD_BATCH_MAX_PINGS: Final = 512
RECORD_BATCH_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A record batch ends at whichever comes first, so that a reader's memory is bounded."""

_METADATA: Final = "telemetry_lake."
_FORMAT: Final = "1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_Array: TypeAlias = "pa.Array[pa.Scalar[pa.DataType]]"

_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
_HEADERS: Final = pa.map_(pa.string(), pa.binary())

_RAW_FIELDS: "Final[list[pa.Field[pa.DataType]]]" = [
    pa.field("submission_timestamp", _TIMESTAMP, nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("path", pa.binary(), nullable=False),
    pa.field("query", pa.binary(), nullable=False),
    pa.field("protocol", pa.string(), nullable=False),
    pa.field("remote_address", pa.string(), nullable=False),
    pa.field("host", pa.binary(), nullable=False),
    pa.field("headers", _HEADERS, nullable=False),
    pa.field("body", pa.binary(), nullable=False),
]
RAW_SCHEMA: Final = pa.schema(_RAW_FIELDS)
"""Header names are in lower case; their values, the path and the query are the bytes that came."""


@dataclass(frozen=True, slots=True)
class RawPing:
    """One ping as received. `headers` holds the captured ones, in order, names in lower case."""

    submission_timestamp: datetime
    method: str
    path: bytes
    query: bytes
    protocol: str
    remote_address: str
    host: bytes
    headers: tuple[tuple[str, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Promise:
    """What a raw object says about itself; timestamps are those of its earliest and latest ping."""

    ping_count: int
    first_submission_timestamp: datetime
    last_submission_timestamp: datetime
    node: str
    segment_id: str


def write_raw_object(pings: Iterable[RawPing], promise: Promise) -> bytes:
    """Return the raw object that holds `pings`; raises ValueError when they do not fit `promise`."""
    schema = RAW_SCHEMA.with_metadata(
        {
            _METADATA + "format": _FORMAT,
            _METADATA + "ping_count": str(promise.ping_count),
            _METADATA + "first_submission_timestamp": promise.first_submission_timestamp.isoformat(),
            _METADATA + "last_submission_timestamp": promise.last_submission_timestamp.isoformat(),
            _METADATA + "node": promise.node,
            _METADATA + "segment": promise.segment_id,
        }
    )
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    seen = _Seen()
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for group in _groups(pings):
            batch = _record_batch(group)
            seen.add(batch)
            writer.write_batch(batch)
    if (difference := seen.difference(promise)) is not None:
        raise ValueError(f"the pings do not fit their promise: {difference}")
    return sink.getvalue().to_pybytes()


class RawObject:
    """A raw object in memory or in a file, opened for reading.

    The count and the time range are checked while `record_batches` is read to its end; `verify`
    checks the whole against an index message. Raises DamagedRawObject for anything that is not what
    it should be, with the key and what was found. A file stays open; its position is moved.
    """

    def __init__(self, key: str, data: bytes | BufferedIOBase) -> None:
        self.key = key
        self._data = data
        self.bytes: Final = len(data) if isinstance(data, bytes) else data.seek(0, SEEK_END)
        """The size of the object."""
        if self.bytes > RAW_OBJECT_MAX_BYTES:
            raise DamagedRawObject(f"{key}: {self.bytes} bytes are more than a raw object may hold")
        with _arrow_damage(key), self._open() as reader:
            schema = reader.schema
        self.promise = _promise(key, schema)

    def _open(self) -> pa.RecordBatchStreamReader:
        if isinstance(self._data, bytes):
            return pa.ipc.open_stream(pa.BufferReader(self._data))
        self._data.seek(0)
        return pa.ipc.open_stream(pa.PythonFile(self._data, "r"))

    def _sha256(self) -> str:
        if isinstance(self._data, bytes):
            return hashlib.sha256(self._data).hexdigest()
        self._data.seek(0)
        return hashlib.file_digest(self._data, "sha256").hexdigest()

    def index_message(self, bucket: str) -> IndexMessage:
        """Return its index message, made of what it says about itself; it is in `bucket` under its key."""
        return IndexMessage(
            bucket=bucket,
            key=self.key,
            bytes=self.bytes,
            ping_count=self.promise.ping_count,
            sha256=self._sha256(),
            first_submission_timestamp=self.promise.first_submission_timestamp,
            last_submission_timestamp=self.promise.last_submission_timestamp,
        )

    def verify(self, message: IndexMessage) -> None:
        """Compare size, checksum, count and range with what `message` promises."""
        if self.bytes != message.bytes:
            raise DamagedRawObject(
                f"{self.key}: {self.bytes} bytes, the index message promises {message.bytes}"
            )
        if (found := self._sha256()) != message.sha256:
            raise DamagedRawObject(
                f"{self.key}: SHA-256 {found}, the index message promises {message.sha256}"
            )
        promised = (message.ping_count, *message.time_range)
        stated = (
            self.promise.ping_count,
            self.promise.first_submission_timestamp,
            self.promise.last_submission_timestamp,
        )
        if stated != promised:
            raise DamagedRawObject(f"{self.key}: the object says {stated}, the index message {promised}")

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the pings by record batches; raises DamagedRawObject at the end if some are missing."""
        seen = _Seen()
        with _arrow_damage(self.key), self._open() as reader:
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                batch.validate(full=True)
                seen.add(batch)
                yield batch
        if (difference := seen.difference(self.promise)) is not None:
            raise DamagedRawObject(f"{self.key}: {difference}")


class _Seen:
    """The count and the time range of the record batches seen so far."""

    def __init__(self) -> None:
        self._count = 0
        self._first: datetime | None = None
        self._last: datetime | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows == 0:
            return
        # As numbers: a timestamp of Arrow that becomes a Python one brings pandas along, 50 MB of it.
        range_ = pc.min_max(batch.column("submission_timestamp").view(pa.int64()))
        first, last = (_EPOCH + timedelta(microseconds=range_[end].as_py()) for end in ("min", "max"))
        self._count += batch.num_rows
        self._first = first if self._first is None else min(self._first, first)
        self._last = last if self._last is None else max(self._last, last)

    def difference(self, promise: Promise) -> str | None:
        """Return what does not fit `promise`, in words, or None when everything fits."""
        if self._count != promise.ping_count:
            return f"{self._count} pings found, {promise.ping_count} promised"
        promised = (promise.first_submission_timestamp, promise.last_submission_timestamp)
        if (self._first, self._last) != promised:
            return (
                f"submission timestamps {self._first} to {self._last} found,"
                f" {promised[0]} to {promised[1]} promised"
            )
        return None


def _groups(pings: Iterable[RawPing]) -> Iterator[list[RawPing]]:
    group: list[RawPing] = []
    body_bytes = 0
    for ping in pings:
        if group and (
            len(group) >= RECORD_BATCH_MAX_PINGS or body_bytes + len(ping.body) > RECORD_BATCH_MAX_BODY_BYTES
        ):
            yield group
            group, body_bytes = [], 0
        group.append(ping)
        body_bytes += len(ping.body)
    if group:
        yield group


def _record_batch(pings: Sequence[RawPing]) -> pa.RecordBatch:
    """Return `pings` as rows.

    The columns are made of buffers: `pa.array` imports pandas where it is installed, which would cost a
    shipper 50 MB and a second.
    """
    arrays: list[_Array] = [
        _timestamps([ping.submission_timestamp for ping in pings]),
        _texts([ping.method for ping in pings]),
        _byte_strings([ping.path for ping in pings], pa.binary()),
        _byte_strings([ping.query for ping in pings], pa.binary()),
        _texts([ping.protocol for ping in pings]),
        _texts([ping.remote_address for ping in pings]),
        _byte_strings([ping.host for ping in pings], pa.binary()),
        _maps([ping.headers for ping in pings]),
        _byte_strings([ping.body for ping in pings], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA)


def _timestamps(values: Sequence[datetime]) -> _Array:
    microseconds = array("q", ((value - _EPOCH) // _MICROSECOND for value in values))
    return pa.Array.from_buffers(_TIMESTAMP, len(values), [None, pa.py_buffer(microseconds)])


def _texts(values: Sequence[str]) -> _Array:
    return _byte_strings([value.encode() for value in values], pa.string())


def _byte_strings(values: Sequence[bytes], of: pa.DataType) -> _Array:
    return pa.Array.from_buffers(of, len(values), [None, _offsets(values), pa.py_buffer(b"".join(values))])


def _maps(values: Sequence[Sequence[tuple[str, bytes]]]) -> _Array:
    entries = pa.StructArray.from_arrays(
        [
            _texts([name for entry in values for name, _ in entry]),
            _byte_strings([value for entry in values for _, value in entry], pa.binary()),
        ],
        fields=[_HEADERS.key_field, _HEADERS.item_field],
    )
    return pa.Array.from_buffers(_HEADERS, len(values), [None, _offsets(values)], children=[entries])


def _offsets(values: Sequence[Sized]) -> pa.Buffer:
    """Return where each of `values` begins, and where the last one ends, as Arrow's 32-bit offsets."""
    return pa.py_buffer(array("i", accumulate(map(len, values), initial=0)))


def _promise(key: str, schema: pa.Schema) -> Promise:
    if not schema.equals(RAW_SCHEMA):
        raise DamagedRawObject(f"{key}: the columns are not those of a raw object of format {_FORMAT}")
    metadata = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
    try:
        if metadata[_METADATA + "format"] != _FORMAT:
            raise DamagedRawObject(
                f"{key}: raw object of format {metadata[_METADATA + 'format']!r}, not {_FORMAT}"
            )
        return Promise(
            int(metadata[_METADATA + "ping_count"]),
            datetime.fromisoformat(metadata[_METADATA + "first_submission_timestamp"]),
            datetime.fromisoformat(metadata[_METADATA + "last_submission_timestamp"]),
            metadata[_METADATA + "node"],
            metadata[_METADATA + "segment"],
        )
    except (KeyError, ValueError) as error:
        raise DamagedRawObject(
            f"{key}: the metadata of a raw object is missing or malformed: {error}"
        ) from error


@contextmanager
def _arrow_damage(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowSerializationError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The file cannot be read, which says nothing about the object.
        raise DamagedRawObject(f"{key}: not a whole Arrow stream: {error}") from error
