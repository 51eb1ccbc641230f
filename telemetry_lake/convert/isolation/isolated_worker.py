"""The other side of `isolated`: a process that converts what it is told, within limits of memory and time.

It converts something small before its limits are set, so that what all pings need does not count as what one
takes.
"""

import resource
import sys
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.fast_histograms.column import compile_parser
from telemetry_lake.convert.isolation.isolated import Answer, Order
from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import KIB

ERROR_MAX_CHARACTERS: Final = 500
READY: Final = "ready"


def main(descriptor: int) -> None:
    """Convert what comes over the connection `descriptor`, until it is closed."""
    connection = Connection(descriptor)
    settings: Settings = connection.recv()
    converter = Converter(settings.conversion, ObjectStore(settings.s3))
    compile_parser()
    list(converter.convert(_any_raw_object()))
    memory = _data_bytes() + settings.conversion.isolated_memory_max_bytes
    # Not the address space: allocators reserve gigabytes of it that they never use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(READY)
    while True:
        try:
            order: Order = connection.recv()
        except EOFError:
            return
        _limit_cpu(settings.conversion.isolated_cpu_max_seconds)
        connection.send(_answer(converter, order))


def _answer(converter: Converter, order: Order) -> Answer | Exception:
    converter.invented_types = set(order.invented_types)
    try:
        conversions = list(converter.convert_batch(order.raw_key, order.batch, order.position))
    except MemoryError:
        return MemoryError()
    except TelemetryLakeError as error:
        return error
    except Exception as error:  # noqa: BLE001  any error of one ping is to become a row
        return RuntimeError(f"{type(error).__name__}: {error}"[:ERROR_MAX_CHARACTERS])
    return Answer(conversions, frozenset(converter.invented_types))


def _limit_cpu(seconds: int) -> None:
    """End the process when it takes that many more seconds, also when nobody waits for it any more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _data_bytes() -> int:
    """Return how much private memory the process may write to now, as `RLIMIT_DATA` counts it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmData:")).split()[1]) * KIB


def _any_raw_object() -> RawObject:
    """Return a raw object that needs what all of them need."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ping = RawPing(now, "POST", b"/submit/", b"", "HTTP/1.1", "", b"", (), b"{}")
    return RawObject("", write_raw_object([ping], Promise(1, now, now, "", "")))


if __name__ == "__main__":
    main(int(sys.argv[1]))
