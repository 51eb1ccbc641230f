"""Files, records and problems of the historic archive."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class ProblemKind(StrEnum):
    """The closed list of what can be wrong with the archive."""

    MISSING_DIRECTORY = "missing_directory"
    """A directory that is to be copied does not exist."""
    HIDDEN_FILE = "hidden_file"
    """A file with content that Hadoop never reads: its name or a directory's starts with `_` or `.`."""
    NO_CHECKSUM = "no_checksum"
    """HDFS cannot give the file's checksum; the file is listed without one."""
    MISSING_FILE = "missing_file"
    """The file was listed and does not exist any more."""
    SOURCE_CHANGED = "source_changed"
    """Length, modification time or checksum are not those of the listing."""
    EMPTY_FILE = "empty_file"
    """The file has 0 bytes; even a SequenceFile without records has a header."""
    BAD_HEADER = "bad_header"
    """The file does not begin as its format does."""
    UNREADABLE_CODEC = "unreadable_codec"
    """The file is compressed in a way that is not read here."""
    UNREADABLE_BYTES = "unreadable_bytes"
    """The storage cannot give some bytes of the file: every replica of the block is corrupt or lost."""
    CORRUPT = "corrupt"
    """The bytes were read and do not fit together."""
    TRUNCATED = "truncated"
    """The file ends in the middle of a record or a block."""
    TOO_LARGE = "too_large"
    """A record, or a compressed block of records, is over its limit of size."""
    MALFORMED_LINE = "malformed_line"
    """A line of text has no tab."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the archive, as it was when it was listed.

    `path` is relative to the root, with `/` between its parts. `modified_ms` counts from 1970 in UTC.
    `checksum` names its algorithm: HDFS's own file checksum, or the ETag of an S3 object; None for a local
    file. `date` is the one that the date pattern finds in the path, None when it finds none.
    """

    path: str
    bytes: int
    modified_ms: int
    checksum: str | None
    date: date | None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record, as its bytes are.

    (`offset`, `index`) is a total order of the records of a file, the same however the file is cut: the
    offset of the record in the file and 0; in a block-compressed SequenceFile, that of its block and the
    number of the record in the block; in compressed text, 0 and the number of the line.
    """

    document_id: bytes
    content: bytes
    offset: int
    index: int


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """A problem of the archive, and its place.

    `offset` is a position in the file as it is stored, None when the whole file or directory is meant.
    `message` is for a person and says how many bytes are lost, where that is known.
    """

    path: str
    offset: int | None
    kind: ProblemKind
    message: str


class SourceDamage(Exception):
    """A reader cannot go on; its caller turns this into a SourceProblem."""

    def __init__(self, kind: ProblemKind, offset: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.offset = offset
        self.message = message

    def problem(self, path: str) -> SourceProblem:
        """Return the same as a problem of the file at `path`."""
        return SourceProblem(path, self.offset, self.kind, self.message)
