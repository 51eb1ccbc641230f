"""Convert one part of a batch, and set raw objects aside that cannot be converted.

A raw object that is missing, truncated, not Arrow or not what its index message promises is *quarantined*:
the part, the batch and the run go on without it, the reason travels in the part's record into the batch's
publication, and its message goes to the dead letters. Damage is found before anything is decided, so
it never takes other raw objects with it.

What cannot be seen beforehand is a raw object that makes the conversion fail or its process die. Therefore
every conversion of a part notes its beginning and its end in the ledger. The first attempt converts the
part as a whole. After one that failed, each raw object is converted by itself, with notes of its own; one
that was begun `conversion_max_attempts` times and never ended well is quarantined with its last error.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from telemetry_lake.batch import Member, Part, RawObjectRows, StagedFile, StagedPart
from telemetry_lake.failures import DamagedRawObject, FatalError, RetriableError
from telemetry_lake.ledger import Attempt, Ledger
from telemetry_lake.object_keys import batch_id
from telemetry_lake.object_store import ObjectNotFound, ObjectStore
from telemetry_lake.raw_object import RawObject

ERROR_MAX_CHARACTERS: Final = 1_000
DIED: Final = "its process died without a word"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Staged:
    """The files of some raw objects, and how many rows each of them became."""

    files: list[StagedFile] = field(default_factory=list)
    raw_objects: list[RawObjectRows] = field(default_factory=list)


Stager = Callable[[Iterable[RawObject]], Staged]
"""Converts raw objects and writes staged files; raises DamagedRawObject."""


def stage_part(
    store: ObjectStore, ledger: Ledger, part: Part, stage: Stager, *, bucket: str, max_attempts: int
) -> StagedPart:
    """Convert a part with `stage`, and keep the record of what was staged.

    Raises RetriableError when a raw object could not be converted and has attempts left, or when S3 is
    away.
    """
    members = ledger.members(ledger.manifest(part.batch_id))
    wanted = {key: members[key] for key in part.keys}
    note, failed = ledger.begin_attempt(part.batch_id, part.name)
    if failed:
        result = _one_by_one(store, ledger, part, wanted, stage, bucket=bucket, max_attempts=max_attempts)
    else:
        try:
            result = _together(store, part, wanted, stage, bucket=bucket)
        except DamagedRawObject as error:
            _log.warning("part %s of batch %s, one by one now: %s", part.name, part.batch_id, error)
            result = _one_by_one(store, ledger, part, wanted, stage, bucket=bucket, max_attempts=max_attempts)
        except Exception as error:
            ledger.end_attempt(note, _in_words(error))
            raise
    ledger.put_staged(part.batch_id, result)
    ledger.end_attempt(note)
    return result


def _together(
    store: ObjectStore, part: Part, members: Mapping[str, Member], stage: Stager, *, bucket: str
) -> StagedPart:
    staged = stage(_open(store, members, bucket))
    return StagedPart(
        name=part.name, files=tuple(staged.files), raw_objects=tuple(staged.raw_objects), quarantined={}
    )


def _one_by_one(
    store: ObjectStore,
    ledger: Ledger,
    part: Part,
    members: Mapping[str, Member],
    stage: Stager,
    *,
    bucket: str,
    max_attempts: int,
) -> StagedPart:
    done = Staged()
    quarantined: dict[str, str] = {}
    errors: list[str] = []
    for key, member in members.items():
        note, failed = ledger.begin_attempt(part.batch_id, batch_id([key]))
        if len(failed) >= max_attempts:
            quarantined[key] = f"begun {len(failed)} times, last: {_last_error(failed)}"
            ledger.end_attempt(note)
            continue
        try:
            staged = stage(_open(store, {key: member}, bucket))
        except DamagedRawObject as error:
            quarantined[key] = _in_words(error)
            ledger.end_attempt(note)
        except RetriableError:
            ledger.end_attempt(note)
            raise
        except Exception as error:  # noqa: BLE001  any error of one raw object leaves the others a way
            _log.exception("raw object %s of batch %s", key, part.batch_id)
            ledger.end_attempt(note, _in_words(error))
            errors.append(f"{key}: {_in_words(error)}")
        else:
            ledger.end_attempt(note)
            done.files += staged.files
            done.raw_objects += staged.raw_objects
    if errors:
        raise RetriableError(
            f"{len(errors)} raw objects of batch {part.batch_id} could not be converted and are tried again, "
            f"{max_attempts} times in all: {'; '.join(errors)}"
        )
    return StagedPart(
        name=part.name,
        files=tuple(done.files),
        raw_objects=tuple(done.raw_objects),
        quarantined=quarantined,
    )


def _open(store: ObjectStore, members: Mapping[str, Member], bucket: str) -> Iterator[RawObject]:
    """The raw objects one after another, each compared with its index message."""
    for key, member in members.items():
        try:
            # On the disk when it is large: a fourth of a gigabyte in memory for each task would be too much.
            with store.opened(bucket, key) as file:
                raw = RawObject(key, file)
                raw.verify(member.message)
                yield raw
        except ObjectNotFound as error:
            raise DamagedRawObject(f"{key}: not in the raw bucket") from error


def _last_error(attempts: Iterable[Attempt]) -> str:
    errors = [attempt.error for attempt in attempts if attempt.error]
    return errors[-1] if errors else DIED


def _in_words(error: Exception) -> str:
    text = str(error) if isinstance(error, FatalError) else f"{type(error).__name__}: {error}"
    return text[:ERROR_MAX_CHARACTERS]
