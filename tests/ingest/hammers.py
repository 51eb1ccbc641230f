"""Clients that hammer a node, and the proof that nothing they were promised is lost or doubled."""

import contextlib
import http.client
import random
import threading
from dataclasses import dataclass, field
from typing import Final

from lake_testing.stack import Lake, wait_until
from tests.ingest.running_node import RunningNode
from tests.ingest.shipped import read_shipped

HAMMERS: Final = 4
SEED: Final = 20_261_123


@dataclass
class Hammers:
    """Clients that send pings one after another until they are stopped; none sends a document id twice."""

    port: int
    acknowledged: set[bytes] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(HAMMERS):
            self._threads.append(threading.Thread(target=self._run, args=(number,)))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Until `count` more pings are acknowledged."""
        enough = len(self.acknowledged) + count
        wait_until(
            lambda: len(self.acknowledged) >= enough,
            deadline_seconds=60,
            what=f"{count} more acknowledgements",
        )

    def _run(self, number: int) -> None:
        sizes = random.Random(SEED + number)
        sent = 0
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.suppress(OSError, http.client.HTTPException):
                while not self._stop.is_set():
                    sent += 1
                    path = f"/submit/telemetry/{number}-{sent}"
                    connection.request("POST", path, body=b"x" * sizes.choice((10, 1_000, 8_000)))
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses.add(answer.status)
                    if answer.status == 200:
                        self.acknowledged.add(path.encode())
                    # A pace that the shipper keeps up with on a busy machine.
                    self._stop.wait(0.002 if answer.status == 200 else 0.05)
            connection.close()
            # Nobody listens while the node starts again.
            self._stop.wait(0.01)


def wait_until_shipped(node: RunningNode) -> None:
    wait_until(
        lambda: (
            node.spool.waiting_open().segments
            + node.spool.waiting_sealed().segments
            + node.spool.waiting_unannounced().segments
            == 0
        ),
        deadline_seconds=120,
        what="everything is shipped",
    )


def assert_nothing_lost_or_doubled(lake: Lake, node: RunningNode, hammers: Hammers) -> None:
    """After the hammers and the node have stopped and the spool is shipped."""
    assert node.spool.waiting_open().segments == node.spool.waiting_sealed().segments == 0, node.log()[
        -2_000:
    ]
    assert node.spool.set_aside_already().segments == 0
    paths = read_shipped(lake).paths
    assert hammers.acknowledged <= set(paths), "acknowledged pings are missing"
    assert {path: count for path, count in paths.items() if count != 1} == {}, "pings are doubled"
