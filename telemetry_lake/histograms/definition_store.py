"""The Histograms.json of a revision, from the first of these places that has it:

1. memory, for the revisions used last;
2. a folder (`definition_folder`);
3. an S3 prefix with the layout `<repository>/<revision>/Histograms.json`, when configured;
4. an upstream URL, when configured.

What 3 and 4 give is kept in the folder. Their use is limited for the whole machine
(`look_up_budget`), and that a revision is missing, or that the upstream failed, is remembered for a while:
pings with invented revisions must not slow the conversion down. Everything is keyed by repository and
revision; the host in a ping's URL is the client's own and means nothing. A revision names a commit, which
never changes, so nothing that was found is looked up again.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from telemetry_lake.histograms.definition_folder import DefinitionFolder
from telemetry_lake.histograms.definitions import HistogramDefinitions, parse_definitions
from telemetry_lake.histograms.look_up_budget import LookUpBudget, LookUpRefused
from telemetry_lake.settings import ConversionSettings
from telemetry_lake.units import MIB

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

DEFINITIONS_MAX_BYTES: Final = 16 * MIB
REVISIONS_IN_MEMORY: Final = 64
MISSING_REMEMBERED: Final = 4_096
REVISION_URL_MAX_CHARACTERS: Final = 1_024
URLS_REMEMBERED: Final = 1_024

_REVISION_URL: Final = re.compile(
    r"https?://[^/\s]+/(?P<repository>[A-Za-z0-9_][A-Za-z0-9._-]{0,63}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){0,4})"
    r"/rev/(?P<revision>[0-9a-f]{6,40})/?"
)

_log = logging.getLogger(__name__)


class NoDefinitions(Exception):
    """The definitions of a revision are not available; the message says why."""


class _Revision(NamedTuple):
    """A commit of a repository, without the host that a client names."""

    repository: str
    commit: str

    @property
    def file_name(self) -> str:
        """Its file, below a folder or an S3 prefix."""
        return f"{self.repository}/{self.commit}/Histograms.json"


@lru_cache(maxsize=URLS_REMEMBERED)
def _revision(url: str) -> _Revision | None:
    match = _REVISION_URL.fullmatch(url)
    return None if match is None else _Revision(match["repository"], match["revision"])


class DefinitionStore:
    """The definitions by revision. One per process; not meant to be shared between threads."""

    def __init__(
        self,
        settings: ConversionSettings,
        object_store: "ObjectStore | None" = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a store that reads S3 through `object_store`; `clock` counts the seconds of the machine."""
        self._settings = settings
        self._objects = object_store
        self._clock = clock
        self._folder = DefinitionFolder(settings.histogram_definitions_directory)
        self._budget = LookUpBudget(
            settings.histogram_definitions_directory / ".look_ups.json",
            retry_seconds=settings.histogram_definitions_retry_seconds,
            clock=clock,
        )
        self._found: OrderedDict[_Revision, HistogramDefinitions] = OrderedDict()
        self._missing: OrderedDict[_Revision, tuple[float, str]] = OrderedDict()

    def definitions(self, revision_url: object) -> HistogramDefinitions:
        """Return the definitions of a ping's revision, `http://<host>/<repository>/rev/<hex id>`.

        Raises NoDefinitions. A failure of S3 itself stays a RetriableError or a FatalError, because then the
        pings are not to blame.
        """
        if not isinstance(revision_url, str):
            raise NoDefinitions(
                "the document names no revision, and only its definitions describe its histograms"
            )
        revision = _revision(revision_url) if len(revision_url) <= REVISION_URL_MAX_CHARACTERS else None
        if revision is None:
            raise NoDefinitions("the revision is not of the form http://<host>/<repository>/rev/<hex id>")
        if (found := self._found.get(revision)) is not None:
            self._found.move_to_end(revision)
            return found
        if (missing := self._missing.get(revision)) is not None and self._clock() < missing[0]:
            raise NoDefinitions(missing[1])
        try:
            found = self._load(revision)
        except LookUpRefused as error:
            self._remember_missing(revision, error.until, str(error))
            raise NoDefinitions(str(error)) from error
        except NoDefinitions as error:
            retry_at = self._clock() + self._settings.histogram_definitions_retry_seconds
            self._remember_missing(revision, retry_at, str(error))
            raise
        self._found[revision] = found
        while len(self._found) > REVISIONS_IN_MEMORY:
            self._found.popitem(last=False)
        return found

    def _remember_missing(self, revision: _Revision, until: float, reason: str) -> None:
        self._missing[revision] = (until, reason)
        while len(self._missing) > MISSING_REMEMBERED:
            self._missing.popitem(last=False)

    def _load(self, revision: _Revision) -> HistogramDefinitions:
        name = revision.file_name
        text = self._folder.read(name)
        if text is not None:
            return _parsed(text, f"{name} in {self._settings.histogram_definitions_directory}")
        if not self._can_look_up():
            raise self._not_found(revision)
        self._budget.spend(name)
        try:
            text = self._from_s3(revision)
            if text is None:
                text = self._from_upstream(revision)
            if text is None:
                raise self._not_found(revision)
            definitions = _parsed(text, f"what was fetched for {name}")
        except NoDefinitions as error:
            self._budget.remember_missing(name, str(error))
            raise
        self._folder.keep(name, text)
        return definitions

    def _can_look_up(self) -> bool:
        return (
            self._settings.histogram_definitions_s3_prefix is not None and self._objects is not None
        ) or self._settings.histogram_definitions_upstream_url is not None

    def _not_found(self, revision: _Revision) -> NoDefinitions:
        return NoDefinitions(
            f"there are no histogram definitions for {revision.repository}/{revision.commit}: put them at "
            f"{self._folder.placed_file(revision.file_name)}, or configure an upstream"
        )

    def _from_s3(self, revision: _Revision) -> bytes | None:
        prefix = self._settings.histogram_definitions_s3_prefix
        if prefix is None or self._objects is None:
            return None
        bucket, path = s3_location(prefix)
        return self._objects.get_or_none(bucket, path + revision.file_name)

    def _from_upstream(self, revision: _Revision) -> bytes | None:
        template = self._settings.histogram_definitions_upstream_url
        if template is None:
            return None
        if self._budget.upstream_rests():
            raise NoDefinitions("the upstream of histogram definitions failed and is left alone for a while")
        # Most lakes have no upstream, and then no HTTP client either.
        import httpx

        url = template.replace("{repository}", revision.repository).replace("{revision}", revision.commit)
        try:
            return _download(url, self._settings.histogram_definitions_timeout_seconds, self._clock)
        except httpx.HTTPError as error:
            self._budget.rest_upstream()
            _log.warning("the upstream of histogram definitions failed: %s: %s", url, error)
            raise NoDefinitions(f"the upstream of histogram definitions failed: {error}") from error


def s3_location(prefix: str) -> tuple[str, str]:
    """Return the bucket of `s3://<bucket>/<prefix>`, and what the keys below it begin with."""
    bucket, _, path = prefix.removeprefix("s3://").partition("/")
    return bucket, f"{path.rstrip('/')}/".lstrip("/")


def _download(url: str, timeout_seconds: float, clock: Callable[[], float]) -> bytes | None:
    """Return the text at `url`, None when there is none.

    Raises httpx.HTTPError when the server fails or does not answer in time, and NoDefinitions when the text
    is too large. Redirects are not followed: they could lead anywhere, into this network too.
    """
    import httpx

    deadline = clock() + timeout_seconds
    with httpx.stream("GET", url, timeout=timeout_seconds, follow_redirects=False) as answer:
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return None
        answer.raise_for_status()
        text = bytearray()
        for part in answer.iter_bytes():
            text += part
            if len(text) > DEFINITIONS_MAX_BYTES:
                raise NoDefinitions(f"{url} is larger than {DEFINITIONS_MAX_BYTES} bytes")
            if clock() > deadline:
                raise httpx.ReadTimeout(f"not complete after {timeout_seconds} s", request=answer.request)
        return bytes(text)


def _parsed(text: bytes, where: str) -> HistogramDefinitions:
    if len(text) > DEFINITIONS_MAX_BYTES:
        raise NoDefinitions(f"{where} is larger than {DEFINITIONS_MAX_BYTES} bytes")
    try:
        return parse_definitions(text)
    except ValueError as error:
        raise NoDefinitions(f"{where} is not a Histograms.json: {error}") from error
