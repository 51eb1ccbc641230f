"""How fast this machine is at this moment, by three pieces of work that never change.

The same benchmark gives other figures on another machine, and on a shared machine in another hour. Each
result therefore has the yardstick of its own run, and figures of two days are compared as multiples of it.
All three are milliseconds of processor time, the fastest of several rounds.
"""

import json
import random
import time
import zlib
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

ROUNDS = 15
LOOP_STEPS = 200_000
DOCUMENT_MEMBERS = 2_000
SEED = 2013


class Yardstick(BaseModel):
    """Milliseconds of processor time of each piece of work. A change of the work invalidates old results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python_loop_ms: float
    """A loop of 200,000 additions in Python."""
    json_loads_ms: float
    """`json.loads` of a fixed document of 2,000 members."""
    inflate_ms: float
    """`zlib.decompress` of the same document."""

    def faster(self, other: "Yardstick") -> "Yardstick":
        """Return the smaller figure of both for each piece of work."""
        return Yardstick(
            python_loop_ms=min(self.python_loop_ms, other.python_loop_ms),
            json_loads_ms=min(self.json_loads_ms, other.json_loads_ms),
            inflate_ms=min(self.inflate_ms, other.inflate_ms),
        )


def measure_yardstick() -> Yardstick:
    """Do each piece of work some times; takes less than a second."""
    document = fixed_document()
    compressed = zlib.compress(document, level=6)
    return Yardstick(
        python_loop_ms=_fastest_ms(_loop),
        json_loads_ms=_fastest_ms(lambda: json.loads(document)),
        inflate_ms=_fastest_ms(lambda: zlib.decompress(compressed)),
    )


def fixed_document() -> bytes:
    """Return the JSON document of the yardstick, the same bytes on every machine."""
    chance = random.Random(SEED)
    members = {
        f"MEMBER_{number}": {
            "sum": chance.randrange(1 << 30),
            "values": {str(chance.randrange(1_000)): chance.randrange(10_000) for _ in range(8)},
        }
        for number in range(DOCUMENT_MEMBERS)
    }
    return json.dumps(members, separators=(",", ":")).encode()


def _loop() -> int:
    total = 0
    for number in range(LOOP_STEPS):
        total += number & 7
    return total


def _fastest_ms(work: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        rounds.append(time.process_time() - start)
    return round(min(rounds) * 1e3, 3)
