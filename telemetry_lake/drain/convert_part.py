"""Convert one part of a batch, and set raw objects aside that cannot be converted.

A raw object that is missing, truncated, not Arrow or not what its index message promises is *quarantined*:
the part, the batch and the run go on without it, the reason travels in the part's record into the batch's
publication, and its message goes to the dead letters. Damage is found before anything is decided, so
it never takes other raw objects with it.

What cannot be seen beforehand is a ping that makes the conversion fail or ends its process. Therefore
every conversion of a part notes its beginning and its end in the ledger. The first attempt converts the part
as a whole. After one that failed, or was killed, each raw object is converted by itself, with notes of its
own, those whose attempts failed last, and isolated: in processes with limits, where the one ping that is the
cause is found and rejected (`convert.isolated`). A raw object that failed all the same
`conversion_max_attempts` times and was never converted since is quarantined with its last error.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from telemetry_lake.drain.batch import Member, Part, StagedPart
from telemetry_lake.drain.ledger import Attempt, Ledger
from telemetry_lake.failures import AccessRefused, DamagedRawObject, FatalError, RetriableError
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.storage.object_keys import digest_of_keys
from telemetry_lake.storage.object_store import ObjectNotFound, ObjectStore
from telemetry_lake.storage.records import all_at_once
from telemetry_lake.tables.staged import Staged

ERROR_MAX_CHARACTERS: Final = 1_000
NO_END: Final = "its process was killed or stopped before it finished"
"""The error of an attempt that has no end."""

_log = logging.getLogger(__name__)

Stager = Callable[[Iterable[RawObject]], Staged]
"""Converts raw objects and writes staged files; raises DamagedRawObject."""


class PartConversion:
    """Converts parts of one batch; raw objects are in `bucket`.

    `stage` is the usual conversion, `stage_isolated` the one for what may end the process that converts it.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        stage: Stager,
        stage_isolated: Stager,
        *,
        bucket: str,
        max_attempts: int,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._stage = stage
        self._stage_isolated = stage_isolated
        self._bucket = bucket
        self._max_attempts = max_attempts

    def convert(self, part: Part) -> StagedPart:
        """Convert a part, and keep the record of what was staged.

        Raises RetriableError when a raw object could not be converted and has attempts left, or when S3 is
        unavailable.
        """
        # Without a look at the claims: the run that cut the part has claimed these keys, for good.
        members = {member.key: member for member in self._ledger.manifest(part.batch_id).members}
        wanted = [members[key] for key in part.keys]
        with self._ledger.attempt(part.batch_id, part.name) as attempt:
            try:
                if attempt.earlier_failures:
                    result = self._one_by_one(part, wanted, self._stage_isolated)
                else:
                    result = self._together(part, wanted)
                self._ledger.put_staged(part.batch_id, result)
            except Exception as error:
                # Any error, also that of S3: the next attempt then finds out which raw object is the cause.
                attempt.failed(_in_words(error))
                raise
        return result

    def _together(self, part: Part, members: Sequence[Member]) -> StagedPart:
        try:
            staged = self._stage(self._opened(members))
        except DamagedRawObject as error:
            _log.warning("part %s of batch %s, one by one now: %s", part.name, part.batch_id, error)
            return self._one_by_one(part, members, self._stage)
        return StagedPart(name=part.name, files=staged.files, raw_objects=staged.raw_objects, quarantined={})

    def _one_by_one(self, part: Part, members: Sequence[Member], stage: Stager) -> StagedPart:
        staged: list[Staged] = []
        quarantined: dict[str, str] = {}
        errors: list[str] = []
        for member in self._least_suspect_first(part, members):
            with self._ledger.attempt(part.batch_id, _attempt_name(member)) as attempt:
                # Only an error of the conversion counts as a failed attempt. What is quarantined ends well:
                # nothing is left to try, and converting the part again must give the same reason, with the
                # same count. So does a RetriableError or a right that is missing: that says nothing about the
                # raw object, and must not use up its attempts.
                if len(failures := attempt.earlier_failures) >= self._max_attempts:
                    reason = f"begun {len(failures)} times, last: {_last_error(failures)}"
                    quarantined[member.key] = reason
                    continue
                try:
                    staged.append(stage(self._opened([member])))
                    attempt.converted()
                except DamagedRawObject as error:
                    quarantined[member.key] = _in_words(error)
                except (RetriableError, AccessRefused):
                    raise
                except Exception as error:  # noqa: BLE001  any error of one raw object leaves the others a way
                    _log.exception("raw object %s of batch %s", member.key, part.batch_id)
                    attempt.failed(_in_words(error))
                    errors.append(f"{member.key}: {_in_words(error)}")
        if errors:
            raise RetriableError(
                f"{len(errors)} raw objects of batch {part.batch_id} could not be converted and are tried "
                f"again, {self._max_attempts} times in all: {'; '.join(errors)}"
            )
        return StagedPart(
            name=part.name,
            files=tuple(file for result in staged for file in result.files),
            raw_objects=tuple(rows for result in staged for rows in result.raw_objects),
            quarantined=quarantined,
        )

    def _least_suspect_first(self, part: Part, members: Sequence[Member]) -> list[Member]:
        """Return the members so that those whose attempts failed come last.

        All others are converted before a raw object is tried again that perhaps ended a process. So it is
        only tried in a process that has shown that it can convert, and a process that is killed for another
        reason, such as a deployment, hardly ever dies on the same raw object again and again.
        """
        failures = all_at_once(
            lambda member: len(self._ledger.failed_attempts(part.batch_id, _attempt_name(member))), members
        )
        return [member for _, member in sorted(zip(failures, members, strict=True), key=itemgetter(0))]

    def _opened(self, members: Iterable[Member]) -> Iterator[RawObject]:
        """Yield the raw objects one after another, each compared with its index message."""
        for member in members:
            try:
                # On the disk when it is large: 256 MiB in memory for each task would be too much.
                with self._store.opened(self._bucket, member.key) as file:
                    raw = RawObject(member.key, file)
                    raw.verify(member.message)
                    yield raw
            except ObjectNotFound as error:
                raise DamagedRawObject(f"{member.key}: not in the raw bucket") from error


def _attempt_name(member: Member) -> str:
    """Return the name of the attempts to convert one raw object by itself.

    It is another name than that of a part with this one raw object: an attempt at the part would count as
    one at the raw object, which would be quarantined after half as many.
    """
    return digest_of_keys(["one by one", member.key])


def _last_error(attempts: Iterable[Attempt]) -> str:
    errors = [attempt.error for attempt in attempts if attempt.error]
    return errors[-1] if errors else NO_END


def _in_words(error: Exception) -> str:
    text = str(error) if isinstance(error, FatalError) else f"{type(error).__name__}: {error}"
    return text[:ERROR_MAX_CHARACTERS]
