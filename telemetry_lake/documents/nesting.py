"""How deep a document may be nested: a limit that no engine which reads documents reaches before.

orjson writes 254 levels, the JSON Schemas are validated down to 255, and scripts of analysts call the
standard library's `json.loads`, which takes a frame of the stack for each level. The bytes are counted by
compiled code (numba) in one pass, so that the answer never depends on how deep the caller stands.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from telemetry_lake.numba_options import Integer, compiled

DOCUMENT_MAX_DEPTH: Final = 200
"""Arrays and objects inside each other, the document itself included. Pings of Firefox have about ten."""

_Text: TypeAlias = NDArray[np.uint8]
_QUOTE = 34
_BACKSLASH = 92
# Both kinds of brackets differ in this bit.
_BRACKET_BIT = 32
_OPEN = 123
_CLOSE = 125
_1 = np.uint64(1)
_2 = np.uint64(2)


def is_nested_too_deep(text: bytes) -> bool:
    """Return whether `text`, which need not be JSON, opens more than `DOCUMENT_MAX_DEPTH` brackets."""
    return bool(_is_deeper(np.frombuffer(text, np.uint8), DOCUMENT_MAX_DEPTH))


@compiled
def _is_deeper(text: _Text, limit: Integer) -> bool:
    depth = 0
    at = np.uint64(0)
    end = np.uint64(text.size)
    while at < end:
        byte = text[at]
        if byte == _QUOTE:
            at += _1
            while at < end and text[at] != _QUOTE:
                at += _2 if text[at] == _BACKSLASH else _1
        elif byte | _BRACKET_BIT == _OPEN:
            depth += 1
            if depth > limit:
                return True
        elif byte | _BRACKET_BIT == _CLOSE:
            depth -= 1
        at += _1
    return False
