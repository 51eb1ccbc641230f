"""What web pages of other origins need to read in an answer (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

import re
from collections.abc import Sequence
from typing import Final

from ingest_server.answers import NO_CONTENT, Answer

EVERY_ORIGIN: Final = "*"
PREFLIGHT_MAX_AGE_SECONDS: Final = 86_400
"""How long a browser may remember a preflight's answer; Chromium does so for two hours at most."""
REQUESTED_HEADERS_MAX_BYTES: Final = 1_024

_TOKENS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class CrossOrigin:
    """Which origins may read the answers to submissions, and the header lines that say so.

    `default` are the lines for a request whose origin is not known. `reads_origin` is whether they depend on
    the origin at all.
    """

    __slots__ = ("_lines", "default", "reads_origin")

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        allows_every_origin = EVERY_ORIGIN in allowed_origins
        self.reads_origin = bool(allowed_origins) and not allows_every_origin
        self.default = ""
        self._lines: dict[bytes, str] = {}
        if allows_every_origin:
            self.default = _allow(EVERY_ORIGIN)
        elif allowed_origins:
            # A cache must not give one origin's answer to another.
            self.default = "Vary: Origin\r\n"
            self._lines = {origin.encode(): _allow(origin) + self.default for origin in allowed_origins}

    def lines(self, origin: bytes) -> str:
        """Return the header lines for a request of a page of `origin`."""
        return self._lines.get(origin, self.default)


NO_OTHER_ORIGIN: Final = CrossOrigin(())
"""For what no page of another origin may read."""


def preflight(requested_headers: bytes) -> Answer:
    """Return the answer to OPTIONS on a submission's path.

    Any header may be sent: `requested_headers` are allowed as they were asked for, unless they are no list
    of names.
    """
    lines = (
        "Allow: OPTIONS, POST, PUT\r\n"
        "Access-Control-Allow-Methods: POST, PUT\r\n"
        f"Access-Control-Max-Age: {PREFLIGHT_MAX_AGE_SECONDS}\r\n"
    )
    if len(requested_headers) <= REQUESTED_HEADERS_MAX_BYTES and _TOKENS.fullmatch(requested_headers):
        lines += f"Access-Control-Allow-Headers: {requested_headers.decode('ascii')}\r\n"
    return Answer(NO_CONTENT, "No Content", extra_headers=lines)


def _allow(origin: str) -> str:
    return f"Access-Control-Allow-Origin: {origin}\r\n"
