"""Where the Histograms.json of a revision comes from, asked in this order:

1. memory, for the revisions used last;
2. a folder, `<repository>/<revision>/Histograms.json`;
3. an S3 prefix with the same layout, when configured;
4. an upstream URL, when configured.

What 3 and 4 give is kept in the folder. That a revision cannot be had is remembered for a while, and so
is that the upstream did not answer: pings with invented revisions must not slow the conversion down.
A revision names a commit, which never changes, so nothing found is ever asked for again.
"""

import logging
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telemetry_lake.convert.histogram_definitions import HistogramDefinitions, parse_definitions
from telemetry_lake.settings import MIB, ConversionSettings

if TYPE_CHECKING:
    from telemetry_lake.object_store import ObjectStore

DEFINITIONS_MAX_BYTES: Final = 16 * MIB
REVISIONS_IN_MEMORY: Final = 64
MISSING_REMEMBERED: Final = 4_096
UPSTREAM_MAX_REQUESTS: Final = 60
"""So many requests go upstream within the retry time of the settings; further revisions wait for the next."""

_REVISION_URL: Final = re.compile(
    r"https?://[^/\s]+/(?P<repository>[A-Za-z0-9_][A-Za-z0-9._-]{0,63}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){0,4})"
    r"/rev/(?P<revision>[0-9a-f]{6,40})/?"
)

_log = logging.getLogger(__name__)


class NoDefinitions(Exception):
    """The definitions of a revision cannot be had; the message says why."""


class DefinitionStore:
    """The definitions by revision. One per process; not meant to be shared between threads."""

    def __init__(
        self,
        settings: ConversionSettings,
        object_store: "ObjectStore | None" = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._objects = object_store
        self._clock = clock
        self._found: OrderedDict[str, HistogramDefinitions] = OrderedDict()
        self._missing: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._upstream_period_ends = 0.0
        self._upstream_requests_left = 0

    def definitions(self, revision_url: object) -> HistogramDefinitions:
        """The definitions of the revision that a ping names, `http://<host>/<repository>/rev/<hex id>`.

        Raises NoDefinitions; what goes wrong with S3 itself stays a RetriableError or a FatalError, because
        then the pings are not to blame.
        """
        if not isinstance(revision_url, str):
            raise NoDefinitions("the document names no revision whose definitions would tell its histograms")
        if (found := self._found.get(revision_url)) is not None:
            self._found.move_to_end(revision_url)
            return found
        if (missing := self._missing.get(revision_url)) is not None and self._clock() < missing[0]:
            raise NoDefinitions(missing[1])
        match = _REVISION_URL.fullmatch(revision_url)
        if match is None:
            raise NoDefinitions("the revision is not of the form http://<host>/<repository>/rev/<hex id>")
        try:
            found = self._load(match["repository"], match["revision"])
        except NoDefinitions as error:
            self._missing[revision_url] = (self._retry_time(), str(error))
            while len(self._missing) > MISSING_REMEMBERED:
                self._missing.popitem(last=False)
            raise
        self._found[revision_url] = found
        while len(self._found) > REVISIONS_IN_MEMORY:
            self._found.popitem(last=False)
        return found

    def _load(self, repository: str, revision: str) -> HistogramDefinitions:
        name = f"{repository}/{revision}/Histograms.json"
        file = self._settings.histogram_definitions_directory / name
        text = _read(file)
        if text is not None:
            return _parsed(text, str(file))
        for fetch in (self._from_s3, self._from_upstream):
            text = fetch(repository, revision)
            if text is not None:
                definitions = _parsed(text, f"what was fetched for {name}")
                _keep(file, text)
                return definitions
        raise NoDefinitions(
            f"there are no histogram definitions for {repository}/{revision}: put them at {file}, "
            "or configure an upstream"
        )

    def _from_s3(self, repository: str, revision: str) -> bytes | None:
        prefix = self._settings.histogram_definitions_s3_prefix
        if prefix is None or self._objects is None:
            return None
        bucket, _, path = prefix.removeprefix("s3://").partition("/")
        return self._objects.get_or_none(
            bucket, f"{path.rstrip('/')}/{repository}/{revision}/Histograms.json".lstrip("/")
        )

    def _from_upstream(self, repository: str, revision: str) -> bytes | None:
        template = self._settings.histogram_definitions_upstream_url
        if template is None:
            return None
        if self._clock() >= self._upstream_period_ends:
            self._upstream_period_ends = self._retry_time()
            self._upstream_requests_left = UPSTREAM_MAX_REQUESTS
        if self._upstream_requests_left == 0:
            raise NoDefinitions("the upstream of histogram definitions is not asked again so soon")
        self._upstream_requests_left -= 1
        # Most lakes have no upstream, and then no HTTP client either.
        import httpx

        url = template.replace("{repository}", repository).replace("{revision}", revision)
        try:
            return _download(url, self._settings.histogram_definitions_timeout_seconds, self._clock)
        except httpx.HTTPError as error:
            self._upstream_requests_left = 0
            _log.warning("the upstream of histogram definitions did not answer: %s: %s", url, error)
            raise NoDefinitions(f"the upstream of histogram definitions did not answer: {error}") from error

    def _retry_time(self) -> float:
        return self._clock() + self._settings.histogram_definitions_retry_seconds


def _download(url: str, timeout_seconds: float, clock: Callable[[], float]) -> bytes | None:
    """The text at `url`, None when there is none; raises httpx.HTTPError when nobody answers in time."""
    import httpx

    deadline = clock() + timeout_seconds
    with httpx.stream("GET", url, timeout=timeout_seconds, follow_redirects=True) as answer:
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


def _read(file: Path) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return file.read_bytes()
    return None


def _keep(file: Path, text: bytes) -> None:
    """Write the file as a whole or not at all: other processes may read and write the same folder."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(text)
        Path(part.name).replace(file)
    except OSError as error:
        _log.warning("histogram definitions could not be kept in %s: %s", file, error)
