"""The archive in each of its storages: the same listing, the same records, the same problems."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest

from lake_testing.hadoop_files import HadoopFiles, listed, problems_of, records_of
from lake_testing.hdfs import Hdfs
from lake_testing.stack import free_ports
from telemetry_lake.backfill.archive.source import (
    ProblemKind,
    SourceFile,
    SourceProblem,
    SourceRecord,
    list_source,
    read_records,
    split_points,
)
from telemetry_lake.failures import ConfigurationError, RetriableError
from telemetry_lake.settings import Settings, SourceFormat, SourceSettings
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.units import KIB

LINES = b"one\t1\ntwo\t2\n"


class Archive(Protocol):
    """An archive of a test's own, in one of the storages."""

    def source(self, **more: Any) -> SourceSettings: ...
    def write(self, path: str, content: bytes) -> None: ...
    def delete(self, path: str) -> None: ...
    def touch(self, path: str) -> None:
        """Change nothing but the modification time."""


@dataclass
class LocalArchive:
    root: Path

    def source(self, **more: Any) -> SourceSettings:
        return SourceSettings(root_url=self.root.as_uri(), **more)

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def delete(self, path: str) -> None:
        (self.root / path).unlink()

    def touch(self, path: str) -> None:
        os.utime(self.root / path, (1, 1))


@dataclass
class S3Archive:
    settings: Settings

    @property
    def s3(self) -> Any:
        return boto3.client("s3", **client_arguments(self.settings.s3))  # type: ignore[call-overload]

    def source(self, **more: Any) -> SourceSettings:
        bucket = self.settings.s3.lake_bucket
        return SourceSettings(root_url=f"s3://{bucket}/archive", s3=self.settings.s3, **more)

    def write(self, path: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.settings.s3.lake_bucket, Key=f"archive/{path}", Body=content)

    def delete(self, path: str) -> None:
        self.s3.delete_object(Bucket=self.settings.s3.lake_bucket, Key=f"archive/{path}")

    def touch(self, path: str) -> None:
        content = self.s3.get_object(Bucket=self.settings.s3.lake_bucket, Key=f"archive/{path}")[
            "Body"
        ].read()
        before = self.s3.head_object(Bucket=self.settings.s3.lake_bucket, Key=f"archive/{path}")
        after = before
        while after["LastModified"] == before["LastModified"]:
            self.write(path, content)
            after = self.s3.head_object(Bucket=self.settings.s3.lake_bucket, Key=f"archive/{path}")


@dataclass
class HdfsArchive:
    hdfs: Hdfs
    root: str

    def source(self, **more: Any) -> SourceSettings:
        return SourceSettings(root_url=self.hdfs.url(self.root), retry_wait_seconds=0.01, **more)

    def write(self, path: str, content: bytes) -> None:
        self.hdfs.write(f"{self.root}/{path}", content)

    def delete(self, path: str) -> None:
        self.hdfs.delete(f"{self.root}/{path}")

    def touch(self, path: str) -> None:
        self.hdfs.set_modified(f"{self.root}/{path}", 1_000)


@pytest.fixture(params=["local", "s3", "hdfs"])
def archive(request: pytest.FixtureRequest) -> Archive:
    if request.param == "local":
        return LocalArchive(request.getfixturevalue("tmp_path"))
    if request.param == "s3":
        return S3Archive(request.getfixturevalue("lake_settings"))
    return HdfsArchive(request.getfixturevalue("hdfs"), request.getfixturevalue("hdfs_directory"))


def found_in(source: SourceSettings) -> tuple[list[SourceFile], list[SourceProblem]]:
    found = list(list_source(source))
    problems = [one for one in found if isinstance(one, SourceProblem)]
    return [one for one in found if isinstance(one, SourceFile)], problems


def read_all(source: SourceSettings, file: SourceFile) -> list[SourceRecord | SourceProblem]:
    return list(read_records(source, file, 0, file.bytes))


def test_every_file_is_listed_with_its_date(archive: Archive):
    sizes = {f"2013/08/{day:02}/part-{number:05}": day + number for day in (15, 16) for number in range(4)}
    sizes |= {"no date/x%y+z é;1#?": 3, "2013-02-30/no such day": 1}
    for path, size in sizes.items():
        archive.write(path, bytes(size))
    files, problems = found_in(archive.source())
    assert problems == []
    assert {file.path: file.bytes for file in files} == sizes
    dates = {file.path.rpartition("/")[0]: file.date for file in files}
    assert dates == {
        "2013/08/15": date(2013, 8, 15),
        "2013/08/16": date(2013, 8, 16),
        "no date": None,
        "2013-02-30": None,
    }
    of_august = [file.path for file in files if file.path.startswith("2013/08/")]
    assert of_august == sorted(of_august)
    assert len(of_august) == 8


def test_only_the_directories_that_are_named_are_listed(archive: Archive):
    for path in ("2013/08/15/a", "2013/08/16/b", "2013/08/161/c"):
        archive.write(path, b"x")
    files, problems = found_in(archive.source(directories=("2013/08/16", "2013/08/17")))
    assert [file.path for file in files] == ["2013/08/16/b"]
    assert [(one.path, one.offset, one.kind) for one in problems] == [
        ("2013/08/17", None, ProblemKind.MISSING_DIRECTORY)
    ]


def test_a_missing_archive_is_a_problem(archive: Archive):
    files, problems = found_in(archive.source())
    if not isinstance(archive, LocalArchive):
        assert [one.kind for one in problems] == [ProblemKind.MISSING_DIRECTORY]
    assert files == []


def test_hidden_files_are_problems_when_they_have_content(archive: Archive):
    for path, content in {
        "day/_SUCCESS": b"",
        "day/.part-00000.crc": b"checksums",
        "day/_logs/history": b"xml",
        "day/_temporary/0/part-00001": b"unfinished",
        "day/part-00000": b"x",
    }.items():
        archive.write(path, content)
    files, problems = found_in(archive.source())
    assert [file.path for file in files] == ["day/part-00000"]
    assert [(one.path, one.kind) for one in problems] == [
        ("day/_logs/history", ProblemKind.HIDDEN_FILE),
        ("day/_temporary/0/part-00001", ProblemKind.HIDDEN_FILE),
    ]


@pytest.mark.parametrize("form", ["sequence-text-none", "sequence-text-block-snappy", "lines-bzip2"])
def test_the_same_records_come_from_every_storage(archive: Archive, hadoop_files: HadoopFiles, form):
    local = hadoop_files.archive(form)
    archive.write(f"day/{local.name}", local.read_bytes())
    source_format = SourceFormat.TEXT_LINES if form.startswith("lines") else SourceFormat.SEQUENCE_FILE
    source = archive.source(format=source_format)
    file = listed(source, f"day/{local.name}")
    counted: list[int] = []
    found = [
        one
        for start, end in split_points(file, 700 * KIB)
        for one in read_records(source, file, start, end, on_bytes=counted.append)
    ]
    assert problems_of(found) == []
    assert records_of(found) == hadoop_files.records
    assert sum(counted) >= file.bytes


@pytest.mark.parametrize(
    "change, kind",
    [
        (lambda archive: archive.write("f", LINES + b"three\t3\n"), ProblemKind.SOURCE_CHANGED),
        (lambda archive: archive.write("f", LINES[:6]), ProblemKind.SOURCE_CHANGED),
        (lambda archive: archive.touch("f"), ProblemKind.SOURCE_CHANGED),
        (lambda archive: archive.delete("f"), ProblemKind.MISSING_FILE),
    ],
    ids=["longer", "shorter", "touched", "deleted"],
)
def test_a_source_that_changes_is_a_problem_before_and_after_reading(
    archive: Archive, change: Callable[[Archive], None], kind
):
    archive.write("f", LINES)
    source = archive.source(format=SourceFormat.TEXT_LINES)
    file = listed(source, "f")
    reading = read_records(source, file, 0, file.bytes)
    assert isinstance(next(reading), SourceRecord)
    change(archive)
    *_, last = reading
    assert isinstance(last, SourceProblem)
    assert (last.path, last.kind) == ("f", kind)
    again = read_all(source, file)
    assert [(one.path, one.offset, one.kind) for one in again if isinstance(one, SourceProblem)] == [
        ("f", None, kind)
    ]
    assert records_of(again) == []


def test_a_file_of_0_bytes_is_a_problem(archive: Archive):
    archive.write("f", b"")
    source = archive.source()
    (problem,) = read_all(source, listed(source, "f"))
    assert isinstance(problem, SourceProblem)
    assert (problem.path, problem.kind) == ("f", ProblemKind.EMPTY_FILE)


def test_reading_a_part_asks_for_a_part(archive: Archive):
    content = b"".join(b"%d\t%s\n" % (number, bytes(100)) for number in range(60_000))
    archive.write("f", content)
    source = archive.source(format=SourceFormat.TEXT_LINES)
    file = listed(source, "f")
    counted: list[int] = []
    found = list(read_records(source, file, 3_000_000, 3_100_000, on_bytes=counted.append))
    assert content.startswith(found[0].document_id + b"\t", found[0].offset)  # type: ignore[union-attr]
    assert 800 < len(found) < 1_000
    assert sum(counted) < len(content) // 2


def test_an_archive_that_does_not_answer_can_be_tried_again(lake_settings):
    closed_port = f"127.0.0.1:{free_ports(1)}"
    webhdfs = SourceSettings(root_url=f"webhdfs://{closed_port}/x", max_attempts=2, retry_wait_seconds=0.01)
    unavailable = lake_settings.s3.model_copy(
        update={"endpoint_url": f"http://{closed_port}", "max_attempts": 1}
    )
    s3 = SourceSettings(root_url="s3://bucket/x", s3=unavailable, max_attempts=2, retry_wait_seconds=0.01)
    file = SourceFile("f", 12, 0, None, None)
    for source in (webhdfs, s3):
        with pytest.raises(RetriableError):
            list(list_source(source))
        with pytest.raises(RetriableError):
            read_all(source, file)


def test_settings_that_cannot_work_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="ROOT_URL"):
        list(list_source(SourceSettings()))
    nested = SourceSettings(root_url=tmp_path.as_uri(), directories=("2013", "2013/08"))
    with pytest.raises(ConfigurationError, match="2013/08"):
        list(list_source(nested))
