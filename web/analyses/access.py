"""Sessions of browsers and tokens of programs: records in S3, under the hash of a secret of their owner.

So a session outlives the server, holds for all servers, and ends for all of them at once when it is deleted;
and reading the bucket gives nobody a session.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_lake.storage.object_keys import ANALYSIS_SESSION_PREFIX, ANALYSIS_TOKEN_PREFIX
from telemetry_lake.storage.object_store import ObjectStore

SECRET_BYTES: Final = 32
KNOWN_SECONDS: Final = 10
"""For this long a record is not read again: a session that was ended at another server ends here after it."""
KNOWN_MAX_COUNT: Final = 10_000
TOKENS_MAX_COUNT: Final = 20
TOKEN_PREFIX: Final = "tlj_"
LABEL_MAX_CHARACTERS: Final = 100
_SECRET_CHARACTERS: Final = 43
_DATE_CHARACTERS: Final = 10
_OWNER_CHARACTERS: Final = 16
_log: Final = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a record lets in."""

    SESSION = "session"
    TOKEN = "token"


class AccessRecord(BaseModel):
    """What is known of a session or a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    person: str
    groups: tuple[str, ...]
    is_admin: bool
    fingerprint: str | None
    """Of the user's password in the users file, if the person is from there: another password ends it."""
    csrf: str
    """The token that forms of this session carry."""
    label: Annotated[str, Field(max_length=LABEL_MAX_CHARACTERS)] = ""
    made_at: datetime
    until: datetime


class Access:
    """The sessions and tokens of a lake. Safe for several threads."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store, self._bucket = store, bucket
        self._mutex = threading.Lock()
        self._known: dict[str, tuple[float, AccessRecord | None]] = {}

    def begin_session(self, record: AccessRecord) -> str:
        """Keep a new session, and return the secret for the browser's cookie."""
        text = f"{record.until:%Y-%m-%d}.{secrets.token_urlsafe(SECRET_BYTES)}"
        self._keep(text, record)
        return text

    def make_token(self, record: AccessRecord) -> str:
        """Keep a new token, and return it."""
        text = f"{TOKEN_PREFIX}{_owner(record.person)}_{secrets.token_urlsafe(SECRET_BYTES)}"
        self._keep(text, record)
        return text

    def find(self, text: str) -> AccessRecord | None:
        """Return the record of a secret, and None when there is none that is still valid."""
        key = _key(text)
        if key is None:
            return None
        with self._mutex:
            read_at, record = self._known.get(key, (float("-inf"), None))
        if time.monotonic() - read_at >= KNOWN_SECONDS:
            content = self._store.get_or_none(self._bucket, key)
            try:
                record = None if content is None else AccessRecord.model_validate_json(content)
            except ValidationError:
                _log.warning("s3://%s/%s is not a session or token of this version", self._bucket, key)
                record = None
            self._remember(key, record)
        return record if record is not None and record.until > datetime.now(UTC) else None

    def end(self, text: str) -> None:
        """End a session or a token."""
        if (key := _key(text)) is not None:
            self._delete(key)

    def tokens(self, person: str) -> Iterator[tuple[str, AccessRecord]]:
        """Yield the tokens of a person, each with an id by which it can be ended."""
        prefix = f"{ANALYSIS_TOKEN_PREFIX}{_owner(person)}/"
        for item in self._store.list_objects(self._bucket, prefix):
            content = self._store.get_or_none(self._bucket, item.key)
            if content is not None:
                record = AccessRecord.model_validate_json(content)
                if record.person == person:
                    yield item.key.removeprefix(prefix).removesuffix(".json"), record

    def end_token(self, person: str, token_id: str) -> bool:
        """End a person's token; returns whether the person has it."""
        if token_id not in (known for known, _ in self.tokens(person)):
            return False
        self._delete(f"{ANALYSIS_TOKEN_PREFIX}{_owner(person)}/{token_id}.json")
        return True

    def remove_old(self, today: date) -> int:
        """Delete the sessions that ended before `today`, and return how many."""
        old = [
            item.key
            for item in self._store.list_objects(self._bucket, ANALYSIS_SESSION_PREFIX)
            if item.key.removeprefix(ANALYSIS_SESSION_PREFIX)[:_DATE_CHARACTERS] < today.isoformat()
        ]
        self._store.delete(self._bucket, old)
        return len(old)

    def _keep(self, text: str, record: AccessRecord) -> None:
        key = _key(text)
        assert key is not None
        self._store.put_if_absent(self._bucket, key, record.model_dump_json().encode())

    def _delete(self, key: str) -> None:
        self._store.delete(self._bucket, [key])
        self._remember(key, None)

    def _remember(self, key: str, record: AccessRecord | None) -> None:
        with self._mutex:
            if len(self._known) >= KNOWN_MAX_COUNT:
                self._known.clear()
            self._known[key] = (time.monotonic(), record)


def session_record(
    person: str, groups: tuple[str, ...], fingerprint: str | None, valid: timedelta, *, is_admin: bool
) -> AccessRecord:
    """Return the record of a session that begins now."""
    now = datetime.now(UTC)
    return AccessRecord(
        kind=Kind.SESSION,
        person=person,
        groups=groups,
        is_admin=is_admin,
        fingerprint=fingerprint,
        csrf=secrets.token_urlsafe(SECRET_BYTES),
        made_at=now,
        until=now + valid,
    )


def token_record(session: AccessRecord, label: str, valid: timedelta) -> AccessRecord:
    """Return the record of a token with the rights of a session's person."""
    now = datetime.now(UTC)
    return session.model_copy(
        update={"kind": Kind.TOKEN, "label": label, "csrf": "", "made_at": now, "until": now + valid}
    )


def _owner(person: str) -> str:
    return hashlib.sha256(person.encode()).hexdigest()[:_OWNER_CHARACTERS]


def _key(text: str) -> str | None:
    """Return where the record of a secret is, and None when it cannot be one."""
    if not text.isascii():
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()
    if text.startswith(TOKEN_PREFIX):
        owner, _, secret = text.removeprefix(TOKEN_PREFIX).partition("_")
        is_owner = len(owner) == _OWNER_CHARACTERS and set(owner) <= set("0123456789abcdef")
        if is_owner and len(secret) == _SECRET_CHARACTERS:
            return f"{ANALYSIS_TOKEN_PREFIX}{owner}/{digest}.json"
        return None
    day, _, secret = text.partition(".")
    try:
        until = date.fromisoformat(day)
    except ValueError:
        return None
    if len(day) != _DATE_CHARACTERS or len(secret) != _SECRET_CHARACTERS:
        return None
    return f"{ANALYSIS_SESSION_PREFIX}{until.isoformat()}/{digest}.json"
