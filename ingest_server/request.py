"""One request: what its head says, whether it is refused before its body is read, and its body.

llhttp parses; what is here decides. The order of the checks is that of docs/ingest_spec.md.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import httptools

from ingest_server import answers
from ingest_server.answers import Answer
from ingest_server.authority import is_authority
from ingest_server.clients import Client
from ingest_server.cross_origin import CrossOrigin, preflight
from telemetry_lake.settings import IngestSettings

HEAD_MAX_BYTES: Final = 64 * 1024
"""All header lines of a request: name, value and four bytes for each."""
HEAD_MAX_LINES: Final = 128
CHUNK_OVERHEAD_MAX_BYTES: Final = 64 * 1024
CHUNK_OVERHEAD_MAX_RATIO: Final = 8
"""Sizes, extensions and trailers of a chunked body may have CHUNK_OVERHEAD_MAX_BYTES, and this many bytes
more for each byte of the body. Chunks of one byte cost five each, which is wasteful and allowed."""
INCOMPLETE_OBJECTS_BYTES: Final = 20 * 1024
"""What an incomplete request of HEAD_MAX_LINES lines takes besides their bytes: 150 for each line."""
HEADER_SPELLINGS_MAX: Final = 512
"""How many spellings of header names a worker remembers."""
HOSTS_MAX: Final = 512
"""How many valid hosts a worker remembers."""
LEFT_OUT: Final = b":left-out"
"""The name under which a ping notes the captured headers that were too long to be kept. No client can send a
header of this name."""

_LINE_OVERHEAD_BYTES: Final = len(": \r\n")
_SLASH: Final = ord("/")
_SCHEME_AND_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)")
_HTTP_10: Final = b"HTTP/1.0"
_PROTOCOLS: Final = {"1.1": b"HTTP/1.1", "1.0": _HTTP_10}


class _Special(Enum):
    """A header that decides how its request is read."""

    HOST = "host"
    LENGTH = "content-length"
    CODING = "transfer-encoding"
    EXPECT = "expect"
    FORWARDED = "x-forwarded-for"
    ORIGIN = "origin"
    REQUESTED = "access-control-request-headers"


_SPECIAL: Final = {special.value.encode(): special for special in _Special}
_HOST, _LENGTH, _CODING, _EXPECT, _FORWARDED, _ORIGIN, _REQUESTED = _Special


@dataclass(frozen=True, slots=True)
class _HeaderKind:
    """What one spelling of a header's name means."""

    lower: bytes
    is_captured: bool
    max_bytes: int
    special: _Special | None


class HeadRules:
    """What every request's head is judged by.

    `pages` are the paths that are read, with what makes their answer, and `is_submission` says which paths
    pings are sent to. `cross_origin` says which web pages may read the answers to these. `kinds` remembers
    what each spelling of a header's name means, and `hosts` which hosts are valid.
    """

    __slots__ = (
        "_captured",
        "_is_behind_proxies",
        "cross_origin",
        "hosts",
        "is_submission",
        "kinds",
        "pages",
        "settings",
    )

    def __init__(
        self,
        settings: IngestSettings,
        pages: Mapping[bytes, Callable[[], Answer]],
        is_submission: Callable[[str], bool],
        cross_origin: CrossOrigin,
        *,
        is_behind_proxies: bool,
    ) -> None:
        self.settings = settings
        self.cross_origin = cross_origin
        self.hosts: set[bytes] = set()
        self.pages = pages
        self.is_submission = is_submission
        self.kinds: dict[bytes, _HeaderKind] = {}
        self._is_behind_proxies = is_behind_proxies
        self._captured = {name.lower().encode() for name in settings.captured_headers}

    def kind(self, name: bytes) -> _HeaderKind:
        """Return what a spelling of a header's name means that `kinds` does not have, and remember it."""
        lower = name.lower()
        special = _SPECIAL.get(lower)
        max_bytes = self.settings.max_captured_field_bytes
        if special is _FORWARDED:
            # Proxies add to it, which the client can neither see nor change.
            max_bytes = HEAD_MAX_BYTES
            special = special if self._is_behind_proxies else None
        elif special is _ORIGIN and not self.cross_origin.reads_origin:
            special = None
        kind = _HeaderKind(lower, lower in self._captured, max_bytes, special)
        if len(self.kinds) < HEADER_SPELLINGS_MAX:
            self.kinds[name] = kind
        return kind

    def is_host(self, text: bytes) -> bool:
        """Return whether `text` may be the value of Host, and remember it when it may."""
        if text in self.hosts:
            return True
        is_valid = is_authority(text)
        if is_valid and len(self.hosts) < HOSTS_MAX:
            self.hosts.add(text)
        return is_valid

    def too_large(self, answer: Answer) -> Answer:
        """Return `answer`, or 202 in its place where the settings say so."""
        return answers.TOO_LARGE_DROPPED if self.settings.answer_too_large_with_202 else answer


class Request:
    """A request while it is read; its connection adds what the parser finds."""

    __slots__ = (
        "began_seconds",
        "body",
        "body_bytes",
        "client",
        "cross_origin_headers",
        "discarded_bytes",
        "expects_continue",
        "fields",
        "forwarded_for",
        "has_body_deadline",
        "has_head",
        "has_head_deadline",
        "held_bytes",
        "host",
        "incomplete_bytes",
        "is_chunked",
        "is_continued",
        "is_http_10",
        "keeps_open",
        "length",
        "lines",
        "method",
        "path",
        "protocol",
        "query",
        "reads_page",
        "refusal",
        "requested_headers",
        "target",
    )

    protocol: bytes
    method: bytes
    path: bytes
    query: bytes
    is_http_10: bool
    host: bytes
    fields: list[bytes]
    """Names and values of the captured headers, in turns; last, under LEFT_OUT, the names of those that were
    too long."""
    cross_origin_headers: str
    """The lines of its answer that let a page of another origin read it."""
    requested_headers: bytes
    """The value of Access-Control-Request-Headers."""
    forwarded_for: tuple[bytes, ...]
    """The values of X-Forwarded-For, when proxies of our own stand before the node."""
    length: int | None
    """Its Content-Length."""
    is_chunked: bool
    expects_continue: bool
    reads_page: bool
    refusal: Answer | None
    """The answer that it gets whatever its body is."""
    keeps_open: bool
    """Whether the connection stays open after its answer; known when the request is complete."""

    def __init__(self, client: Client) -> None:
        # What `judge` finds out is set there only: a request is made for every ping.
        self.client = client
        """Whose memory it takes: the connection's client, until the head says that it is another one."""
        self.held_bytes = 0
        """What is counted as held for it."""
        self.began_seconds = time.perf_counter()
        self.is_continued = False
        """Whether it did not end in the read in which it began."""
        self.has_head_deadline = self.has_body_deadline = False
        """Whether the deadline of its connection is that of its head, of its body."""
        self.incomplete_bytes = 0
        """What came for its head, or later for its body, in reads behind the one in which it began."""
        self.lines: list[tuple[bytes, bytes]] = []
        self.target = b""
        self.has_head = False
        self.body: bytes | bytearray = b""
        self.body_bytes = 0
        """What of the body was read to be kept; more than `body` holds when it is over the limit."""
        self.discarded_bytes = 0
        """What of the body was read and dropped."""

    def judge(self, rules: HeadRules, parser: httptools.HttpRequestParser, read_bytes: int) -> Answer | None:
        """Return the answer to a request that is refused for its head, None when it is not.

        `read_bytes` is the size of the read in which the head ends.
        """
        settings = rules.settings
        self.reads_page = False
        self.cross_origin_headers = rules.cross_origin.default
        protocol = _PROTOCOLS.get(parser.get_http_version())
        fault = self._read_lines(rules, read_bytes, needs_host=protocol is not _HTTP_10)
        if protocol is None or fault is answers.MALFORMED or parser.should_upgrade():
            return answers.MALFORMED
        self.protocol = protocol
        self.is_http_10 = protocol is _HTTP_10
        if self.is_http_10:
            # It knows neither chunks nor interim answers.
            if self.is_chunked:
                return answers.MALFORMED
            self.expects_continue = False
        self.method = method = parser.get_method()
        target = self.target
        if len(target) > settings.max_path_bytes:
            return rules.too_large(answers.TARGET_TOO_LONG)
        if target[0] != _SLASH and (absolute := _SCHEME_AND_AUTHORITY.match(target)) is not None:
            # It says to whom the request is addressed, whatever Host says (RFC 9112, section 3.2.2).
            self.host = absolute[1]
            if not self.host or not rules.is_host(self.host):
                return answers.MALFORMED
            target = target[absolute.end() :]
            target = target if target.startswith(b"/") else b"/" + target
        self.path, _, self.query = target.partition(b"?")
        most = settings.max_captured_field_bytes
        if fault is not None or len(self.path) > most or len(self.query) > most or len(self.host) > most:
            return answers.FIELD_TOO_LARGE
        if not rules.is_submission(self.path.decode("latin-1")):
            if self.path not in rules.pages:
                return answers.NOT_FOUND
            self.reads_page = True
            self.cross_origin_headers = ""
            return None if method in (b"GET", b"HEAD") else answers.NOT_READ
        if method not in (b"POST", b"PUT"):
            return preflight(self.requested_headers) if method == b"OPTIONS" else answers.NOT_SUBMITTED
        if self.length is None:
            return None if self.is_chunked else answers.LENGTH_REQUIRED
        if self.length > settings.max_body_bytes:
            return rules.too_large(answers.BODY_TOO_LARGE)
        return None

    def _read_lines(self, rules: HeadRules, read_bytes: int, *, needs_host: bool) -> Answer | None:
        """Take what is needed from the header lines.

        Returns MALFORMED, or FIELD_TOO_LARGE when there are too many of them, or None.
        """
        kinds = rules.kinds
        lines, self.lines = self.lines, []
        fields: list[bytes] = []
        left_out: list[bytes] = []
        forwarded_for: tuple[bytes, ...] = ()
        host: bytes | None = None
        requested_headers = b""
        length: int | None = None
        is_chunked = expects_continue = is_malformed = False
        is_large = len(lines) > HEAD_MAX_LINES
        # A head that came in one read that is smaller than the limit is within it.
        if read_bytes > HEAD_MAX_BYTES or self.is_continued:
            total = sum(len(name) + len(value) for name, value in lines) + _LINE_OVERHEAD_BYTES * len(lines)
            is_large = is_large or total > HEAD_MAX_BYTES
        for name, value in lines:
            kind = kinds.get(name) or rules.kind(name)
            special = kind.special
            if special is None and not kind.is_captured:
                continue
            stripped = value.strip(b" \t")
            if kind.is_captured:
                if len(stripped) <= kind.max_bytes:
                    fields.append(kind.lower)
                    fields.append(stripped)
                elif kind.lower not in left_out:
                    left_out.append(kind.lower)
                if special is None:
                    continue
            if special is _HOST:
                is_malformed = is_malformed or host is not None or not rules.is_host(stripped)
                host = stripped
            elif special is _LENGTH:
                length = int(stripped)
            elif special is _CODING:
                is_malformed = is_malformed or is_chunked or stripped.lower() != b"chunked"
                is_chunked = True
            elif special is _EXPECT:
                expects_continue = stripped.lower() == b"100-continue"
            elif special is _FORWARDED:
                forwarded_for = (*forwarded_for, stripped)
            elif special is _ORIGIN:
                self.cross_origin_headers = rules.cross_origin.lines(stripped)
            elif special is _REQUESTED:
                requested_headers = stripped
        if left_out:
            fields.append(LEFT_OUT)
            fields.append(b", ".join(left_out))
        self.fields = fields
        self.forwarded_for = forwarded_for
        self.host = host or b""
        self.requested_headers = requested_headers
        self.length = length
        self.is_chunked = is_chunked
        self.expects_continue = expects_continue
        if is_malformed or (host is None and needs_host):
            return answers.MALFORMED
        return answers.FIELD_TOO_LARGE if is_large else None

    def head_bytes(self) -> int:
        """Return what is kept of the head."""
        return len(self.path) + len(self.query) + len(self.host) + sum(map(len, self.fields))

    def refusal_of_rest(self, rules: HeadRules, read_bytes: int) -> Answer | None:
        """Return the answer to a request that is over a limit before it ends, None when it is not.

        Called after each read, of `read_bytes`, that leaves the request incomplete. The read in which it
        began is not counted: it may have held other requests before it.
        """
        if len(self.lines) > HEAD_MAX_LINES:
            return self._long_head(rules)
        if not self.is_continued:
            return None
        self.incomplete_bytes += read_bytes
        if not self.has_head:
            if self.incomplete_bytes > HEAD_MAX_BYTES + rules.settings.max_path_bytes:
                return self._long_head(rules)
        elif self.is_chunked:
            body_bytes = self.body_bytes + self.discarded_bytes
            overhead = self.incomplete_bytes - body_bytes
            if overhead > CHUNK_OVERHEAD_MAX_BYTES + CHUNK_OVERHEAD_MAX_RATIO * body_bytes:
                return answers.MALFORMED
        return None

    def _long_head(self, rules: HeadRules) -> Answer:
        """Return the answer to a head that is over its limit before it ends; the order is that of `judge`."""
        if len(self.target) > rules.settings.max_path_bytes:
            return rules.too_large(answers.TARGET_TOO_LONG)
        return answers.FIELD_TOO_LARGE
