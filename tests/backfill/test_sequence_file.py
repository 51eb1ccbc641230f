"""SequenceFiles that Hadoop wrote: read whole and in ranges, damaged, cut off and too large."""

import random
import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from lake_testing.hadoop_files import (
    ARCHIVE_FORMS,
    LARGEST_BYTES,
    SMALL_RECORDS,
    Found,
    HadoopFiles,
    problems_of,
    read_file,
    records_of,
    source_at,
)
from lake_testing.historic_archive import FORMS
from telemetry_lake.backfill.archive.sequence_file import HEADER_MAX_BYTES
from telemetry_lake.backfill.archive.source import (
    ProblemKind,
    SourceFile,
    SourceProblem,
    SourceRecord,
    read_records,
    split_points,
)
from telemetry_lake.units import KIB, MIB

SEQUENCE_FORMS = [name for name in FORMS if name.startswith("sequence")]
DAMAGED_FORMS = [name for name in SEQUENCE_FORMS if "-bytes-" not in name] + ["sequence-bytes-none"]
LONG_FORMS = [name for name in ARCHIVE_FORMS if name.startswith("sequence")]
MARKED = ["sequence-bytes-none", "sequence-text-record-default", "sequence-text-block-default"]
"""One form of each layout."""
SEALED = ["sequence-text-block-gzip", "sequence-text-block-default", "sequence-text-block-bzip2"]
"""Forms in which every byte of the records is under a checksum."""


def ranges_of(size: int, cuts: list[int]) -> list[tuple[int, int]]:
    edges = sorted({0, size, *(cut % size for cut in cuts)})
    return list(pairwise(edges))


def read_in_ranges(file: Path, ranges: list[tuple[int, int]]) -> Found:
    one = SourceFile(file.name, file.stat().st_size, file.stat().st_mtime_ns // 1_000_000, None, None)
    source = source_at(file.parent)
    return [found for start, end in ranges for found in read_records(source, one, start, end)]


def rewritten(file: Path, tmp_path: Path, content: bytes) -> Path:
    damaged = tmp_path / file.name
    damaged.write_bytes(content)
    return damaged


def markers(content: bytes) -> list[int]:
    """Where the sync markers behind the header are."""
    end = content.index(b"\xff\xff\xff\xff")
    marker = content[end : end + 20]
    found, at = [], -1
    while (at := content.find(marker, at + 1)) >= 0:
        found.append(at)
    return found


def header_bytes(content: bytes) -> int:
    """Return the length of the header, which ends with the marker."""
    first = markers(content)[0]
    marker = content[first + 4 : first + 20]
    return content.index(marker) + len(marker)


@pytest.mark.parametrize("form", SEQUENCE_FORMS)
def test_every_form_is_read_byte_for_byte(hadoop_files: HadoopFiles, form):
    assert records_of(read_file(hadoop_files.small(form))) == SMALL_RECORDS
    assert problems_of(read_file(hadoop_files.small(form))) == []


@pytest.mark.parametrize("form", LONG_FORMS)
def test_long_files_are_read_byte_for_byte(hadoop_files: HadoopFiles, form):
    found = read_file(hadoop_files.archive(form), form)
    assert problems_of(found) == []
    assert records_of(found) == hadoop_files.records
    places = [(one.offset, one.index) for one in found if isinstance(one, SourceRecord)]
    assert places == sorted(set(places))


@pytest.mark.parametrize("form", MARKED)
@examples(max_examples=25)
@given(cuts=st.lists(st.integers(0, 2**40), max_size=12))
def test_every_cut_gives_every_record_once(hadoop_files: HadoopFiles, form, cuts):
    file = hadoop_files.archive(form)
    whole = read_file(file)
    assert read_in_ranges(file, ranges_of(file.stat().st_size, cuts)) == whole


@pytest.mark.parametrize("form", MARKED)
def test_cuts_beside_and_inside_every_marker(hadoop_files: HadoopFiles, form):
    file = hadoop_files.small(form)
    whole = read_file(file)
    assert len(markers(file.read_bytes())) >= 2
    for cut in range(1, file.stat().st_size):
        assert read_in_ranges(file, ranges_of(file.stat().st_size, [cut])) == whole, cut


def test_units_are_bounded_touch_and_cover_the_file():
    file = SourceFile("part-0", 1_000, 0, None, None)
    assert split_points(file, 400) == [(0, 400), (400, 800), (800, 1_000)]
    assert split_points(file, 1_000) == [(0, 1_000)]
    assert split_points(SourceFile("empty", 0, 0, None, None), 400) == [(0, 0)]
    assert split_points(SourceFile("lines.gz", 1_000, 0, None, None), 400) == [(0, 1_000)]


@pytest.mark.parametrize("form", DAMAGED_FORMS)
def test_a_file_cut_off_anywhere_does_not_pass_in_silence(hadoop_files: HadoopFiles, tmp_path, form):
    content = hadoop_files.small(form).read_bytes()
    silent = []
    for length in range(len(content)):
        found = read_file(rewritten(hadoop_files.small(form), tmp_path, content[:length]), form)
        records = records_of(found)
        assert records == SMALL_RECORDS[: len(records)], length
        if not problems_of(found):
            silent.append((length, len(records)))
    # Only where a record, a block or the header ends: a shorter file is whole then, and looks like one.
    if "block" in form:
        assert [count for _, count in silent] == [0, 3, 5]
    else:
        ends = {count for _, count in silent}
        assert ends == set(range(len(SMALL_RECORDS)))
        assert len(silent) == len(SMALL_RECORDS) + 2  # Once more behind each marker between records.


@pytest.mark.parametrize("form", DAMAGED_FORMS)
def test_a_flipped_bit_anywhere_loses_little_and_says_so(hadoop_files: HadoopFiles, tmp_path, form):
    content = hadoop_files.small(form).read_bytes()
    chance = random.Random(form)
    # Every byte of one form of each layout, every third of the others.
    for at in range(0, len(content), 1 if form in MARKED else 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << chance.randrange(8)
        found = read_file(rewritten(hadoop_files.small(form), tmp_path, bytes(damaged)), form)
        records, problems = records_of(found), problems_of(found)
        if len(records) < len(SMALL_RECORDS):
            assert problems, at
        if form in SEALED:
            assert set(records) <= set(SMALL_RECORDS), at
        # What no checksum covers changes one record at most: the framing around it is checked.
        assert len(set(records) - set(SMALL_RECORDS)) <= 1, at
        if at > markers(content)[0] + 20 and "block" in form:
            assert records[:3] == SMALL_RECORDS[:3] or at < markers(content)[1], at


@pytest.mark.parametrize("form", MARKED)
def test_reading_goes_on_at_the_next_marker(hadoop_files: HadoopFiles, tmp_path, form):
    file = hadoop_files.archive(form)
    content = bytearray(file.read_bytes())
    first, second, third = markers(bytes(content))[1:4]
    offsets = [one.offset for one in read_file(file) if isinstance(one, SourceRecord)]
    # The lengths of a record, or the middle of a block.
    middle = next((at for at in offsets if first + 20 < at < second), (first + second) // 2)
    content[middle : middle + 40] = b"\x7f" * 40
    found = read_file(rewritten(file, tmp_path, bytes(content)), form)
    (problem, *more) = problems_of(found)
    assert problem.kind is ProblemKind.CORRUPT
    assert problem.offset is not None
    assert first <= problem.offset <= middle
    whole = [one for one in read_file(file) if isinstance(one, SourceRecord)]
    lost = [number for number, record in enumerate(whole) if record not in found]
    assert lost == list(range(lost[0], lost[-1] + 1)), "one stretch"
    assert [one for one in found if isinstance(one, SourceRecord)] == [
        record for number, record in enumerate(whole) if number not in lost
    ]
    behind = [one for one in found if isinstance(one, SourceRecord) and one.offset >= second]
    assert behind[0].offset in (second, second + 20)
    assert len(more) <= 1
    # However it is cut, the damage is reported once.
    for cut in (middle, problem.offset + 1, second, third):
        assert read_in_ranges(tmp_path / file.name, ranges_of(len(content), [cut])) == found


def test_what_is_lost_is_said_in_bytes(hadoop_files: HadoopFiles, tmp_path):
    file = hadoop_files.small("sequence-text-none")
    content = bytearray(file.read_bytes())
    first, second = markers(bytes(content))[-2:]
    content[first + 20] = 0x7F  # The length of the first record behind the marker.
    size = int.from_bytes(content[first + 20 : first + 24], "big") + 8
    found = read_file(rewritten(file, tmp_path, bytes(content)))
    assert records_of(found) == [*SMALL_RECORDS[:3], SMALL_RECORDS[-1]]
    assert problems_of(found) == [
        SourceProblem(
            file.name,
            first + 20,
            ProblemKind.CORRUPT,
            f"the file ends inside a record of {size} bytes;"
            f" the {second - first - 20} bytes from {first + 20} to {second} are lost",
        )
    ]


def test_a_damaged_marker_loses_nothing(hadoop_files: HadoopFiles, tmp_path):
    for form in MARKED:
        file = hadoop_files.small(form)
        content = bytearray(file.read_bytes())
        at = markers(bytes(content))[-1]
        content[at + 10] ^= 1
        found = read_file(rewritten(file, tmp_path, bytes(content)))
        assert records_of(found) == SMALL_RECORDS
        ((offset, kind),) = [(one.offset, one.kind) for one in problems_of(found)]
        assert (offset, kind) == (at, ProblemKind.CORRUPT)


@examples(max_examples=60)
@given(garbage=st.binary(max_size=600), at=st.integers(0, 2**20), kept=st.booleans())
@example(garbage=bytes(8), at=34_073, kept=False)
def test_arbitrary_bytes_are_read_to_their_end(
    hadoop_files: HadoopFiles, tmp_path_factory, garbage, at, kept
):
    for form in MARKED:
        content = hadoop_files.small(form).read_bytes()
        place = at % len(content)
        damaged = content[:place] + garbage + (content[place:] if kept else b"")
        file = tmp_path_factory.getbasetemp() / "garbage"
        file.write_bytes(damaged)
        found = read_file(file)
        # A file that ends with its header is whole, whatever its marker is.
        if damaged not in (content, content[:place]) and len(damaged) != header_bytes(content):
            assert problems_of(found) or len(records_of(found)) >= 1
        assert len(records_of(found)) <= len(SMALL_RECORDS) + len(garbage)


# --- Limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", LONG_FORMS)
def test_a_record_over_the_limit_is_left_out_alone(hadoop_files: HadoopFiles, form):
    found = read_file(hadoop_files.archive(form), form, record_max_bytes=MIB)
    expected = [record for record in hadoop_files.records if len(record[1]) <= MIB]
    assert len(expected) == len(hadoop_files.records) - 2
    assert records_of(found) == expected
    assert {problem.kind for problem in problems_of(found)} == {ProblemKind.TOO_LARGE}
    assert len(problems_of(found)) == 2
    assert all(str(MIB) in problem.message for problem in problems_of(found))


def test_a_record_at_the_limit_is_read(hadoop_files: HadoopFiles):
    for form in LONG_FORMS:
        largest = LARGEST_BYTES + len(b"larger")
        found = read_file(hadoop_files.archive(form), form, record_max_bytes=largest)
        assert records_of(found) == hadoop_files.records, form
        found = read_file(hadoop_files.archive(form), form, record_max_bytes=largest - 1)
        assert records_of(found) == hadoop_files.records[:-1], form
        assert [problem.kind for problem in problems_of(found)] == [ProblemKind.TOO_LARGE], form


def test_a_block_that_becomes_too_large_is_left_out_alone(hadoop_files: HadoopFiles):
    for codec in ("default", "gzip", "snappy", "bzip2"):
        found = read_file(hadoop_files.archive(f"sequence-text-block-{codec}"), block_max_bytes=1_250_000)
        assert [problem.kind for problem in problems_of(found)] == [ProblemKind.TOO_LARGE]
        assert "1250000" in problems_of(found)[0].message
        assert records_of(found) == hadoop_files.records[:-1]


# --- Headers -----------------------------------------------------------------------------------------


def header_of(
    *,
    magic: bytes = b"SEQ\x06",
    key: str = "org.apache.hadoop.io.Text",
    value: str = "org.apache.hadoop.io.Text",
    flags: bytes = b"\x00\x00",
    codec: str = "",
    entries: int = 0,
    metadata: bytes = b"",
) -> bytes:
    texts = b"".join(bytes([len(text)]) + text.encode() for text in (key, value))
    codec_text = bytes([len(codec)]) + codec.encode() if codec else b""
    return magic + texts + flags + codec_text + struct.pack(">i", entries) + metadata + b"s" * 16


@pytest.mark.parametrize(
    "header, kind, says",
    [
        (b"", ProblemKind.EMPTY_FILE, "0 bytes"),
        (b"\x1f\x8b\x08\x00 no SequenceFile", ProblemKind.BAD_HEADER, "1f 8b 08 00"),
        (header_of(magic=b"SEQ\x04"), ProblemKind.BAD_HEADER, "version 4"),
        (header_of(value="org.example.Thrift"), ProblemKind.BAD_HEADER, "org.example.Thrift"),
        (header_of(key="org.apache.hadoop.io.LongWritable"), ProblemKind.BAD_HEADER, "LongWritable"),
        (header_of(flags=b"\x02\x00"), ProblemKind.BAD_HEADER, "0 or 1"),
        (header_of(flags=b"\x00\x01"), ProblemKind.BAD_HEADER, "blocks"),
        (header_of(entries=-1), ProblemKind.BAD_HEADER, "-1 entries"),
        (header_of(entries=2**31 - 1), ProblemKind.BAD_HEADER, "2147483647 entries"),
        (
            header_of(entries=1, metadata=b"\x01k" + b"\x8d\x04\x00\x00" + bytes(HEADER_MAX_BYTES)),
            ProblemKind.BAD_HEADER,
            f"longer than {HEADER_MAX_BYTES}",
        ),
        (header_of(entries=3), ProblemKind.TRUNCATED, "inside its header"),
        *(
            (
                header_of(flags=b"\x01\x01", codec=f"org.apache.hadoop.io.compress.{name}"),
                ProblemKind.UNREADABLE_CODEC,
                name,
            )
            for name in ("Lz4Codec", "ZStandardCodec", "LzoCodec")
        ),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, header, kind, says):
    file = tmp_path / "part-00000"
    file.write_bytes(header)
    (problem,) = read_file(file)
    assert isinstance(problem, SourceProblem)
    assert (problem.path, problem.offset, problem.kind) == ("part-00000", 0, kind)
    assert says in problem.message


def test_a_header_with_metadata_and_no_records(tmp_path):
    file = tmp_path / "part-00000"
    file.write_bytes(header_of(entries=2, metadata=b"\x01k\x02vv" * 2))
    assert read_file(file) == []


def test_memory_stays_the_same_however_long_the_file_is(hadoop_files: HadoopFiles, tmp_path):
    file = hadoop_files.archive("sequence-text-none")
    content = file.read_bytes()
    end = content.index(b"\xff\xff\xff\xff")
    marker = content[end : end + 20]
    long = tmp_path / "long"
    with long.open("wb") as out:
        out.write(content)
        for _ in range(5):
            out.write(marker + content[content.index(marker) :])
    source = source_at(tmp_path)
    one = SourceFile("long", long.stat().st_size, long.stat().st_mtime_ns // 1_000_000, None, None)
    tracemalloc.start()
    count = sum(1 for _ in read_records(source, one, 0, one.bytes))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 6 * 250
    assert peak < 8 * MIB < one.bytes
    assert peak > KIB
