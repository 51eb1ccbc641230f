"""Records: small JSON objects in S3 that say what was decided.

Most are written once, on the condition that none is there yet: S3 lets one of several writers win, and all of
them go on with what the winner wrote.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ConfigDict

from telemetry_lake.failures import FatalError

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

REQUESTS_AT_ONCE: Final = 10
"""How many records are read or written at the same time: as many connections as boto3 keeps open."""

PAGE_KEYS: Final = 1_000
"""How many keys S3 lists in one answer."""

END_OF_DAY: Final = "24"
"""A time as HHMMSS that is later than all times of a day."""


class Record(BaseModel):
    """What every record has in common: its fields never change, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = TypeVar("T")
V = TypeVar("V")
R = TypeVar("R", bound=BaseModel)


class RecordStore:
    """The records in `bucket`; safe to share between threads."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def decide(self, key: str, record: R) -> R:
        """Write `record` unless a record is there already.

        Returns the record that is there then: this one, or the one that was faster. Raises FatalError when a
        record was there and is gone.
        """
        if self.put_if_absent(key, record):
            return record
        found = self.read(key, type(record))
        if found is None:
            raise FatalError(
                f"s3://{self._bucket}/{key} was deleted while it was read: something removes objects that "
                "must never change. Stop that first, then start the run or the command again."
            )
        return found

    def put_if_absent(self, key: str, record: BaseModel) -> bool:
        """Write `record` unless a record is there already; returns whether this call wrote it."""
        return self._store.put_if_absent(self._bucket, key, record.model_dump_json().encode())

    def put(self, key: str, record: BaseModel, *, indent: int | None = None) -> None:
        """Write `record` over the one that is there: for reports, which decide nothing."""
        self._store.put(self._bucket, key, record.model_dump_json(indent=indent).encode())

    def read(self, key: str, form: type[R]) -> R | None:
        """Return the record at `key`, or None when there is none."""
        body = self._store.get_or_none(self._bucket, key)
        return None if body is None else form.model_validate_json(body)

    def require(self, key: str, form: type[R]) -> R:
        """Return the record at `key`; raises ObjectNotFound."""
        return form.model_validate_json(self._store.get(self._bucket, key))

    def read_all(self, keys: Iterable[str], form: type[R]) -> list[R | None]:
        """Return the records at `keys` in their order, with None for each that is not there."""
        return all_at_once(lambda key: self.read(key, form), keys)

    def newest_keys(self, prefix: str, at_most: int, *, before: str = END_OF_DAY) -> list[str]:
        """Return the last keys below `prefix`, newest first; there, they begin with a time as HHMMSS.

        `before` is such a time, too: keys from it on are left out. S3 lists forwards only. When one answer
        does not hold all keys, the hours are listed from the last one on until there are enough.
        """
        bound = prefix + before
        keys = [item.key for item in islice(self._store.list_objects(self._bucket, prefix), PAGE_KEYS)]
        if len(keys) == PAGE_KEYS:
            keys = []
            for hour in range(min(int(before[:2]), 23), -1, -1):
                keys[:0] = [key for key in self.keys(f"{prefix}{hour:02d}") if key < bound]
                if len(keys) >= at_most:
                    break
        return [key for key in reversed(keys) if key < bound][:at_most]

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all records below `prefix`, sorted."""
        return [item.key for item in self._store.list_objects(self._bucket, prefix)]


def all_at_once(act: Callable[[T], V], items: Iterable[T]) -> list[V]:
    """Return what `act` gives for each of `items`, in their order, calling it on several at the same time."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(act, items))
