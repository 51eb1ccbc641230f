"""A raw object gives back exactly the pings that went in, or says that it is damaged; never less, quietly."""

import errno
import hashlib
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.failures import DamagedRawObject
from telemetry_lake.raw import raw_object
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object

KEY = "raw/v1/2026-11-23/14/node-1/segment.arrows"
MOMENT = datetime(2026, 11, 23, 14, tzinfo=UTC)

PINGS = st.builds(
    RawPing,
    submission_timestamp=st.timedeltas(timedelta(0), timedelta(hours=1)).map(lambda after: MOMENT + after),
    method=st.sampled_from(["POST", "PUT"]),
    path=st.binary(max_size=50),
    query=st.binary(max_size=20),
    protocol=st.just("HTTP/1.1"),
    remote_address=st.just("203.0.113.9"),
    host=st.binary(max_size=20),
    headers=st.lists(st.tuples(st.sampled_from(["date", "dnt"]), st.binary(max_size=20))).map(tuple),
    body=st.binary(max_size=200),
)


def ping(body=b"{}", seconds=0):
    moment = MOMENT + timedelta(seconds=seconds)
    return RawPing(moment, "POST", b"/submit/a/b/1/c", b"", "HTTP/1.1", "203.0.113.9", b"host", (), body)


def promise(pings):
    moments = [ping.submission_timestamp for ping in pings]
    return Promise(len(pings), min(moments), max(moments), "node-1", "segment")


def message_for(data, pings):
    first, last = promise(pings).first_submission_timestamp, promise(pings).last_submission_timestamp
    return IndexMessage(
        bucket="raw",
        key=KEY,
        bytes=len(data),
        ping_count=len(pings),
        sha256=hashlib.sha256(data).hexdigest(),
        first_submission_timestamp=first,
        last_submission_timestamp=last,
    )


in_memory_and_in_a_file = pytest.mark.parametrize("form", [bytes, io.BytesIO])


def read(data):
    rows = [row for batch in RawObject(KEY, data).record_batches() for row in batch.to_pylist()]
    return [
        RawPing(**{**row, "headers": tuple((name, value) for name, value in row["headers"])}) for row in rows
    ]


@in_memory_and_in_a_file
@given(st.lists(PINGS, min_size=1, max_size=20))
def test_pings_come_back_as_they_went_in_and_in_order(form, pings):
    data = write_raw_object(pings, promise(pings))
    assert read(form(data)) == pings
    raw = RawObject(KEY, form(data))
    assert raw.promise == promise(pings)
    assert raw.index_message("raw") == message_for(data, pings)
    raw.verify(message_for(data, pings))
    assert len(list(raw.record_batches())) == 1  # wherever in a file the questions before have left it


def test_record_batches_are_bounded_by_count_and_by_bytes(monkeypatch):
    monkeypatch.setattr(raw_object, "RECORD_BATCH_MAX_PINGS", 3)
    monkeypatch.setattr(raw_object, "RECORD_BATCH_MAX_BODY_BYTES", 10)
    pings = [ping(b"x" * size) for size in (1, 1, 1, 1, 6, 4, 11, 1)]
    data = write_raw_object(pings, promise(pings))
    sizes = [
        [len(row["body"]) for row in batch.select(["body"]).to_pylist()]
        for batch in RawObject(KEY, data).record_batches()
    ]
    assert sizes == [[1, 1, 1], [1, 6], [4], [11], [1]]


def test_a_promise_that_does_not_fit_is_not_written():
    with pytest.raises(ValueError, match="1 pings found, 2 promised"):
        write_raw_object([ping()], Promise(2, MOMENT, MOMENT, "n", "s"))
    with pytest.raises(ValueError, match="submission timestamps"):
        write_raw_object([ping(seconds=1)], Promise(1, MOMENT, MOMENT, "n", "s"))


@in_memory_and_in_a_file
@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 64, b"ARROW1\x00\x00"])
def test_what_is_no_arrow_stream_is_damaged(form, data):
    with pytest.raises(DamagedRawObject, match=KEY):
        RawObject(KEY, form(data))


class FailingFile(io.BytesIO):
    """A file on a disk that fails once all is read."""

    def read(self, size=-1):
        data = super().read(size)
        if self.tell() == len(self.getvalue()):
            raise OSError(errno.EIO, "Input/output error")
        return data


def test_a_file_that_cannot_be_read_is_no_damage():
    data = write_raw_object([ping()], promise([ping()]))
    raw = RawObject(KEY, FailingFile(data))
    with pytest.raises(OSError, match="Input/output error"):
        list(raw.record_batches())


@in_memory_and_in_a_file
@given(st.data())
def test_a_stream_cut_anywhere_is_damaged(form, data):
    pings = [ping(bytes([number]) * 50, seconds=number) for number in range(20)]
    whole = write_raw_object(pings, promise(pings))
    cut = whole[: data.draw(st.integers(0, len(whole) - 9))]
    with pytest.raises(DamagedRawObject):
        list(RawObject(KEY, form(cut)).record_batches())


def test_a_stream_cut_between_two_record_batches_is_damaged(monkeypatch):
    monkeypatch.setattr(raw_object, "RECORD_BATCH_MAX_PINGS", 1)
    two, one = [ping(), ping()], [ping()]
    whole = write_raw_object(two, promise(two))
    shorter = write_raw_object(one, promise(one))
    cut = whole[: len(shorter) - 8]
    with pytest.raises(DamagedRawObject, match="1 pings found, 2 promised"):
        list(RawObject(KEY, cut).record_batches())


@in_memory_and_in_a_file
def test_an_object_that_differs_from_its_index_message_is_damaged(form):
    pings = [ping()]
    data = write_raw_object(pings, promise(pings))
    good = message_for(data, pings)
    for changes, reason in [
        ({"bytes": len(data) + 1}, "bytes"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"ping_count": 2}, "the object says"),
    ]:
        with pytest.raises(DamagedRawObject, match=reason):
            RawObject(KEY, form(data)).verify(good.model_copy(update=changes))


def test_an_object_over_the_limit_is_refused_before_it_is_parsed(monkeypatch):
    data = write_raw_object([ping()], promise([ping()]))
    monkeypatch.setattr(raw_object, "RAW_OBJECT_MAX_BYTES", len(data))
    RawObject(KEY, data)
    monkeypatch.setattr(raw_object, "RAW_OBJECT_MAX_BYTES", len(data) - 1)
    with pytest.raises(DamagedRawObject, match="more than a raw object may hold"):
        RawObject(KEY, data)
