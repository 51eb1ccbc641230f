"""A real HDFS that loses data nodes, replicas and blocks while it is read."""

import gzip
import random
from collections.abc import Callable, Iterable

import pytest

from lake_testing.hadoop_files import HadoopFiles, format_of, listed, problems_of, records_of
from lake_testing.hdfs import BLOCK_BYTES, DEADLINE_SECONDS, Hdfs
from lake_testing.historic_archive import FORMS, HistoricArchive, write_files
from lake_testing.stack import wait_until
from telemetry_lake.backfill.archive.source import (
    ProblemKind,
    SourceFile,
    SourceProblem,
    SourceRecord,
    list_source,
    read_records,
    split_points,
)
from telemetry_lake.backfill.archive.storage import Gap
from telemetry_lake.backfill.archive.webhdfs import CHECKSUM_CHUNK_BYTES, PACKET_BYTES, WebHdfs
from telemetry_lake.failures import RetriableError
from telemetry_lake.settings import SourceFormat, SourceSettings

PLAIN, BLOCKS, LINES = "sequence-text-none", "sequence-text-block-default", "lines-none"


def source_of(hdfs: Hdfs, directory: str, form: str = PLAIN) -> SourceSettings:
    return SourceSettings(
        root_url=hdfs.url(directory), format=format_of(form), retry_wait_seconds=0.02, read_timeout_seconds=20
    )


@pytest.fixture
def stored(hdfs: Hdfs, hdfs_directory, hadoop_files: HadoopFiles):
    """Stores the archive of a form in HDFS: its content, its settings and its listing."""

    def store(form: str = PLAIN) -> tuple[bytes, SourceSettings, SourceFile]:
        content = hadoop_files.archive(form).read_bytes()
        hdfs.write(f"{hdfs_directory}/part-00000", content)
        source = source_of(hdfs, hdfs_directory, form)
        return content, source, listed(source, "part-00000")

    return store


def read_all(source: SourceSettings, file: SourceFile) -> list[SourceRecord | SourceProblem]:
    return list(read_records(source, file, 0, file.bytes))


def path_of(hdfs: Hdfs, source: SourceSettings, file: SourceFile) -> str:
    return f"{source.root_url}/{file.path}".removeprefix(hdfs.url())


@pytest.mark.slow
def test_hadoop_writes_every_form_into_hdfs_and_it_comes_out_again(hdfs: Hdfs, hdfs_directory):
    ((_, generated),) = HistoricArchive(days=1, records_per_day=20, files_per_day=1).files()
    records = list(generated)
    write_files(
        f"{hdfs.default_fs}{hdfs_directory}",
        [(f"{name}/part-00000{form.suffix}", form, records) for name, form in FORMS.items()],
    )
    for form in FORMS:
        source = source_of(hdfs, f"{hdfs_directory}/{form}", form)
        (file,) = list_source(source)
        assert isinstance(file, SourceFile)
        found = read_all(source, file)
        assert problems_of(found) == []
        assert records_of(found) == records


def test_checksums_of_hdfs_are_listed_and_compared(hdfs: Hdfs, stored):
    content, source, file = stored()
    assert file.checksum is not None
    assert "CRC" in file.checksum
    # The same length at the same time, and one other byte.
    path = path_of(hdfs, source, file)
    hdfs.write(path, content[:-1] + b"!")
    hdfs.set_modified(path, file.modified_ms)
    (problem,) = read_all(source, file)
    assert isinstance(problem, SourceProblem)
    assert problem.kind is ProblemKind.SOURCE_CHANGED
    assert "its checksum was" in problem.message
    without = source.model_copy(update={"file_checksums": False})
    assert listed(without, "part-00000").checksum is None


def test_a_file_that_grows_is_a_problem(hdfs: Hdfs, stored):
    _, source, file = stored()
    reading = read_records(source, file, 0, file.bytes)
    assert isinstance(next(reading), SourceRecord)
    hdfs.append(path_of(hdfs, source, file), b"more")
    *_, last = reading
    assert isinstance(last, SourceProblem)
    assert last.kind is ProblemKind.SOURCE_CHANGED


def test_one_corrupt_replica_is_read_around(hdfs: Hdfs, stored, hadoop_files: HadoopFiles):
    _, source, file = stored()
    hdfs.corrupt_block(path_of(hdfs, source, file), BLOCK_BYTES + 300_000, replicas=1)
    found = read_all(source, file)
    assert problems_of(found) == []
    assert records_of(found) == hadoop_files.records


@pytest.mark.parametrize("form", [PLAIN, BLOCKS, LINES])
def test_a_corrupt_block_costs_the_records_around_it_and_is_said_once(hdfs: Hdfs, stored, form):
    _, source, file = stored(form)
    whole = read_all(source, file)
    at = 300_123
    hdfs.corrupt_block(path_of(hdfs, source, file), at)
    found = read_all(source, file)
    (problem,) = problems_of(found)
    assert (problem.path, problem.kind) == ("part-00000", ProblemKind.UNREADABLE_BYTES)
    assert f"at {at // CHECKSUM_CHUNK_BYTES * CHECKSUM_CHUNK_BYTES}: " in problem.message
    assert problem.offset is not None
    assert at - 200_000 < problem.offset <= at
    lost = [record for record in whole if record not in found]
    assert 1 <= len(lost) <= 60
    assert [one for one in found if one is not problem] == [one for one in whole if one not in lost]
    assert all(isinstance(one, SourceRecord) and problem.offset <= one.offset <= at for one in lost)
    if form == PLAIN:  # In units, the damage is in one of them, and the records in theirs.
        in_units = [one for ends in split_points(file, 200_000) for one in read_records(source, file, *ends)]
        assert [(one.offset, one.kind) for one in problems_of(in_units)] == [(problem.offset, problem.kind)]
        assert records_of(in_units) == records_of(found)


def test_only_the_bytes_that_are_bad_are_left_out(hdfs: Hdfs, stored):
    content, source, file = stored()
    bad = [300_000, 300_001, BLOCK_BYTES - 1, 2 * BLOCK_BYTES, file.bytes - 1]
    for at in bad:
        hdfs.corrupt_block(path_of(hdfs, source, file), at)
    stretches = list(WebHdfs(source).read("part-00000", 0, file.bytes))
    gaps = [(one.start, one.end) for one in stretches if isinstance(one, Gap)]
    chunk = CHECKSUM_CHUNK_BYTES
    assert gaps == [
        (300_000 // chunk * chunk, 300_000 // chunk * chunk + chunk),
        (BLOCK_BYTES - chunk, BLOCK_BYTES),
        (2 * BLOCK_BYTES, 2 * BLOCK_BYTES + chunk),
        (file.bytes // chunk * chunk, file.bytes),
    ]
    at = 0
    for stretch in stretches:
        if isinstance(stretch, Gap):
            assert stretch.start == at
            at = stretch.end
        else:
            assert content.startswith(stretch, at)
            at += len(stretch)
    assert at == file.bytes


def test_a_file_that_is_deleted_while_its_bad_bytes_are_narrowed_down_ends_there(
    hdfs: Hdfs, stored, monkeypatch: pytest.MonkeyPatch
):
    _, source, file = stored()
    path = path_of(hdfs, source, file)
    hdfs.corrupt_block(path, 300_000)
    can_read = WebHdfs._can_read

    def delete_first(self: WebHdfs, name: str, at: int) -> bool:
        hdfs.delete(path)
        return can_read(self, name, at)

    monkeypatch.setattr(WebHdfs, "_can_read", delete_first)
    *_, last = read_all(source, file)
    assert isinstance(last, SourceProblem)
    assert last.kind is ProblemKind.MISSING_FILE


def test_a_header_that_cannot_be_read_is_a_problem_of_every_range(hdfs: Hdfs, stored):
    _, source, file = stored()
    hdfs.corrupt_block(path_of(hdfs, source, file), 10)
    for start, end in split_points(file, BLOCK_BYTES):
        (problem,) = read_records(source, file, start, end)
        assert isinstance(problem, SourceProblem)
        assert (problem.offset, problem.kind) == (0, ProblemKind.UNREADABLE_BYTES)


def test_a_data_node_that_dies_while_it_is_read_is_read_around(hdfs: Hdfs, stored, hadoop_files: HadoopFiles):
    _, source, file = stored()
    path = path_of(hdfs, source, file)
    reading = read_records(source, file, 0, file.bytes)
    found = [next(reading)]
    # The name node goes on sending us to it for as long as it has not noticed.
    hdfs.kill_data_node(hdfs.data_nodes_of(path)[0], wait_until_noticed=False)
    found += reading
    assert problems_of(found) == []
    assert records_of(found) == hadoop_files.records


LINE_BYTES = 150
NUMBERED = range(20_000)
"""Lines of three blocks."""
UUID = "{:08x}-1111-4111-8111-111111111111"


def numbered_lines(document_id: str) -> bytes:
    """Lines of one length; `document_id` is a format of the line's number."""
    ids = (document_id.format(number).encode() for number in NUMBERED)
    return b"".join((name + b"\t").ljust(LINE_BYTES - 1, b"x") + b"\n" for name in ids)


def lose_block(hdfs: Hdfs, path: str, block: int, *, meanwhile: Callable[[], None]) -> set[int]:
    """Kill the only data node of a block; which blocks are lost by that. Each has one replica."""
    nodes = [hdfs.data_nodes_of(path, number) for number in range(len(hdfs.blocks(path)))]
    lost = {number for number, of_block in enumerate(nodes) if of_block == nodes[block]}
    hdfs.kill_data_node(nodes[block][0], wait_until_noticed=False)
    meanwhile()
    hdfs.kill_data_node(nodes[block][0])
    wait_until(
        lambda: not any(hdfs.blocks(path)[number]["hosts"] for number in lost),
        deadline_seconds=DEADLINE_SECONDS,
        what="the name node gives the blocks up",
    )
    return lost


def lines_outside(lost_blocks: set[int]) -> list[int]:
    """The numbers of the lines that have no byte in one of these blocks."""
    return [
        number
        for number in NUMBERED
        if not {number * LINE_BYTES // BLOCK_BYTES, ((number + 1) * LINE_BYTES - 1) // BLOCK_BYTES}
        & lost_blocks
    ]


def test_a_block_whose_nodes_are_all_gone_is_retried_and_then_a_problem(hdfs: Hdfs, hdfs_directory):
    path = f"{hdfs_directory}/part-00000"
    hdfs.write_apart(path, numbered_lines("{:07}"), apart=(0, 1))
    source = source_of(hdfs, hdfs_directory, LINES)
    file = listed(source, "part-00000")

    def read_meanwhile() -> None:
        # As long as the name node counts on the node, it may come back: nothing is given up.
        with pytest.raises(RetriableError, match="does not answer"):
            read_all(source, file)

    lost_blocks = lose_block(hdfs, path, 1, meanwhile=read_meanwhile)
    found = read_all(source, file)
    problems = problems_of(found)
    assert {problem.kind for problem in problems} == {ProblemKind.UNREADABLE_BYTES}
    assert all(problem.offset for problem in problems)
    assert [int(one.document_id) for one in found if isinstance(one, SourceRecord)] == (
        lines_outside(lost_blocks)
    )
    assert [problem.kind for problem in list_source(source) if isinstance(problem, SourceProblem)] == [
        ProblemKind.NO_CHECKSUM
    ]


def test_lines_behind_a_first_block_that_is_gone_are_read(hdfs: Hdfs, hdfs_directory):
    path = f"{hdfs_directory}/part-00000"
    hdfs.write_apart(path, numbered_lines(UUID), apart=(0, 1))
    source = source_of(hdfs, hdfs_directory, LINES)
    file = listed(source, "part-00000")
    lost_blocks = lose_block(hdfs, path, 0, meanwhile=lambda: None)
    found = read_all(source, file)
    kept = [int(one.document_id[:8], 16) for one in found if isinstance(one, SourceRecord)]
    assert kept == lines_outside(lost_blocks)
    first, *_ = problems_of(found)
    second_line = -(-BLOCK_BYTES // LINE_BYTES) * LINE_BYTES
    assert (first.offset, first.kind) == (0, ProblemKind.UNREADABLE_BYTES)
    assert f"the {second_line} bytes from 0 to {second_line} are lost" in first.message
    in_units = [one for ends in split_points(file, 700_000) for one in read_records(source, file, *ends)]
    assert in_units == found


def test_a_block_that_is_gone_takes_nothing_of_the_one_in_front_along(hdfs: Hdfs, hdfs_directory):
    path = f"{hdfs_directory}/part-00000"
    content = numbered_lines(UUID)
    hdfs.write_apart(path, content, apart=(0, 1))
    lost_blocks = lose_block(hdfs, path, 1, meanwhile=lambda: None)
    files = WebHdfs(source_of(hdfs, hdfs_directory))
    for in_front_bytes in (1, CHECKSUM_CHUNK_BYTES, PACKET_BYTES, 300_000):
        start = BLOCK_BYTES - in_front_bytes
        in_front, gap, behind = _joined(files.read("part-00000", start, len(content)))
        assert in_front == content[start:BLOCK_BYTES]
        assert isinstance(gap, Gap)
        assert (gap.start, gap.end) == (BLOCK_BYTES, 2 * BLOCK_BYTES)
        assert isinstance(behind, Gap) if 2 in lost_blocks else behind == content[2 * BLOCK_BYTES :]


def _joined(stretches: Iterable[bytes | Gap]) -> list[bytes | Gap]:
    """The same with one stretch of bytes between gaps."""
    found: list[bytes | Gap] = []
    for stretch in stretches:
        if isinstance(stretch, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += stretch
        else:
            found.append(stretch)
    return found


@pytest.mark.parametrize(
    "name, content",
    [
        ("part-00000", numbered_lines("{:07}")),
        ("part-00000.gz", numbered_lines(UUID)),
        ("part-00000.snappy", numbered_lines(UUID)),
        ("part-00000", gzip.compress(random.Random(1).randbytes(500_000), mtime=0)),
        ("part-00000", b"x" * 500_000),
    ],
    ids=["other ids", "gzip by name", "snappy by name", "gzip", "no line"],
)
def test_what_may_be_compressed_is_given_up_without_its_first_bytes(
    hdfs: Hdfs, hdfs_directory, name, content
):
    hdfs.write(f"{hdfs_directory}/{name}", content)
    source = source_of(hdfs, hdfs_directory, LINES)
    file = listed(source, name)
    hdfs.corrupt_block(f"{hdfs_directory}/{name}", 10)
    for start, end in split_points(file, file.bytes // 2 + 1):
        (problem,) = read_records(source, file, start, end)
        assert isinstance(problem, SourceProblem)
        assert (problem.path, problem.offset, problem.kind) == (name, 0, ProblemKind.UNREADABLE_BYTES)
        assert "the file's beginning cannot be read" in problem.message


@pytest.mark.slow
def test_a_name_node_that_comes_back_is_asked_again(hdfs: Hdfs, stored, hadoop_files: HadoopFiles):
    _, source, file = stored()
    hdfs.kill_name_node()
    with pytest.raises(RetriableError, match="does not answer"):
        read_all(source, file)
    hdfs.start()
    found = read_all(source, file)
    assert problems_of(found) == []
    assert records_of(found) == hadoop_files.records


def test_large_directories_are_listed_in_pages(hdfs: Hdfs, hdfs_directory):
    names = [f"2013/08/15/part-{number:05}" for number in range(8)]  # The name node gives three at a time.
    for name in names:
        hdfs.write(f"{hdfs_directory}/{name}", b"x")
    found = list(list_source(source_of(hdfs, hdfs_directory)))
    assert [one.path for one in found] == names


def test_the_user_name_is_told(hdfs: Hdfs, hdfs_directory):
    hdfs.write(f"{hdfs_directory}/f", b"1\t2\n")
    source = source_of(hdfs, hdfs_directory, LINES).model_copy(update={"hdfs_user": "archivist"})
    assert records_of(read_all(source, listed(source, "f"))) == [(b"1", b"2")]
    assert source.format is SourceFormat.TEXT_LINES
