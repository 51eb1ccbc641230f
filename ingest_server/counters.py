"""The numbers of one node, in memory that its processes share.

The parent maps one anonymous block before it forks; each process owns one row of it and writes
nowhere else, so nothing is locked, and the counts outlive a process that dies. What renders
`/metrics` adds the rows up.
"""

import mmap
from bisect import bisect_left
from typing import Final

from ingest_server.answers import STATUSES

REQUEST_SECONDS_BUCKETS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
COMMIT_SECONDS_BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    0.5,
    2.5,
    10.0,
)

SPOOL_STATES: Final = ("open", "sealed", "unannounced", "damaged")
"""The states of the files in the spool."""

_NAMES: Final = (
    *(f"status_{status}" for status in STATUSES),
    *(f"request_le_{index}" for index in range(len(REQUEST_SECONDS_BUCKETS) + 1)),
    "request_seconds",
    *(f"commit_le_{index}" for index in range(len(COMMIT_SECONDS_BUCKETS) + 1)),
    "commit_seconds",
    "commit_failures",
    "body_bytes",
    "appended_bytes",
    "refusing_status",
    "connections",
    "refused_connections",
    "held_bytes",
    "aborted_requests",
    "shipped_segments",
    "shipped_pings",
    "shipped_bytes",
    "upload_errors",
    "queue_errors",
    "damaged_segments",
    "salvaged_pings",
    "worker_restarts",
    "shipper_restarts",
    "observer_restarts",
    "s3_looks",
    "s3_reachable",
    "sqs_looks",
    "sqs_reachable",
    *(f"spool_{state}_{what}" for state in SPOOL_STATES for what in ("segments", "bytes")),
    "spool_oldest_seconds",
    "spool_before_bytes",
    "spool_free_before_bytes",
    "spool_is_unreadable",
)
INDEX: Final = {name: index for index, name in enumerate(_NAMES)}
FIRST_STATUS: Final = {status: INDEX[f"status_{status}"] for status in STATUSES}
_DOUBLE_BYTES: Final = 8
_ROW: Final = len(_NAMES)


class Counters:
    """The block of a node with `processes` rows, of which this process writes row `row`."""

    def __init__(self, block: mmap.mmap, processes: int, row: int) -> None:
        self._block = block
        self._processes = processes
        view = memoryview(block).cast("d")
        self._all = view
        self.row = view[row * _ROW : (row + 1) * _ROW]
        """This process's numbers; `INDEX` says where each one is."""

    def of_process(self, row: int) -> "Counters":
        """Return the same block, seen by the process that owns `row`."""
        return Counters(self._block, self._processes, row)

    def add(self, name: str, amount: float = 1) -> None:
        """Count something."""
        self.row[INDEX[name]] += amount

    def set(self, name: str, value: float) -> None:
        """Say how something stands."""
        self.row[INDEX[name]] = value

    def total(self, name: str) -> float:
        """Return the sum over all processes."""
        return float(sum(self._all[INDEX[name] :: _ROW]))

    def largest(self, name: str) -> float:
        """Return the largest number of a process."""
        return float(max(self._all[INDEX[name] :: _ROW]))

    def observe_request(self, seconds: float) -> None:
        """Count one answered submission."""
        row = self.row
        row[_REQUEST_FIRST + bisect_left(REQUEST_SECONDS_BUCKETS, seconds)] += 1
        row[_REQUEST_SUM] += seconds

    def observe_commit(self, seconds: float) -> None:
        """Count one group."""
        row = self.row
        row[_COMMIT_FIRST + bisect_left(COMMIT_SECONDS_BUCKETS, seconds)] += 1
        row[_COMMIT_SUM] += seconds


_REQUEST_FIRST: Final = INDEX["request_le_0"]
_REQUEST_SUM: Final = INDEX["request_seconds"]
_COMMIT_FIRST: Final = INDEX["commit_le_0"]
_COMMIT_SUM: Final = INDEX["commit_seconds"]


def shared_counters(processes: int) -> Counters:
    """Return a new block, all zero, seen by the process that owns row 0."""
    return Counters(mmap.mmap(-1, processes * _ROW * _DOUBLE_BYTES), processes, 0)
