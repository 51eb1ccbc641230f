"""The form of a segment: what comes back, and what is found after a crash or a bad disk."""

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_server import spool as spool_module
from ingest_server.segment import (
    HEADER_BYTES,
    SALVAGES_MAX,
    new_marker,
    pings,
    record_head,
    scan,
    segment_id,
    split_segment_id,
)
from ingest_server.segment_writer import WRITEV_MAX_BUFFERS, SegmentWriter
from ingest_server.spool import Spool, SpoolInUse

OPENED = datetime(2026, 11, 23, 14, 5, 6, 789, tzinfo=UTC)
MARKER = bytes(range(8))
METADATA = b"\n".join(
    (b"1795442706000789", b"POST", b"/submit/telemetry/abc", b"", b"HTTP/1.1", b"::1", b"host")
)

bodies = st.lists(st.binary(max_size=200), min_size=1, max_size=8)


def record(body: bytes, metadata: bytes = METADATA, marker: bytes = MARKER) -> bytes:
    return record_head(marker, metadata, body) + body


def records(parts: list[bytes]) -> bytes:
    return b"".join(map(record, parts))


def found_bodies(data: bytes) -> list[bytes]:
    return [ping.body for ping in pings(data, scan(data, MARKER).records)]


def test_segment_id_round_trip() -> None:
    text = segment_id(OPENED, 3, MARKER, 42)
    name = split_segment_id(text)
    assert (name.opened, name.worker, name.marker) == (OPENED, 3, MARKER)
    assert split_segment_id(text + "-salvaged") == name
    with pytest.raises(ValueError, match="not the id of a segment"):
        split_segment_id(text[:-1])


def test_metadata_round_trip() -> None:
    metadata = METADATA + b"\nuser-agent\n\xff\xfe\ndate\n\nuser-agent\nagain"
    data = record(b"body", metadata)
    (ping,) = pings(data, scan(data, MARKER).records)
    assert ping.submission_timestamp == datetime(2026, 11, 23, 14, 5, 6, 789, tzinfo=UTC)
    assert ping.headers == ((b"user-agent", b"\xff\xfe"), (b"date", b""), (b"user-agent", b"again"))
    assert (ping.path, ping.query, ping.body) == (b"/submit/telemetry/abc", b"", b"body")


@given(bodies, st.data())
def test_a_file_cut_anywhere_keeps_what_is_complete(parts: list[bytes], data: st.DataObject) -> None:
    whole = records(parts)
    cut = data.draw(st.integers(0, len(whole)))
    found = scan(whole[:cut], MARKER)
    complete = found_bodies(whole[:cut])
    assert complete == parts[: len(complete)]
    assert (found.end + found.torn_bytes, list(found.damaged)) == (cut, [])
    missing = sum(len(record(part)) for part in parts[: len(complete) + 1])
    assert cut < missing or len(complete) == len(parts)


@given(bodies, st.integers(1, 3_000))
def test_blocks_that_were_never_written_are_torn(parts: list[bytes], zeros: int) -> None:
    found = scan(records(parts) + bytes(zeros), MARKER)
    assert (len(found.records), found.torn_bytes, list(found.damaged)) == (len(parts), zeros, [])


@given(bodies, st.data())
def test_one_bad_byte_costs_one_record_and_is_noticed(parts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(records(parts))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    found = scan(bytes(whole), MARKER)
    starts = [len(records(parts[:index])) for index in range(len(parts))]
    bad = max(index for index, start in enumerate(starts) if start <= position)
    assert found_bodies(bytes(whole)) == parts[:bad] + parts[bad + 1 :]
    assert len(found.damaged) == 1
    assert found.torn_bytes == 0


def test_a_body_that_looks_like_a_record_is_not_one() -> None:
    inner = record(b"forged", marker=new_marker())
    assert found_bodies(record(inner)) == [inner]
    damaged = bytearray(record(inner) + record(b"next"))
    damaged[HEADER_BYTES] ^= 1
    assert found_bodies(bytes(damaged)) == [b"next"]


# --- the spool --------------------------------------------------------------------------------


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "node")
    made.prepare()
    return made


def open_segment(spool: Spool, data: bytes, *, worker: int = 0, number: int = 1) -> str:
    name = segment_id(OPENED, worker, MARKER, number)
    spool.open_path(name).write_bytes(data)
    return name


def test_writer_seals_at_its_size(spool: Spool) -> None:
    writer = SegmentWriter(spool, 0, 1_000)
    for size in (400, 400, 400, 100):
        data = record(b"x" * size, marker=writer.marker)
        writer.append([data], len(data), 1)
    (sealed,) = spool.sealed_segments()
    assert sealed.pings == 3
    assert sealed.length == sealed.path.stat().st_size
    assert spool.waiting_open().segments == 1
    writer.seal()
    assert [segment.pings for segment in spool.sealed_segments()] == [3, 1]
    assert spool.waiting_open().segments == 0


def test_writer_takes_more_buffers_than_one_system_call(spool: Spool) -> None:
    writer = SegmentWriter(spool, 0, 1 << 30)
    count = 2 * WRITEV_MAX_BUFFERS + 1
    buffers = [record(b"%d" % number, marker=writer.marker) for number in range(count)]
    writer.append(buffers, sum(map(len, buffers)), count)
    writer.seal()
    (sealed,) = spool.sealed_segments()
    found = scan(sealed.read(), writer.marker)
    assert [ping.body for ping in pings(sealed.read(), found.records)] == [b"%d" % n for n in range(count)]


def test_recovery_cuts_a_torn_tail(spool: Spool) -> None:
    whole = records([b"one", b"two"])
    name = open_segment(spool, whole + record(b"three")[:-1])
    recovered = spool.recover()
    assert (recovered.sealed_segments, recovered.pings, recovered.damaged_segments) == (1, 2, 0)
    (sealed,) = spool.sealed_segments()
    assert (sealed.segment_id, sealed.pings, sealed.read()) == (name, 2, whole)


def test_recovery_drops_what_holds_nothing(spool: Spool) -> None:
    open_segment(spool, b"", number=1)
    open_segment(spool, record(b"never acknowledged")[:-3], number=2)
    assert spool.recover().sealed_segments == 0
    assert spool.waiting_open().segments == spool.waiting_sealed().segments == 0


def test_recovery_leaves_other_workers_alone(spool: Spool) -> None:
    open_segment(spool, record(b"mine"), worker=0)
    open_segment(spool, record(b"another's"), worker=1)
    assert spool.recover(0).pings == 1
    assert spool.waiting_open().segments == 1


@pytest.mark.parametrize("bad", [0, 1, 2], ids=["first", "middle", "last"])
def test_damage_is_set_aside_and_the_rest_salvaged(spool: Spool, bad: int) -> None:
    parts = [b"one", b"two", b"three"]
    data = bytearray(records(parts))
    data[len(records(parts[: bad + 1])) - 1] ^= 1
    name = open_segment(spool, bytes(data))
    recovered = spool.recover()
    assert (recovered.damaged_segments, recovered.salvaged_pings, recovered.sealed_segments) == (1, 2, 0)
    (sealed,) = spool.sealed_segments()
    assert sealed.segment_id == f"{name}-salvaged"
    assert found_bodies(sealed.read()) == parts[:bad] + parts[bad + 1 :]
    (kept,) = spool.damaged_directory.iterdir()
    assert kept.read_bytes() == bytes(data)
    assert spool.waiting_open().segments == 0


def test_a_salvaged_segment_that_is_damaged_is_salvaged_again(spool: Spool) -> None:
    parts = [b"zero", b"one", b"two", b"three", b"four"]
    marker = MARKER
    segment = open_segment(spool, records(parts))
    path = spool.open_path(segment)
    for generation in range(1, SALVAGES_MAX + 2):
        data = bytearray(path.read_bytes())
        data[HEADER_BYTES] ^= 1
        found = scan(bytes(data), marker)
        salvaged = spool.set_aside(path, segment, bytes(data), found, "a test")
        if generation > SALVAGES_MAX:
            assert salvaged == 0
            assert not spool.sealed_segments()
            return
        (sealed,) = spool.sealed_segments()
        path, segment = sealed.path, sealed.segment_id
        assert segment.count("-salvaged") == generation
        assert found_bodies(sealed.read()) == parts[generation:]
        assert salvaged == sealed.pings == len(parts) - generation


def test_salvage_that_was_interrupted_gives_the_same_segment(spool: Spool) -> None:
    data = bytearray(records([b"one", b"two"]))
    data[HEADER_BYTES] ^= 1
    name = open_segment(spool, bytes(data))
    spool.recover()
    (first,) = spool.sealed_segments()
    content = first.read()
    (kept,) = spool.damaged_directory.iterdir()
    kept.rename(spool.open_path(name))
    spool.recover()
    (again,) = spool.sealed_segments()
    assert (again.path, again.read()) == (first.path, content)


def test_a_spool_serves_one_node(spool: Spool) -> None:
    spool.lock()
    with pytest.raises(SpoolInUse, match="another ingest node uses the spool"):
        Spool(spool.directory).lock(wait_seconds=0)


def test_a_segment_whose_directory_was_not_flushed_is_sealed_by_the_next_try(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rename of the first try has happened, and the shipper may have removed the segment since then."""
    writer = SegmentWriter(spool, 0, 1_000_000)
    head = record_head(writer.marker, METADATA, b"")
    writer.append([head], len(head), 1)
    flush = spool_module.sync_directory

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(spool_module, "sync_directory", fail)
    writer.seal()
    assert [record.message for record in caplog.records] == ["segment_not_sealed"]
    monkeypatch.setattr(spool_module, "sync_directory", flush)
    (sealed,) = spool.sealed_segments()
    spool.remove(sealed.path)
    caplog.clear()
    writer.seal_given_up()
    assert not caplog.records
