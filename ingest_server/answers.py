"""Every answer that the node gives, as docs/ingest_spec.md lists them."""

import errno
from dataclasses import dataclass
from typing import Final

RETRY_AFTER_SECONDS: Final = 60
NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with the sentence that explains it to the sender of the request.

    `ends_connection` is for answers after which the rest of the request cannot be told from the next.
    """

    status: int
    reason: str
    text: str = ""
    extra_headers: str = ""
    content_type: str = "text/plain; charset=utf-8"
    ends_connection: bool = False

    def render(
        self,
        date: str,
        *,
        keeps_open: bool,
        is_http_10: bool,
        without_body: bool = False,
        further_headers: str = "",
    ) -> bytes:
        """Return the bytes of the answer; `date` is the value of its Date header.

        `further_headers` are lines that depend on the request.
        """
        body = self.text.encode()
        connection = ""
        if not keeps_open:
            connection = "Connection: close\r\n"
        elif is_http_10:
            connection = "Connection: keep-alive\r\n"
        # An answer that cannot have a body must not say how long one is (RFC 9110, section 8.6).
        length = "" if self.status == NO_CONTENT else f"Content-Length: {len(body)}\r\n"
        content_type = f"Content-Type: {self.content_type}\r\n" if body else ""
        head = (
            f"HTTP/1.1 {self.status} {self.reason}\r\nDate: {date}\r\n{length}"
            f"{content_type}{self.extra_headers}{further_headers}{connection}\r\n"
        )
        return head.encode("latin-1") + (b"" if without_body else body)


_RETRY_LATER: Final = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

DURABLE: Final = Answer(200, "OK")
TOO_LARGE_DROPPED: Final = Answer(
    202,
    "Accepted",
    "The ping is over a limit and was dropped; there is no need to send it again.\n",
    ends_connection=True,
)
MALFORMED: Final = Answer(
    400,
    "Bad Request",
    "This is not a well-formed HTTP/1.1 request; sending it again cannot help.\n",
    ends_connection=True,
)
NOT_FOUND: Final = Answer(
    404, "Not Found", "Pings are posted to the paths below /submit/ that the ingest specification lists.\n"
)
NOT_SUBMITTED: Final = Answer(
    405, "Method Not Allowed", "Pings are sent with POST or PUT.\n", "Allow: OPTIONS, POST, PUT\r\n"
)
NOT_READ: Final = Answer(
    405, "Method Not Allowed", "This path is read with GET or HEAD.\n", "Allow: GET, HEAD\r\n"
)
LENGTH_REQUIRED: Final = Answer(
    411, "Length Required", "Send Content-Length, or Transfer-Encoding: chunked.\n"
)
BODY_TOO_LARGE: Final = Answer(
    413,
    "Content Too Large",
    "The body is over the limit of this server; a smaller ping is welcome.\n",
    ends_connection=True,
)
TARGET_TOO_LONG: Final = Answer(
    414, "URI Too Long", "The path and query are over the limit of this server.\n", ends_connection=True
)
FIELD_TOO_LARGE: Final = Answer(
    431,
    "Request Header Fields Too Large",
    "The path, the query, Host or all headers together are over the limit of this server.\n",
)
DEFECT: Final = Answer(
    500,
    "Internal Server Error",
    "The server failed; please send the ping again later.\n",
    ends_connection=True,
)
NOT_DURABLE: Final = Answer(
    503, "Service Unavailable", "The ping could not be stored; please send it again later.\n", _RETRY_LATER
)
BUSY: Final = Answer(
    503,
    "Service Unavailable",
    "The server, or what it gives to one client, is used up; please send the ping again later.\n",
    _RETRY_LATER,
    ends_connection=True,
)
DISK_FULL: Final = Answer(
    507,
    "Insufficient Storage",
    "The server has no room left; please send the ping again later.\n",
    _RETRY_LATER,
)

STATUSES: Final = (200, 202, NO_CONTENT, 400, 404, 405, 411, 413, 414, 431, 500, 503, 507)
"""Every final status, in the order of the counters."""

_DISK_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def answer_to(error: OSError) -> Answer:
    """Return the answer to a ping that could not be made durable because of `error`."""
    return DISK_FULL if error.errno in _DISK_FULL_ERRORS else NOT_DURABLE
