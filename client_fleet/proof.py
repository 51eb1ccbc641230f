"""The list of acknowledged pings, kept so that it is complete even when the fleet is killed.

A line of JSON per acknowledgement, written with one `write` before anything else happens::

    {"document_id": "…", "document_type": "main", "kind": "normal", "expected": "live", "path": "/submit/…",
     "status": 200, "attempts": 1, "unanswered": 0, "acknowledged_at": "2026-11-23T14:00:00.123456+00:00"}

`expected` is `live`, `rejected:<error type>` or `none`. `unanswered` counts the attempts before this one
that may have been stored although the client never got a 200 for them. A document id that was
acknowledged `a` times with `u` unanswered attempts in all is in the lake at least `a` and at most `a + u`
times; more would be a doubling of ours, less a loss.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One line of the file."""

    document_id: str
    document_type: str
    kind: str
    expected: str
    path: str
    status: int
    attempts: int
    unanswered: int
    acknowledged_at: str


class ProofFile:
    """Appends to `path`, which must not exist yet; raises FileExistsError otherwise."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)

    def add(self, acknowledgement: Acknowledgement) -> None:
        """Write one line; when this returns, kill -9 no longer loses it."""
        line = orjson.dumps(acknowledgement, option=orjson.OPT_APPEND_NEWLINE)
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(
                f"only {written} of {len(line)} bytes of the proof could be written: is the disk full?"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def read_proof(path: Path) -> Iterator[Acknowledgement]:
    """Return the acknowledgements in `path`, in order."""
    with path.open("rb") as lines:
        for line in lines:
            yield Acknowledgement(**orjson.loads(line))
