"""Where a head ends in bytes that the parser has read and found well-formed, since it does not say."""

import re
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
TAIL_BYTES: Final = len(HEAD_END) - 1
"""How much of the end of a head may be in the read before."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_NOT_BLANK: Final = re.compile(rb"[^\r\n]")


def end_of_head(data: bytes, position: int = 0) -> int:
    """Return where the head ends that `data` has from `position` on."""
    return data.index(HEAD_END, position) + len(HEAD_END)


def start_of_head(data: bytes, position: int) -> int:
    """Return where the head begins at `position` or behind empty lines there, which mean nothing."""
    match = _NOT_BLANK.search(data, position)
    return position if match is None else match.start()


def length_in_head(head: bytes) -> int:
    """Return the value of Content-Length in `head`, 0 without one."""
    match = _LENGTH.search(head)
    return 0 if match is None else int(match[1])
