"""Pairs of keys and values that `map` wrote for `reduce`, from the call of `write` to rows that Spark sorts.

They are gathered in a dict of lists. A dict that has grown to `PENDING_MAX_VALUES` is combined in place if
the script can combine, and sent away if that does not help, so that memory stays bounded. What is sent is a
row for a key and many of its values, never a row for each value.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from telemetry_lake.mapreduce.key_order import key_bytes
from telemetry_lake.mapreduce.pickles import pickled, unpickled
from telemetry_lake.mapreduce.script.script import (
    SCRIPT_FAILURES,
    Script,
    ScriptError,
    described,
    place_of,
    shown,
)

PENDING_MAX_VALUES: Final = 250_000
"""Values that wait to be combined or sent."""
PENDING_MAX_BYTES: Final = 64 * 1024 * 1024
"""Text, bytes and pickled objects among them."""
VALUES_PER_ROW: Final = 5_000
SENT_ROWS: Final = 20_000
SENT_BYTES: Final = 4 * 1024 * 1024
"""One Arrow batch on its way to Spark has at most `SENT_ROWS`, or a little more than `SENT_BYTES`."""

_PLAIN: Final = frozenset({int, str, float, bool, type(None), bytes})
"""Types whose objects cannot be changed after they were written."""
_UNLIMITED: Final = sys.maxsize


class Pickled:
    """A value that could be changed after it was written, as it was then."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[type["Pickled"], tuple[bytes]]:
        return Pickled, (self.content,)


class _PickledKey:
    """A key that is not a plain object: its bytes, and the key as it was when it was written."""

    __slots__ = ("order", "pickled")

    def __init__(self, key: Any) -> None:
        self.order = key_bytes(key)
        self.pickled = pickled(key)

    def __hash__(self) -> int:
        return hash(self.order)

    def __eq__(self, other: object) -> bool:
        return type(other) is _PickledKey and other.order == self.order


class PairContext:
    """The context of `map` and `combine` where there is a `reduce`: they write pairs and nothing else."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any, Any], None]) -> None:
        self.write = write


class Pairs:
    """What `map` wrote for `reduce`: the values of each key in the order written."""

    def __init__(self, script: Script) -> None:
        self._combine = script.combine
        self._source = script.source
        self._groups: dict[Any, list[Any]] = {}
        self._waiting: list[pa.RecordBatch] = []
        self._fatal: ScriptError | None = None
        self._room = PENDING_MAX_VALUES
        self._bytes = PENDING_MAX_BYTES
        self.context = PairContext(self.write)

    def write(self, key: Any, value: Any) -> None:
        """Add a pair: `context.write`, called for every record of a table, so that each line counts."""
        if type(value) not in _PLAIN:
            value = self._kept(value)
        elif type(value) is str or type(value) is bytes:
            self._bytes -= len(value)
        if type(key) not in _PLAIN and not (type(key) is tuple and _PLAIN.issuperset(map(type, key))):
            key = _PickledKey(key)
            self._bytes -= len(key.pickled)
        values = self._groups.get(key)
        if values is None:
            self._groups[key] = [value]
        else:
            values.append(value)
        self._room -= 1
        if self._room < 0 or self._bytes < 0:
            self._make_room()

    def take(self, *, finish: bool) -> list[pa.RecordBatch]:
        """Return what waits to be sent; with `finish`, everything, combined.

        Raises the ScriptError of a failed `combine`.
        """
        if self._fatal is not None:  # which the script may have caught around its `write`
            raise self._fatal
        if finish:
            self._combine_all()
            self._set_aside()
        waiting, self._waiting = self._waiting, []
        return waiting

    def _kept(self, value: Any) -> Any:
        if not (type(value) is tuple and _PLAIN.issuperset(map(type, value))):
            value = Pickled(pickled(value))
        self._bytes -= _size(value)
        return value

    def _make_room(self) -> None:
        self._combine_all()
        left = PENDING_MAX_VALUES - sum(map(len, self._groups.values()))
        if left < PENDING_MAX_VALUES // 2 or self._bytes < PENDING_MAX_BYTES // 2:
            self._set_aside()
        else:
            self._room = left

    def _set_aside(self) -> None:
        self._waiting += _rows_of(self._groups)
        self._groups, self._room, self._bytes = {}, PENDING_MAX_VALUES, PENDING_MAX_BYTES

    def _combine_all(self) -> None:
        """Replace the values of each key that has several by what `combine` writes for them."""
        if self._combine is None:
            return
        groups, self._groups = self._groups, {}
        # What `combine` writes is counted, but makes no room: this is where room is made.
        self._room = self._bytes = _UNLIMITED
        try:
            for key, values in groups.items():
                if len(values) == 1:
                    self._groups.setdefault(key, []).append(values[0])
                    self._bytes -= _size(values[0])
                else:
                    self._combine_key(unpickled(key.pickled) if type(key) is _PickledKey else key, values)
        finally:
            self._room = PENDING_MAX_VALUES
            self._bytes = PENDING_MAX_BYTES - (_UNLIMITED - self._bytes)

    def _combine_key(self, key: Any, values: list[Any]) -> None:
        assert self._combine is not None
        try:
            self._combine(key, as_written(values), self.context)
        except SCRIPT_FAILURES as error:
            place = place_of(error, self._source)
            self._fatal = ScriptError(f"{place}: {described(error)}: combine of the key {shown(key)}")
            raise self._fatal from error


def as_written(values: Sequence[Any]) -> list[Any]:
    """Return values as the script wrote them."""
    return [unpickled(value.content) if type(value) is Pickled else value for value in values]


def values_of_row(content: bytes) -> tuple[bytes, list[Any]]:
    """Return the pickled key of a sent row, and its values as they were sent."""
    key, values = unpickled(content)
    return key, values


def pair_rows(keys: Sequence[bytes | None], contents: Sequence[bytes]) -> pa.RecordBatch:
    """Return rows with the columns `key`, by which they are sorted, and `content`, both binary."""
    return pa.RecordBatch.from_arrays(
        [pa.array(keys, pa.binary()), pa.array(contents, pa.binary())], names=["key", "content"]
    )


def _rows_of(groups: dict[Any, list[Any]]) -> Iterator[pa.RecordBatch]:
    keys: list[bytes] = []
    contents: list[bytes] = []
    size = 0
    for key, values in groups.items():
        order, key_content = (
            (key.order, key.pickled) if type(key) is _PickledKey else (key_bytes(key), pickled(key))
        )
        for first in range(0, len(values), VALUES_PER_ROW):
            content = pickled((key_content, values[first : first + VALUES_PER_ROW]))
            keys.append(order)
            contents.append(content)
            size += len(order) + len(content)
            if len(keys) >= SENT_ROWS or size >= SENT_BYTES:
                yield pair_rows(keys, contents)
                keys, contents, size = [], [], 0
    if keys:
        yield pair_rows(keys, contents)


def _size(value: Any) -> int:
    """Return how many bytes of text, bytes and pickled objects a value as it is kept has."""
    if type(value) is Pickled:
        return len(value.content)
    if type(value) is tuple:
        return sum(len(part) for part in value if type(part) is str or type(part) is bytes)
    return len(value) if type(value) is str or type(value) is bytes else 0
