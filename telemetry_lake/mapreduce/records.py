"""What a script writes as output, rendered where it is written, so that only bytes travel from there.

Text is the original's: `write(key, value)` makes `str(key)`, the field separator, `str(value)` and the record
separator; `writecsv(values)` a line of CSV; `writeline(value)` the value alone. As CSV and Parquet, for which
separators mean nothing, tuples and lists are spread over fields: `write(("Linux", "beta"), 3)` has three.
"""

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

from telemetry_lake.mapreduce.pickles import pickled

PAYLOAD_BYTES: Final = 1024 * 1024
"""The size at which a piece of output is sent."""
PAYLOAD_RECORDS: Final = 20_000
"""The number of records of a piece, where their size is not known yet."""
BLOCKS_IN_MEMORY_BYTES: Final = 32 * 1024 * 1024
_INT64: Final = range(-(2**63), 2**63)


class OutputFormat(StrEnum):
    """How output is written."""

    TEXT = "text"
    CSV = "csv"
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """How the names of its files end."""
        return "txt" if self is OutputFormat.TEXT else self.value


class Kind(IntEnum):
    """What a column of a Parquet output holds."""

    NOTHING = 0
    BOOLEAN = 1
    INTEGER = 2
    NUMBER = 3
    BINARY = 4
    DATE = 5
    TIMESTAMP = 6
    TEXT = 7


_KINDS: Final[dict[type, Kind]] = {
    type(None): Kind.NOTHING,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    str: Kind.TEXT,
    bytes: Kind.BINARY,
    date: Kind.DATE,
    datetime: Kind.TIMESTAMP,
}

Record = tuple[tuple[Any, ...], tuple[Any, ...]]
"""The fields of a key, which are empty for a record without one, and those of a value."""
Layout = tuple[tuple[Kind, ...], tuple[Kind, ...]]
"""The kinds of the columns that keys and values fill."""
NO_LAYOUT: Final[Layout] = ((), ())


class OutputContext:
    """The context of `reduce`, and of `map` where there is no `reduce`."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.field_separator = "\t"
        self.record_separator = "\n"
        self._format = output_format
        self._pieces: list[Any] = []
        self._bytes = 0
        self._blocks = _Blocks()
        self._key_starts = (0, 0)
        self.records = 0
        self.layout = NO_LAYOUT

    def write(self, key: Any, value: Any) -> None:
        """Write a record of a key and a value."""
        if self._format is OutputFormat.TEXT:
            self._add(f"{key}{self.field_separator}{value}{self.record_separator}")
        else:
            self._add_fields(_spread(key), _spread(value))

    def writecsv(self, values: Iterable[Any]) -> None:
        """Write a record of several values, as CSV also where the output is text."""
        if self._format is OutputFormat.TEXT:
            self._add(_csv_line(values, self.record_separator))
        else:
            self._add_fields((), tuple(values))

    def writeline(self, value: Any) -> None:
        """Write a record of one value."""
        if self._format is OutputFormat.TEXT:
            self._add(f"{value}{self.record_separator}")
        else:
            self._add_fields((), (value,))

    def _add_fields(self, key: tuple[Any, ...], value: tuple[Any, ...]) -> None:
        if self._format is OutputFormat.CSV:
            self._add(_csv_line((*key, *value), "\n"))
            return
        # What travels is plain, so that it can be read without the script.
        self._pieces.append((tuple(map(_plain, key)), tuple(map(_plain, value))))
        if len(self._pieces) >= PAYLOAD_RECORDS:
            self._close_block()

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._bytes += len(text)
        if self._bytes >= PAYLOAD_BYTES:
            self._close_block()

    def begin_key(self) -> None:
        """Let `forget_key` take back what is written from here on."""
        self._key_starts = (len(self._blocks), len(self._pieces))

    def forget_key(self) -> None:
        """Take back what was written since `begin_key`."""
        blocks, pieces = self._key_starts
        self._blocks.cut(blocks)
        del self._pieces[pieces:]

    def take_payloads(self, *, finish: bool) -> Iterator[bytes]:
        """Yield what was written in pieces of about `PAYLOAD_BYTES`; with `finish`, the rest as well.

        Parquet payloads are pickled lists of `Record`.
        """
        if finish and self._pieces:
            self._close_block()
        for content, records, layout in self._blocks.taken():
            self.records += records
            self.layout = joined_layouts(self.layout, layout)
            yield content

    def _close_block(self) -> None:
        blocks, first_of_key = self._key_starts
        if blocks == len(self._blocks) and first_of_key:
            # Records of earlier keys are not taken back with this one's.
            self._add_block(self._pieces[:first_of_key])
            del self._pieces[:first_of_key]
            self._key_starts = (len(self._blocks), 0)
        self._add_block(self._pieces)
        self._pieces, self._bytes = [], 0

    def _add_block(self, pieces: list[Any]) -> None:
        layout = NO_LAYOUT
        if self._format is OutputFormat.PARQUET:
            for key, value in pieces:
                layout = joined_layouts(layout, (_kinds(key), _kinds(value)))
            content = pickled(pieces)
        else:
            # JSON can say half of a surrogate pair, which no encoding can.
            content = "".join(pieces).encode("utf-8", "backslashreplace")
        self._blocks.append(content, len(pieces), layout)


class _Blocks:
    """Finished output that waits to be taken: a single key can have more of it than memory holds."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(BLOCKS_IN_MEMORY_BYTES)  # noqa: SIM115 (lives as long as this)
        self._blocks: list[tuple[int, int, int, Layout]] = []

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._blocks)

    def append(self, content: bytes, records: int, layout: Layout) -> None:
        self._blocks.append((self._file.tell(), len(content), records, layout))
        self._file.write(content)

    def cut(self, length: int) -> None:
        """Forget all blocks but the first ones."""
        if length < len(self._blocks):
            self._file.seek(self._blocks[length][0])
            self._file.truncate()
            del self._blocks[length:]

    def taken(self) -> Iterator[tuple[bytes, int, Layout]]:
        """Yield all blocks, and remove them."""
        for place, size, records, layout in self._blocks:
            self._file.seek(place)
            yield self._file.read(size), records, layout
        self._file.seek(0)
        self._file.truncate()
        self._blocks = []


def joined_layouts(left: Layout, right: Layout) -> Layout:
    """Return the layout that has room for both."""
    return _joined(left[0], right[0]), _joined(left[1], right[1])


def _joined(left: Sequence[Kind], right: Sequence[Kind]) -> tuple[Kind, ...]:
    if left == right:
        return tuple(left)
    width = max(len(left), len(right))
    padded = [(*kinds, *(Kind.NOTHING,) * (width - len(kinds))) for kinds in (left, right)]
    return tuple(_join(one, other) for one, other in zip(*padded, strict=True))


def _join(left: Kind, right: Kind) -> Kind:
    if left == right or right is Kind.NOTHING:
        return left
    if left is Kind.NOTHING:
        return right
    return Kind.NUMBER if {left, right} == {Kind.INTEGER, Kind.NUMBER} else Kind.TEXT


def _kinds(fields: tuple[Any, ...]) -> tuple[Kind, ...]:
    return tuple(_KINDS[type(field)] for field in fields)


def _plain(field: Any) -> Any:
    """Return a field as one of the types that a column can hold: as text if it has another type."""
    kind = _KINDS.get(type(field))
    if kind is None or (kind is Kind.INTEGER and field not in _INT64):
        return str(field)
    return field


def _spread(field: Any) -> tuple[Any, ...]:
    return tuple(field) if isinstance(field, tuple | list) else (field,)


def _csv_line(values: Iterable[Any], end: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator=end).writerow(values)
    return line.getvalue()
