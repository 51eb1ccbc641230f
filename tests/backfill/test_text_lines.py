"""Lines of text that Hadoop wrote: plain and compressed, in ranges, damaged, cut off and too long."""

import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from lake_testing.hadoop_files import (
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
from telemetry_lake.backfill.archive.source import (
    ProblemKind,
    SourceFile,
    SourceRecord,
    read_records,
    split_points,
)
from telemetry_lake.units import MIB

LINE_FORMS = [name for name in FORMS if name.startswith("lines")]
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "lines-gzip": gzip.compress,
    "lines-bzip2": bz2.compress,
    "lines-xz": lzma.compress,
}
TEXT = b"".join(name + b"\t" + content + b"\n" for name, content in SMALL_RECORDS)


def read_text(directory: Path, content: bytes, name: str = "part-00000", **limits: int) -> Found:
    file = directory / name
    file.write_bytes(content)
    return read_file(file, "lines", **limits)


def kinds_of(found: Found) -> list[ProblemKind]:
    return [problem.kind for problem in problems_of(found)]


@pytest.mark.parametrize("form", LINE_FORMS)
def test_every_form_is_read_byte_for_byte(hadoop_files: HadoopFiles, form):
    for file, expected in (
        (hadoop_files.archive(form), hadoop_files.records),
        (hadoop_files.small(form), SMALL_RECORDS),
    ):
        found = read_file(file, form)
        assert problems_of(found) == []
        assert records_of(found) == expected
        places = [(one.offset, one.index) for one in found if isinstance(one, SourceRecord)]
        assert places == sorted(set(places))


@pytest.mark.parametrize("form", COMPRESSED)
def test_streams_that_follow_each_other_are_one_text(tmp_path, form):
    compress = COMPRESSED[form]
    # Lines reach over the seams, and an empty stream is between them.
    content = compress(TEXT[:50]) + compress(b"") + compress(TEXT[50:200]) + compress(TEXT[200:])
    found = read_text(tmp_path, content, f"part-00000{FORMS[form].suffix}")
    assert records_of(found) == SMALL_RECORDS
    assert problems_of(found) == []


def lzma_alone(text: bytes) -> bytes:
    return lzma.compress(text, lzma.FORMAT_ALONE, preset=1)


@pytest.mark.parametrize("name", ["part-00000", "main.v2.log.6a1.lzma"])
def test_lzma_alone_is_read_and_a_cut_is_seen(tmp_path, name):
    content = lzma_alone(TEXT)
    for whole in (content, lzma_alone(TEXT[:50]) + lzma_alone(TEXT[50:])):
        found = read_text(tmp_path, whole, name)
        assert (records_of(found), problems_of(found)) == (SMALL_RECORDS, [])
    for length in (3, 13, len(content) // 2, len(content) - 1):
        assert kinds_of(read_text(tmp_path, content[:length], name)) == [ProblemKind.TRUNCATED]
    found = read_text(tmp_path, lzma.compress(TEXT), "main.lzma")
    assert kinds_of(found) == [ProblemKind.BAD_HEADER]


def test_a_dictionary_of_lzma_has_a_limit(tmp_path):
    content = bytearray(lzma_alone(TEXT))
    content[1:5] = (2**30).to_bytes(4, "little")
    assert kinds_of(read_text(tmp_path, bytes(content), "main.lzma")) == [ProblemKind.CORRUPT]


@pytest.mark.parametrize("compress", [*COMPRESSED.values(), lzma_alone])
def test_zeros_behind_a_stream_are_padding(tmp_path, compress):
    content = compress(TEXT[:50]) + bytes(8) + compress(TEXT[50:]) + bytes(3 * MIB)
    found = read_text(tmp_path, content)
    assert (records_of(found), problems_of(found)) == (SMALL_RECORDS, [])
    assert kinds_of(read_text(tmp_path, content + b"x" * 100)) == [ProblemKind.CORRUPT]


@pytest.mark.parametrize("form", COMPRESSED)
def test_compression_is_seen_without_a_suffix_and_belongs_to_the_first_range(tmp_path, form):
    file = tmp_path / "part-00000"
    file.write_bytes(COMPRESSED[form](TEXT))
    size, modified_ms = file.stat().st_size, file.stat().st_mtime_ns // 1_000_000
    one = SourceFile(file.name, size, modified_ms, None, None)
    ranges = split_points(one, size // 3)
    assert len(ranges) >= 3
    counts = [len(list(read_records(source_at(tmp_path, "lines"), one, *ends))) for ends in ranges]
    assert counts == [len(SMALL_RECORDS), *[0] * (len(ranges) - 1)]


@examples(max_examples=40)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"\r")), max_size=30),
    unit=st.integers(1, 60),
)
def test_every_cut_gives_every_line_once(tmp_path_factory, lines, unit):
    file = tmp_path_factory.getbasetemp() / "lines"
    file.write_bytes(b"".join(b"id\t" + line + b"\n" for line in lines))
    one = SourceFile(file.name, file.stat().st_size, file.stat().st_mtime_ns // 1_000_000, None, None)
    source = source_at(file.parent, "lines")
    found = [found for ends in split_points(one, unit) for found in read_records(source, one, *ends)]
    if lines:
        assert records_of(found) == [(b"id", line) for line in lines]
        assert problems_of(found) == []
    else:
        assert kinds_of(found) == [ProblemKind.EMPTY_FILE]


@pytest.mark.parametrize("form", LINE_FORMS)
def test_a_file_cut_off_anywhere_does_not_pass_in_silence(tmp_path, form):
    content = COMPRESSED[form](TEXT) if form in COMPRESSED else TEXT
    silent = 0
    for length in range(1, len(content)):
        found = read_text(tmp_path, content[:length], f"part-00000{FORMS[form].suffix}")
        records = records_of(found)
        if not problems_of(found):
            silent += 1
            assert content[:length].endswith(b"\n")
            assert records == SMALL_RECORDS[: len(records)]
        else:
            assert records[:-1] == SMALL_RECORDS[: len(records[:-1])]
    # Plain text that ends with a line is whole; the listing knows its length.
    assert silent == (0 if form in COMPRESSED else len(SMALL_RECORDS) - 1)


@pytest.mark.parametrize("form", COMPRESSED)
def test_a_flipped_bit_in_compressed_text_is_seen(tmp_path, form):
    content = COMPRESSED[form](TEXT)
    unseen = []
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        found = read_text(tmp_path, bytes(damaged), f"part-00000{FORMS[form].suffix}")
        if not problems_of(found):
            unseen.append(at)
            assert records_of(found) == SMALL_RECORDS
    # No checksum covers time and system in the header of gzip, and some bits can be encoded in two ways.
    assert len(unseen) <= 10


def test_the_last_line_without_a_line_feed_is_given_and_doubted(tmp_path):
    for name, pack in (("part-00000", bytes), ("part-00000.gz", gzip.compress)):
        content = pack(TEXT[:-1])
        found = read_text(tmp_path, content, name)
        assert records_of(found) == SMALL_RECORDS
        (problem,) = problems_of(found)
        assert problem.kind is ProblemKind.TRUNCATED
        assert "no line feed" in problem.message
        assert problem.offset == (len(content) if name.endswith(".gz") else TEXT.rindex(b"55555555-"))


def test_lines_without_a_tab_are_problems_and_nothing_else_is(tmp_path):
    text = b"id\tone\n\nno tab here\r\n\t\nid\ttwo\ttabs\r\n"
    found = read_text(tmp_path, text)
    assert records_of(found) == [(b"id", b"one"), (b"", b""), (b"id", b"two\ttabs\r")]
    assert [(problem.offset, problem.kind) for problem in problems_of(found)] == [
        (7, ProblemKind.MALFORMED_LINE),
        (8, ProblemKind.MALFORMED_LINE),
    ]
    found = read_text(tmp_path, gzip.compress(text), "part-00000.gz")
    assert [(problem.offset, problem.message.split(" has")[0]) for problem in problems_of(found)] == [
        (0, "line 2 of the file"),
        (0, "line 3 of the file"),
    ]


def test_text_that_follows_damage_is_lost_and_said_to_be(tmp_path):
    first, second = gzip.compress(TEXT[:200]), bytearray(gzip.compress(TEXT[200:]))
    second[-5] ^= 1
    found = read_text(tmp_path, first + bytes(second), "part-00000.gz")
    (problem,) = problems_of(found)
    assert problem.kind is ProblemKind.CORRUPT
    assert f"begins at {len(first)} is damaged" in problem.message
    assert "is lost" in problem.message
    assert len(records_of(found)) >= 2


@pytest.mark.parametrize("form", LINE_FORMS)
def test_a_line_over_the_limit_is_left_out_alone(hadoop_files: HadoopFiles, form):
    largest = LARGEST_BYTES + len(b"larger")
    assert records_of(read_file(hadoop_files.archive(form), form, record_max_bytes=largest)) == (
        hadoop_files.records
    )
    found = read_file(hadoop_files.archive(form), form, record_max_bytes=largest - 1)
    assert records_of(found) == hadoop_files.records[:-1]
    assert kinds_of(found) == [ProblemKind.TOO_LARGE]
    found = read_file(hadoop_files.archive(form), form, record_max_bytes=1_000_000)
    assert records_of(found) == hadoop_files.records[:-2]
    assert kinds_of(found) == [ProblemKind.TOO_LARGE] * 2


def test_a_bomb_is_read_in_constant_memory(tmp_path):
    bomb = gzip.compress(b"id\t" + bytes(64 * MIB) + b"\nid\tafter\n", 9)
    assert len(bomb) < MIB
    tracemalloc.start()
    found = read_text(tmp_path, bomb, "part-00000.gz", record_max_bytes=2 * MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert records_of(found) == [(b"id", b"after")]
    assert kinds_of(found) == [ProblemKind.TOO_LARGE]
    assert peak < 16 * MIB


@pytest.mark.parametrize(
    "name, content, kind, says",
    [
        ("part-00000", b"", ProblemKind.EMPTY_FILE, "0 bytes"),
        ("part-00000.gz", TEXT, ProblemKind.BAD_HEADER, "ends in .gz"),
        ("part-00000.bz2", gzip.compress(TEXT), ProblemKind.BAD_HEADER, "ends in .bz2"),
        ("part-00000.snappy", b"\x00\x00\x01\x00", ProblemKind.UNREADABLE_CODEC, ".snappy"),
        ("part-00000.deflate", b"\x78\x9c", ProblemKind.UNREADABLE_CODEC, ".deflate"),
        ("part-00000", b"\x28\xb5\x2f\xfd\x00", ProblemKind.UNREADABLE_CODEC, "zstd"),
        ("part-00000", b"SEQ\x06\x19", ProblemKind.UNREADABLE_CODEC, "SequenceFile"),
    ],
)
def test_files_that_are_no_lines_of_text(tmp_path, name, content, kind, says):
    found = read_text(tmp_path, content, name)
    (problem,) = problems_of(found)
    assert (records_of(found), problem.offset, problem.kind) == ([], 0, kind)
    assert says in problem.message
