"""A small historic archive in lines of text, of every kind of document, with the counts that are expected."""

import gzip
import json
import uuid
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from lake_testing.ping_builders import DEFINITIONS, classic_document, linear, unified_document
from telemetry_lake.backfill.plan import Archive, Selection
from telemetry_lake.settings import Settings, SourceFormat, SourceSettings

FIRST_DAY = date(2014, 3, 1)
SECOND_DAY = date(2014, 3, 2)

Line = tuple[str, bytes]


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def new_id() -> str:
    return str(uuid.uuid4())


def unified(document_id: str, **payload: Any) -> bytes:
    """Return a unified ping of version 4 with histograms, plain and keyed, as its client sent it."""
    histograms = {"GC_MS": linear({"1": 2, "4": 1, "10": 0}, sum=6), "ODD": {"values": {}}}
    keyed = {"SEARCH_COUNTS": {"google": linear({"1": 1}, sum=1)}}
    document = unified_document(histograms=histograms, keyedHistograms=keyed, **payload)
    return text({**document, "id": document_id})


def classic(histograms: dict[str, object] | None = None, **more: Any) -> bytes:
    """Return a document of version 1 as its client sent it."""
    return text(classic_document(histograms=histograms or {}, **more))


def converted_classic() -> bytes:
    """Return a document of version 2: the previous backend made its histograms compact."""
    dense = [2, 1, 0, 3, -1, -1, 0, 0]
    return text({**classic_document(histograms={"STARTUP_CRASH_DETECTED": dense}), "ver": 2})


def firefox_os() -> bytes:
    """Return what a device of Firefox OS sent at its first start."""
    return text(
        {
            "ver": 3,
            "activationTime": 1_394_000_000_000,
            "deviceinfo.update_channel": "nightly",
            "deviceinfo.platform_version": "28.0",
            "deviceinfo.platform_build_id": "20140301000000",
            "deviceinfo.os": "1.3.0.0",
            "fraction": 523.0,
        }
    )


def every_kind() -> list[Line]:
    """Return documents of every kind that is converted, each with an id of its own."""
    ids = [new_id() for _ in range(5)]
    return [
        (ids[0], unified(ids[0])),
        (ids[1], classic()),
        (ids[2], converted_classic()),
        (ids[3].upper(), firefox_os()),
        (ids[4], gzipped_in_a_line()),
    ]


def gzipped_in_a_line() -> bytes:
    """Return a compressed document without a byte that would end a line."""
    members = (gzip.compress(classic(number=number), mtime=0) for number in range(10_000))
    return next(member for member in members if not {10, 13} & set(member))


def rejects() -> list[Line]:
    """Records that no row of live.pings can be made of, by why."""
    unconverted = {**classic_document(histograms={"STARTUP_CRASH_DETECTED": [1, 2, 3]}), "ver": 1}
    return [
        (new_id(), b'{"ver": 1, "info"'),
        ("no-uuid \xe4", unified(new_id())),
        (new_id(), b"[1]"),
        (new_id(), text(unconverted)),
        (new_id(), b""),
    ]


@dataclass
class SmallArchive:
    """Files of lines below `root`, by path; `write` makes them."""

    root: Path
    lines: dict[str, list[Line]] = field(default_factory=dict)

    def write(self) -> None:
        for path, lines in self.lines.items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            body = b"".join(name.encode("latin-1") + b"\t" + content + b"\n" for name, content in lines)
            file.write_bytes(gzip.compress(body, mtime=0) if path.endswith(".gz") else body)

    def settings(self, settings: Settings) -> Settings:
        """Return the same settings with this archive, and the definitions of the tests."""
        source = SourceSettings(root_url=self.root.as_uri(), format=SourceFormat.TEXT_LINES)
        conversion = settings.conversion.model_copy(update={"histogram_definitions_directory": DEFINITIONS})
        backfill = settings.backfill.model_copy(update={"source": source})
        return settings.model_copy(update={"backfill": backfill, "conversion": conversion})

    def selection(
        self, settings: Settings, first: date = FIRST_DAY, last: date = SECOND_DAY, label: str = ""
    ) -> Selection:
        archive = Archive.of(settings.backfill.source)
        return Selection(archive=archive, first=first, last=last, label=label)
