"""Write a historic archive with known totals by Hadoop's own classes, for tests and measurements.

    python -m lake_testing.historic_archive file:///tmp/archive --form sequence-block-gzip --records 2000

It has every kind of document that the previous backend kept: `ver` 1 (every tenth one the real ping of a
Firefox 23, jittered), `ver` 2 with compact histograms, `ver` 3 of Firefox OS, unified ones of version 4.
Of every 40 records one repeats an earlier one of its date and one cannot be converted. The same seed gives
the same records in every form.
"""

import json
import lzma
import random
import struct
import subprocess
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import cycle
from typing import Annotated, Final
from uuid import UUID

import typer

from lake_testing.hadoop import HADOOP_FOLDER, java_command
from lake_testing.ping_builders import classic_document, linear, unified_document
from lake_testing.realistic_pings import jittered_documents

FIRST_DAY: Final = date(2013, 8, 15)
REAL_EVERY: Final = 10
REPEAT_EVERY: Final = 20
"""Every second of these cannot be converted instead."""
REJECT_EVERY: Final = 40
REPEATS_REACH_BACK: Final = 50
"""A repeated record is one of this many before it, which may be in the previous file."""
_DOCUMENTS_WITHOUT_END: Final = 1_000_000_000
_CODECS: Final = ("Default", "Gzip", "Snappy", "BZip2")
_HADOOP_IO: Final = "org.apache.hadoop.io"

Record = tuple[bytes, bytes]
"""Document id and document."""
SYNC_MARKER: Final = None
"""Takes the place of a record where a SequenceFile gets a sync marker, which ends its block."""
_END_OF_FILE: Final = struct.pack(">i", -1)
_SYNC_MARKER_NUMBER: Final = struct.pack(">i", -2)


@dataclass(frozen=True, slots=True)
class Form:
    """How a file is written; the fields are those of java/hadoop/WriteArchive.java."""

    container: str
    value_class: str = ""
    compression: str = ""
    codec: str = ""
    suffix: str = ""


def _forms() -> dict[str, Form]:
    forms = {}
    for value in ("text", "bytes"):
        value_class = f"{_HADOOP_IO}.{'Text' if value == 'text' else 'BytesWritable'}"
        forms[f"sequence-{value}-none"] = Form("sequence", value_class, "NONE")
        for compression in ("record", "block"):
            for codec in _CODECS:
                codec_class = f"{_HADOOP_IO}.compress.{codec}Codec"
                name = f"sequence-{value}-{compression}-{codec.lower()}"
                forms[name] = Form("sequence", value_class, compression.upper(), codec_class)
    forms["lines-none"] = Form("text")
    forms["lines-gzip"] = Form("text", codec=f"{_HADOOP_IO}.compress.GzipCodec", suffix=".gz")
    forms["lines-bzip2"] = Form("text", codec=f"{_HADOOP_IO}.compress.BZip2Codec", suffix=".bz2")
    # Hadoop has no codec for xz: the lines are compressed here.
    forms["lines-xz"] = Form("raw", suffix=".xz")
    return forms


FORMS: Final = _forms()
"""Every form that the backfill reads, by name: container, value, compression, codec."""


@dataclass(slots=True)
class Totals:
    """Counts of an archive, complete when all of it was generated."""

    records: int = 0
    content_bytes: int = 0
    rejects: int = 0
    """Records that are rejected: their document or document id cannot become a row of live.pings."""
    repeats: int = 0
    """Records with the document id of an earlier one of the same date."""
    by_date: Counter[date] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)


class HistoricArchive:
    """Generates the records of an archive; `totals` counts those that were generated so far."""

    def __init__(
        self,
        *,
        days: int = 2,
        records_per_day: int = 200,
        files_per_day: int = 2,
        real_every: int = REAL_EVERY,
        seed: int = 2013,
    ) -> None:
        self.days = [FIRST_DAY + timedelta(days=number) for number in range(days)]
        self.totals = Totals()
        self._records_per_file = -(-records_per_day // files_per_day)
        self._records_per_day = records_per_day
        self._chance = random.Random(seed)
        self._kinds = self._endless_kinds(real_every, seed)
        self._rejects = cycle(_REJECTS)

    def files(self, suffix: str = "") -> Iterator[tuple[str, Iterable[Record]]]:
        """Yield the path and the records of each file; read the records of a file before the next file."""
        for day in self.days:
            recent: deque[tuple[str, Record]] = deque(maxlen=REPEATS_REACH_BACK)
            for number, first in enumerate(range(0, self._records_per_day, self._records_per_file)):
                count = min(self._records_per_file, self._records_per_day - first)
                path = f"{day:%Y/%m/%d}/part-{number:05}{suffix}"
                yield path, (self._record(day, recent) for _ in range(count))

    def _record(self, day: date, recent: deque[tuple[str, Record]]) -> Record:
        totals = self.totals
        totals.records += 1
        totals.by_date[day] += 1
        if totals.records % REJECT_EVERY == 0:
            kind, document_id, content = next(self._rejects)
            totals.rejects += 1
            record = document_id or self._new_id(), content
        elif totals.records % REPEAT_EVERY == 0 and recent:
            kind, record = self._chance.choice(recent)
            totals.repeats += 1
        else:
            kind, content = next(self._kinds)
            record = self._new_id(), content
            recent.append((kind, record))
        totals.by_kind[kind] += 1
        totals.content_bytes += len(record[1])
        return record

    def _new_id(self) -> bytes:
        return str(UUID(int=self._chance.getrandbits(128), version=4)).encode()

    def _endless_kinds(self, real_every: int, seed: int) -> Iterator[tuple[str, bytes]]:
        real = jittered_documents(_DOCUMENTS_WITHOUT_END, seed)
        for number in range(_DOCUMENTS_WITHOUT_END):
            if number % real_every == 0:
                yield "real", next(real)
            else:
                kind, make = _KINDS[number % len(_KINDS)]
                yield kind, _text(make(self._chance))


def _text(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _classic(chance: random.Random) -> dict[str, object]:
    crashes = {"range": [1, 2], "bucket_count": 3, "histogram_type": 3, "values": {"0": 1, "1": 0}}
    return classic_document(
        simpleMeasurements={"uptime": chance.randrange(10_000)},
        histograms={"STARTUP_CRASH_DETECTED": {**crashes, "sum": 0}},
    )


def _converted(chance: random.Random) -> dict[str, object]:
    compact = [1, chance.randrange(5), 0, 3, -1, -1, 0, 0]
    return {**classic_document(histograms={"STARTUP_CRASH_DETECTED": compact}), "ver": 2}


def _firefox_os(chance: random.Random) -> dict[str, object]:
    return {
        "ver": 3,
        "activationTime": 1_376_000_000_000 + chance.randrange(1_000_000_000),
        "deviceinfo.update_channel": "nightly",
        "deviceinfo.platform_version": "26.0a1",
        "deviceinfo.platform_build_id": "20130815030202",
        "deviceinfo.os": "1.2.0.0-prerelease",
        "icc": {"mcc": "310", "spn": None},
    }


def _unified(chance: random.Random) -> dict[str, object]:
    histograms = {"GC_MS": linear({"1": chance.randrange(1, 9), "4": 1, "10": 0}, sum=chance.randrange(90))}
    keyed = {"SEARCH_COUNTS": {"google": linear({"1": 1}, sum=1), "Suche über Größe": linear({}, sum=0)}}
    return unified_document(histograms=histograms, keyedHistograms=keyed)


_KINDS: Final = (
    ("classic", _classic),
    ("converted", _converted),
    ("firefox_os", _firefox_os),
    ("unified", _unified),
)
_REJECTS: Final = (
    ("not_json", None, b'{"ver":1,"info":{"reason":"saved-ses'),
    ("not_utf8", None, b'{"ver":1,"info":"\xff\xfe"}'),
    ("bad_id", b"not-a-uuid", _text(classic_document())),
)


def write_files(root: str, files: Iterable[tuple[str, Form, Iterable[Record | None]]]) -> None:
    """Write files below `root` (`hdfs://host:port/path`, `file:///path`): paths, forms and records."""
    command = (*java_command(), str(HADOOP_FOLDER / "WriteArchive.java"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stderr is not None
        try:
            for path, form, records in files:
                where = (f"{root}/{path}", form.container, form.value_class, form.compression, form.codec)
                writer.stdin.write(b"".join(struct.pack(">H", len(text)) + text.encode() for text in where))
                for record in _packed(records) if form.suffix == ".xz" else records:
                    if record is SYNC_MARKER:
                        writer.stdin.write(_SYNC_MARKER_NUMBER)
                    else:
                        writer.stdin.writelines(struct.pack(">i", len(part)) + part for part in record)
                writer.stdin.write(_END_OF_FILE)
            writer.stdin.close()
        except BrokenPipeError:
            pass  # The writer has ended; its standard error says why.
        errors = writer.stderr.read().decode()
    assert writer.returncode == 0, errors


def _packed(records: Iterable[Record | None]) -> Iterator[Record]:
    lines = b"".join(b"\t".join(record) + b"\n" for record in records if record is not None)
    yield b"", lzma.compress(lines)


def write_archive(root: str, form: Form, archive: HistoricArchive) -> Totals:
    """Write the whole archive below `root` in one form. Returns its totals."""
    write_files(root, ((path, form, records) for path, records in archive.files(form.suffix)))
    return archive.totals


def main(
    root: Annotated[str, typer.Argument(help="Target: hdfs://host:port/path or file:///path.")],
    form: Annotated[str, typer.Option(help=f"One of {', '.join(FORMS)}.")] = "sequence-text-block-default",
    days: Annotated[int, typer.Option(help="Number of dates, from 2013-08-15.")] = 2,
    records: Annotated[int, typer.Option(help="Records for each date.")] = 2_000,
    files: Annotated[int, typer.Option(help="Files for each date.")] = 2,
    real_every: Annotated[int, typer.Option(help="One record in this many is a real ping of 72 KB.")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 2013,
) -> None:
    """Write a historic archive with Hadoop's own classes, and print what is in it."""
    if form not in FORMS:
        raise typer.BadParameter(f"{form} is not a form; use one of {', '.join(FORMS)}", param_hint="--form")
    archive = HistoricArchive(
        days=days, records_per_day=records, files_per_day=files, real_every=real_every, seed=seed
    )
    totals = write_archive(root.rstrip("/"), FORMS[form], archive)
    typer.echo(f"{totals.records} records, {totals.content_bytes} bytes of documents below {root}")
    typer.echo(f"{totals.repeats} of them repeat a document id, {totals.rejects} cannot be converted")
    for name, count in [*sorted(totals.by_date.items()), *sorted(totals.by_kind.items())]:
        typer.echo(f"{name!s:12} {count}")


if __name__ == "__main__":
    typer.run(main)
