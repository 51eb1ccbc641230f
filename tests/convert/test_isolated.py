"""Pings that end the process that converts them: each is found, and no other is lost."""

import signal
from contextlib import contextmanager
from multiprocessing import Pipe

import pyarrow as pa
import pytest

from lake_testing.ping_builders import (
    generic_path,
    gzipped,
    ping,
    raw_object,
    rows_of,
    telemetry_path,
    unified_document,
)
from lake_testing.ping_builders import settings as conversion_settings
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.isolation.isolated import IsolatedConverter, Order, _Worker
from telemetry_lake.convert.isolation.isolated_worker import _answer
from telemetry_lake.failures import ErrorType, FatalError, PingRejected, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.units import MIB

GREETING = generic_path("lake-demo", "greeting")
BOMB = gzipped(b'{"text":"","x":[' + b"{}," * 2_700_000 + b"{}]}")
"""Some kilobytes that become 2.7 million Python objects when the values of a document have no limit."""
GOOD = [
    ping(telemetry_path("main"), unified_document()),
    ping(GREETING, {"text": "hello"}),
    ping(GREETING, b"{"),
]


def without_limits(**changes):
    limits = {"document_max_values": 10**9, "document_max_expansion": 10**6, **changes}
    return Settings(conversion=conversion_settings(**limits))


def isolated_rows(settings, pings):
    with IsolatedConverter(settings, Converter(settings.conversion)) as isolated:
        return rows_of(isolated.convert(raw_object(pings)))


def test_rows_are_those_of_the_usual_conversion():
    pings = GOOD * 200
    converter = Converter(conversion_settings())
    assert isolated_rows(Settings(conversion=conversion_settings()), pings) == rows_of(
        converter.convert(raw_object(pings))
    )


@pytest.mark.parametrize(
    "limits, why",
    [
        ({"isolated_memory_max_bytes": 64 * MIB}, "64 MiB of memory"),
        ({"isolated_cpu_max_seconds": 1, "document_max_bytes": 64 * MIB}, "it took more than 1 s"),
    ],
    ids=["memory", "time"],
)
def test_a_ping_that_takes_too_much_is_rejected_and_no_other(limits, why):
    settings = without_limits(**limits)
    bomb = BOMB if "64" in why else gzipped(b'{"text":"","x":[' + b'{"a":{}},' * 6_000_000 + b"{}]}")
    pings = [*GOOD, ping(GREETING, bomb), *GOOD]
    live, rejected = isolated_rows(settings, pings)
    assert [row["raw_object_position"] for row in live] == [0, 1, 4, 5]
    assert [(row["raw_object_position"], row["error_type"]) for row in rejected] == [
        (2, "invalid_json"),
        (3, "too_costly"),
        (6, "invalid_json"),
    ]
    costly = rejected[1]
    assert costly["stage"] == "convert"
    assert why in costly["error_message"]
    assert costly["body"] == bomb
    assert (costly["namespace"], costly["document_type"]) == ("lake-demo", "greeting")


def test_types_that_clients_invent_are_counted_over_all_pings_of_a_raw_object():
    settings = without_limits(invented_types_max_count=1, isolated_memory_max_bytes=64 * MIB)
    invented = [ping(telemetry_path(name), unified_document(name)) for name in ("a", "b", "a")]
    live, rejected = isolated_rows(settings, [*invented, ping(GREETING, BOMB)])
    assert [row["document_type"] for row in live] == ["a", "a"]
    assert [row["error_type"] for row in rejected] == ["unknown_document_type", "too_costly"]


def test_a_defect_of_the_conversion_rejects_the_ping_that_meets_it():
    def broken(text, rows):
        raise TypeError("this converter has a mistake")

    converter = Converter(conversion_settings(), read_histograms=broken)
    answer = _answer(converter, order())
    assert str(answer) == "TypeError: this converter has a mistake"
    with (
        worker_that_answers(answer) as worker,
        pytest.raises(PingRejected, match="TypeError: this converter has a mistake") as failure,
    ):
        worker.convert(order())
    assert failure.value.error_type is ErrorType.CONVERSION_FAILED


def test_what_is_not_about_one_ping_is_raised():
    with (
        worker_that_answers(RetriableError("S3 does not answer")) as worker,
        pytest.raises(RetriableError, match="S3 does not answer"),
    ):
        worker.convert(order())


def test_workers_that_cannot_start_are_no_fault_of_a_ping(tmp_path):
    settings = Settings(conversion=conversion_settings())
    broken = settings.conversion.model_copy(update={"schemas_directory": tmp_path})
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "wrong.json").write_text("{}")
    with (
        IsolatedConverter(
            settings.model_copy(update={"conversion": broken}), Converter(settings.conversion)
        ) as isolated,
        pytest.raises(FatalError, match="did not start"),
    ):
        list(isolated.convert(raw_object(GOOD)))


def test_no_process_is_left():
    settings = Settings(conversion=conversion_settings())
    with IsolatedConverter(settings, Converter(settings.conversion)) as isolated:
        list(isolated.convert(raw_object(GOOD)))
        assert isolated._worker is not None
        worker = isolated._worker._process
        assert worker.poll() is None
    assert worker.returncode == -signal.SIGKILL


def order():
    (batch,) = raw_object(GOOD[:1]).record_batches()
    assert isinstance(batch, pa.RecordBatch)
    return Order("raw", 0, batch, frozenset())


@contextmanager
def worker_that_answers(answer):
    """What looks like a worker from outside, and gives this answer."""
    ours, its = Pipe()
    with its:
        its.send(answer)
        worker = _Worker.__new__(_Worker)
        worker._connection, worker._cpu_seconds, worker._memory_bytes = ours, 1, MIB
        yield worker
