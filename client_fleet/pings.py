"""What a fleet sends: an endless, seeded sequence of pings, some late, repeated, malformed or too large.

Every ping says what has to become of it once it is acknowledged, which makes a run of the fleet a proof:
the pings that were acknowledged can be looked for, one by one, in the lake.
"""

import bz2
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from random import Random
from typing import Final

import orjson

from client_fleet.clients import Client, random_client, random_uuid
from client_fleet.documents import DocumentSource, baseline_ping, crash_ping, event_ping, metrics_ping
from client_fleet.gzip_parts import Document, SmallDocument
from telemetry_lake.failures import ErrorType

LIVE: Final = "live"
NOT_STORED: Final = "none"

DUPLICATES_WINDOW: Final = 1_000
"""A duplicate repeats one of this many pings before it."""
LATE_MEAN: Final = timedelta(days=3)
LATE_MAX: Final = timedelta(days=30)
OVERSIZED_BYTES: Final = 1_024 * 1_024 + 1
"""One byte more than an ingest node takes by default."""
BOMB_BYTES: Final = 9 * 1_024 * 1_024
"""Decompressed size of a malformed ping that is small on its way; the lake takes 8 MiB by default."""

# Main and saved-session pings are nearly all of the bytes. So weighted, a mean body has 15 to 17 KB.
_DOCUMENT_TYPES: Final = (
    ("main", 64), ("saved-session", 18), ("event", 5), ("crash", 1), ("baseline", 8), ("metrics", 4),
)  # fmt: skip
_GLEAN_TYPES: Final = frozenset({"baseline", "metrics"})
_GLEAN_FROM_PHONES: Final = 0.5


class PingKind(StrEnum):
    """What is special about a ping."""

    NORMAL = "normal"
    DUPLICATE = "duplicate"
    """The same document id and body as a ping before it."""
    LATE = "late"
    """Made days before it is sent."""
    MALFORMED = "malformed"
    """Accepted, and rejected later with the error type that `expected` names."""
    OVERSIZED = "oversized"
    """Larger than an ingest node accepts."""


@dataclass(frozen=True, slots=True)
class Ping:
    """One submission. The body is put together when it is sent, so that waiting pings take little memory."""

    document_id: str
    """Part of the path, whatever else is wrong with the ping."""
    document_type: str
    kind: PingKind
    expected: str
    """`live`, `rejected:<error type>`, or `none` where it must not be stored even if it is answered 202."""
    target: str
    """Path and query."""
    headers: str
    """Header lines, each with its CR LF, without `Host` and `Content-Length`."""
    document: Document | SmallDocument | bytes

    def body(self) -> bytes:
        """Return the bytes to send."""
        return self.document if isinstance(self.document, bytes) else self.document.gzip()


@dataclass(frozen=True, slots=True)
class Shares:
    """How many of all pings are of a special kind, from 0 to 1; raises ValueError when they are not."""

    duplicates: float = 0.0
    late: float = 0.0
    malformed: float = 0.0
    oversized: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.duplicates, self.late, self.malformed, self.oversized)
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise ValueError(
                "the shares of duplicate, late, malformed and oversized pings must each be between 0 and 1, "
                "and not more than 1 together"
            )


class Pings(Iterator[Ping]):
    """The pings of a fleet of `clients_count` clients, one after the other.

    The same seed gives the same clients, document ids, kinds and contents; `clock` (UTC) dates them.
    """

    def __init__(self, seed: int, clients_count: int, shares: Shares, clock: Callable[[], datetime]) -> None:
        if clients_count < 1:
            raise ValueError(f"a fleet needs at least one client, not {clients_count}")
        self._rng = Random(seed)  # noqa: S311
        self._shares = shares
        self._clock = clock
        self._source = DocumentSource(self._rng)
        clients = [random_client(self._rng, self._source.machines) for _ in range(clients_count)]
        self._phones = [client for client in clients if client.is_phone]
        self._desktops = [client for client in clients if not client.is_phone]
        self._recent: list[Ping] = []
        self._sent = 0
        self._oversized = self._rng.randbytes(OVERSIZED_BYTES)
        self._bomb = SmallDocument(b'{"type":"event","padding":"' + b" " * BOMB_BYTES + b'"}').gzip()
        self._date_header = ("", datetime.min.replace(tzinfo=UTC))
        self._malformations = (
            self._truncated_gzip, self._truncated_zlib, self._unreadable_encoding, self._not_json,
            self._not_an_object, self._empty, self._bomb_ping, self._unknown_type, self._unknown_version,
            self._invalid_id, self._bare_id, self._cut_path, self._schema_violation, self._invalid_histogram,
        )  # fmt: skip

    def __next__(self) -> Ping:
        roll = self._rng.random()
        for share, make in (
            (self._shares.duplicates, self._duplicate),
            (self._shares.late, self._late),
            (self._shares.malformed, self._malformed),
            (self._shares.oversized, self._too_large),
        ):
            if roll < share:
                return make()
            roll -= share
        return self._normal()

    def _normal(self) -> Ping:
        ping = self._ping(self._clock(), PingKind.NORMAL)
        if len(self._recent) < DUPLICATES_WINDOW:
            self._recent.append(ping)
        else:
            self._recent[self._sent % DUPLICATES_WINDOW] = ping
        self._sent += 1
        return ping

    def _duplicate(self) -> Ping:
        if not self._recent:
            return self._normal()
        return replace(self._rng.choice(self._recent), kind=PingKind.DUPLICATE)

    def _late(self) -> Ping:
        age = min(LATE_MEAN * self._rng.expovariate(1), LATE_MAX)
        return self._ping(self._clock() - age, PingKind.LATE)

    def _malformed(self) -> Ping:
        return self._rng.choice(self._malformations)()

    def _too_large(self) -> Ping:
        ping = self._event()
        return replace(ping, kind=PingKind.OVERSIZED, expected=NOT_STORED, document=self._oversized)

    def _ping(self, created: datetime, kind: PingKind) -> Ping:
        rng = self._rng
        document_type = rng.choices(
            [name for name, _ in _DOCUMENT_TYPES], [weight for _, weight in _DOCUMENT_TYPES]
        )[0]
        from_phone = self._phones and (
            not self._desktops or (document_type in _GLEAN_TYPES and rng.random() < _GLEAN_FROM_PHONES)
        )
        client = rng.choice(self._phones if from_phone else self._desktops)
        if client.is_phone and document_type not in _GLEAN_TYPES:
            document_type = "baseline"
        document_id = random_uuid(rng)
        document: Document | SmallDocument
        if document_type in ("main", "saved-session"):
            document = self._source.main_ping(
                rng, client, document_id, created, saved_session=document_type == "saved-session"
            )
        elif document_type == "event":
            document = event_ping(rng, client, document_id, created)
        elif document_type == "crash":
            document = crash_ping(rng, client, document_id, created)
        else:
            make = baseline_ping if document_type == "baseline" else metrics_ping
            return Ping(
                document_id,
                document_type,
                kind,
                LIVE,
                f"/submit/{client.glean_namespace}/{document_type}/1/{document_id}",
                self._glean_headers(client),
                make(rng, client, created),
            )
        return Ping(
            document_id,
            document_type,
            kind,
            LIVE,
            _unified_target(client, document_id, document_type),
            self._unified_headers(client),
            document,
        )

    def _unified_headers(self, client: Client) -> str:
        return (
            "Content-Type: application/json; charset=UTF-8\r\nContent-Encoding: gzip\r\n"
            f"User-Agent: Mozilla/5.0 ({client.machine.os}) Gecko/20100101 "
            f"Firefox/{client.application.version}\r\n"
            f"Date: {self._date()}\r\nX-PingSender-Version: 1.0\r\n"
        )

    def _glean_headers(self, client: Client) -> str:
        return (
            "Content-Type: application/json; charset=utf-8\r\nContent-Encoding: gzip\r\n"
            f"User-Agent: Glean/71.0.0\r\nDate: {self._date()}\r\n"
            f"X-Telemetry-Agent: Glean/71.0.0 (Rust on {client.machine.os})\r\n"
        )

    def _date(self) -> str:
        now = self._clock().replace(microsecond=0)
        text, formatted = self._date_header
        if formatted != now:
            text = format_datetime(now, usegmt=True)
            self._date_header = text, now
        return text

    # Each of these is rejected for one reason; where it takes no large document, a small one is spoilt.

    def _event(self) -> Ping:
        rng = self._rng
        client = rng.choice(self._desktops or self._phones)
        document_id = random_uuid(rng)
        return Ping(
            document_id,
            "event",
            PingKind.MALFORMED,
            LIVE,
            _unified_target(client, document_id, "event"),
            self._unified_headers(client),
            event_ping(rng, client, document_id, self._clock()),
        )

    def _event_with(self, error: ErrorType, *, body: bytes) -> Ping:
        return replace(self._event(), expected=f"rejected:{error}", document=body)

    def _truncated_gzip(self) -> Ping:
        body = self._event().body()
        return self._event_with(ErrorType.INVALID_GZIP, body=body[: -len(body) // 3])

    def _truncated_zlib(self) -> Ping:
        return self._event_with(ErrorType.INVALID_COMPRESSION, body=zlib.compress(self._event_json())[:-4])

    def _unreadable_encoding(self) -> Ping:
        return self._event_with(ErrorType.UNSUPPORTED_ENCODING, body=bz2.compress(self._event_json()))

    def _event_json(self) -> bytes:
        document = self._event().document
        assert not isinstance(document, bytes)
        return document.json()

    def _not_json(self) -> Ping:
        return self._event_with(
            ErrorType.INVALID_JSON, body=SmallDocument(b'{"type": "event", "id": ').gzip()
        )

    def _not_an_object(self) -> Ping:
        return self._event_with(ErrorType.NOT_AN_OBJECT, body=SmallDocument(b'["event"]').gzip())

    def _empty(self) -> Ping:
        return self._event_with(ErrorType.EMPTY_BODY, body=b"")

    def _bomb_ping(self) -> Ping:
        return self._event_with(ErrorType.TOO_COSTLY, body=self._bomb)

    def _unknown_type(self) -> Ping:
        # Neither Firefox's envelope nor Glean's, so that only a schema of its own would do.
        ping = self._event_with(
            ErrorType.UNKNOWN_DOCUMENT_TYPE, body=SmallDocument(b'{"text": "nobody knows me"}').gzip()
        )
        return replace(ping, target=f"/submit/no-such-namespace/no-such-type/1/{ping.document_id}")

    def _unknown_version(self) -> Ping:
        body = SmallDocument(b'{"type": "event", "version": 99, "payload": {}}').gzip()
        return self._event_with(ErrorType.UNKNOWN_DOCUMENT_VERSION, body=body)

    def _invalid_id(self) -> Ping:
        ping = self._event()
        return replace(
            ping,
            expected=f"rejected:{ErrorType.INVALID_DOCUMENT_ID}",
            target=ping.target.replace(ping.document_id, f"{ping.document_id}-copy"),
        )

    def _bare_id(self) -> Ping:
        ping = self._event()
        return replace(
            ping,
            expected=f"rejected:{ErrorType.BARE_DOCUMENT_ID}",
            target=f"/submit/telemetry/{ping.document_id}",
        )

    def _cut_path(self) -> Ping:
        ping = self._event()
        return replace(
            ping,
            expected=f"rejected:{ErrorType.INVALID_PATH}",
            target=f"/submit/telemetry/{ping.document_id}/event/Firefox",
        )

    def _schema_violation(self) -> Ping:
        broken = orjson.dumps({"type": "event", "version": 4, "payload": {"events": "none"}})
        return self._event_with(ErrorType.SCHEMA_VIOLATION, body=SmallDocument(broken).gzip())

    def _invalid_histogram(self) -> Ping:
        rng = self._rng
        client = rng.choice(self._desktops or self._phones)
        document_id = random_uuid(rng)
        text = self._source.main_ping(rng, client, document_id, self._clock()).json()
        broken = (
            b'"histograms":{"GC_MS":{"bucket_count":3,"histogram_type":2,'
            b'"sum":1,"range":[1,2],"values":{"1":0.5}},'
        )
        return Ping(
            document_id,
            "main",
            PingKind.MALFORMED,
            f"rejected:{ErrorType.INVALID_HISTOGRAM}",
            _unified_target(client, document_id, "main"),
            self._unified_headers(client),
            SmallDocument(text.replace(b'"histograms":{', broken, 1)).gzip(),
        )


def _unified_target(client: Client, document_id: str, document_type: str) -> str:
    build = client.application
    return (
        f"/submit/telemetry/{document_id}/{document_type}/{build.name}/{build.version}/{build.channel}/"
        f"{build.build_id}?v=4"
    )
