"""An archive in HDFS, read over WebHDFS: five requests of its REST protocol.

The name node answers requests about files and names the data node that reads one; that data node checks
every 512 bytes against their checksum, and takes another replica where one is bad or gone. Where it finds
none it drops the connection in the middle of an answer that began with status 200, and the whole packet of
64 KiB around the bad bytes is missing; in front of a block that is gone, what it had not sent of the block
before. So a request stays inside one block, an answer that breaks off is requested again from there, from
another data node where there is one, and one that still breaks off is narrowed down to the bad bytes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import requests
import tenacity

from telemetry_lake.backfill.archive.source_record import ProblemKind, SourceProblem
from telemetry_lake.backfill.archive.storage import Gap, StoredFile
from telemetry_lake.failures import ConfigurationError, RetriableError
from telemetry_lake.settings import SourceSettings
from telemetry_lake.units import KIB

PACKET_BYTES: Final = 64 * KIB
"""What a data node sends at a time, and all of which is missing when some of it is bad."""
CHECKSUM_CHUNK_BYTES: Final = 512
"""What HDFS has one checksum for, unless `dfs.bytes-per-checksum` says otherwise."""
OTHER_NODE_TRIES: Final = 8
"""Requests to the name node for a data node that has not just failed."""
NARROWING_ATTEMPTS: Final = 2
"""Requests for each smaller stretch, while bad bytes are narrowed down."""
RETRY_WAIT_MAX_SECONDS: Final = 30.0
_REFUSALS: Final = {
    "BlockMissingException",
    "ChecksumException",
    "IOException",
    "IllegalArgumentException",
    "PathIOException",
    "UnsupportedOperationException",
}
"""HDFS's errors for damaged files, and for requests that it does not know; all others may be temporary."""
_NOT_ALLOWED: Final = {"AccessControlException", "SecurityException", "AuthenticationException"}

T = TypeVar("T")


class _FileStatus(TypedDict):
    """The fields of HDFS's FileStatus that are read here: bytes, and milliseconds since 1970."""

    pathSuffix: str
    type: str
    length: int
    modificationTime: int


class _NotThere(Exception):
    """The file or directory does not exist."""


class _NotAnswering(Exception):
    """A node does not answer, or refuses for now: the cluster is unavailable, the file may be intact."""


class _Refused(Exception):
    """HDFS answers that it cannot give this, or breaks its answer off: the file may be damaged."""


class WebHdfs:
    """The files below the path of the root URL; not to be shared between threads."""

    def __init__(self, source: SourceSettings) -> None:
        root = urlsplit(source.root_url or "")
        self._name_node = root.netloc
        self._root = root.path.strip("/")
        self._source = source
        self._session = requests.Session()
        # Requests go to the cluster directly, without the environment's proxy and password file.
        self._session.trust_env = False
        self._failed_nodes: set[str] = set()

    # --- Listing -------------------------------------------------------------------------------------

    def list_files(self, directory: str) -> Iterator[StoredFile | SourceProblem]:
        """Yield every file below `directory`, with its checksum if the settings want it."""
        try:
            for status in self._entries(directory):
                path = "/".join(filter(None, (directory, status["pathSuffix"])))
                if status["type"] == "DIRECTORY":
                    yield from self.list_files(path)
                    continue
                file = self._stored(path, status)
                yield file
                if file.checksum is None and self._source.file_checksums and file.bytes:
                    message = "HDFS cannot give its checksum: are all replicas of a block lost?"
                    yield SourceProblem(path, None, ProblemKind.NO_CHECKSUM, message)
        except _NotThere:
            message = f"{self._full(directory)} is not there"
            yield SourceProblem(directory, None, ProblemKind.MISSING_DIRECTORY, message)

    def look_up(self, path: str) -> StoredFile | None:
        """Return the file as it is now."""
        try:
            return self._stored(path, self._ask(path, op="GETFILESTATUS")["FileStatus"])
        except _NotThere:
            return None

    def _entries(self, directory: str) -> Iterator[_FileStatus]:
        """Yield the entries of one directory, in pages where the name node has them (Hadoop 3)."""
        after: dict[str, str] = {}
        while True:
            try:
                answer = self._ask(directory, op="LISTSTATUS_BATCH", **after)["DirectoryListing"]
            except _Refused:
                yield from self._ask(directory, op="LISTSTATUS")["FileStatuses"]["FileStatus"]
                return
            page = answer["partialListing"]["FileStatuses"]["FileStatus"]
            yield from page
            if not answer["remainingEntries"]:
                return
            after = {"startAfter": page[-1]["pathSuffix"]}

    def _stored(self, path: str, status: _FileStatus) -> StoredFile:
        wants_checksum = self._source.file_checksums and status["length"] > 0
        checksum = self._checksum(path) if wants_checksum else None
        return StoredFile(path, status["length"], status["modificationTime"], checksum)

    def _checksum(self, path: str) -> str | None:
        def ask() -> str:
            with self._data_node(path, op="GETFILECHECKSUM") as answer:
                found = answer.json()["FileChecksum"]
                return f"{found['algorithm']}:{found['bytes']}"

        try:
            return self._persist(path, ask)
        except (_Refused, _NotThere):
            return None

    # --- Reading -------------------------------------------------------------------------------------

    def read(self, path: str, start: int, end: int) -> Iterator[bytes | Gap]:
        """Yield the bytes `[start, end)`, at most to the file's end; gaps where no replica can give them.

        A file that is deleted meanwhile ends where it was.
        """
        with suppress(_NotThere):
            yield from self._read_there(path, start, end)

    def _read_there(self, path: str, start: int, end: int) -> Iterator[bytes | Gap]:
        failures = 0
        while start < end:
            try:
                stop = min(self._block(path, start)[1], end)
                for chunk in self._stream(path, start, stop):
                    failures = 0
                    start += len(chunk)
                    yield chunk
                if start < stop:
                    return
                continue
            except (_NotAnswering, _Refused) as error:
                failures += 1
                if failures < self._source.max_attempts:
                    time.sleep(self._wait_seconds(failures))
                    continue
                if isinstance(error, _NotAnswering):
                    raise RetriableError(f"reading {self._full(path)} at {start}: {error}") from error
                reason = str(error)
            good, gap_end = self._narrow_down(path, start, end)
            if good:
                start += len(good)
                yield good
            if start < gap_end:
                yield Gap(start, gap_end, f"HDFS cannot give the bytes at {start}: {reason}")
                start = gap_end
            failures = 0

    def _stream(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield what one data node gives of `[start, end)`, which is all of it up to the end of the file."""
        with self._data_node(path, op="OPEN", offset=start, length=end - start) as answer:
            yield from answer.iter_content(PACKET_BYTES)

    def _narrow_down(self, path: str, start: int, end: int) -> tuple[bytes, int]:
        """Return what can be read at `start`, where reading broke off, and where the bad bytes behind it end.

        A data node gives nothing of a packet with bad bytes in it, and its packets begin where the
        request does. So a request behind the last bad byte is answered, one in front of it is not, and what
        lies in front of it comes with a request whose first packet ends there.
        """
        block_start, block_end = self._block(path, start)
        last = min(block_end, end)
        bad, good = start - start % CHECKSUM_CHUNK_BYTES, last
        step = CHECKSUM_CHUNK_BYTES
        while (at := bad + step) < last:
            if self._can_read(path, at):
                good = at
                break
            bad, step = at, step * 2
        while good - bad > CHECKSUM_CHUNK_BYTES:
            # At least one chunk further: the end of a file need not be the end of a chunk.
            middle = bad + max(1, (good - bad) // 2 // CHECKSUM_CHUNK_BYTES) * CHECKSUM_CHUNK_BYTES
            if self._can_read(path, middle):
                good = middle
            else:
                bad = middle
        front = b""
        if start < bad and bad - PACKET_BYTES >= block_start:
            front = (self._try(path, bad - PACKET_BYTES, bad) or b"")[start - bad :]
        return front, good

    def _block(self, path: str, at: int) -> tuple[int, int]:
        """Return where the block with the byte `at` starts and ends, in a file that has this byte."""
        block_bytes = self._ask(path, op="GETFILESTATUS")["FileStatus"]["blockSize"]
        block_start = at - at % block_bytes
        return block_start, block_start + block_bytes

    def _can_read(self, path: str, at: int) -> bool:
        return self._try(path, at, at + 1) is not None

    def _try(self, path: str, start: int, end: int) -> bytes | None:
        """Return the bytes `[start, end)`, None when they cannot be read."""
        for _ in range(NARROWING_ATTEMPTS):
            try:
                return self._persist(path, lambda: b"".join(self._stream(path, start, end)))
            except _Refused:
                continue
        return None

    # --- Asking --------------------------------------------------------------------------------------

    def _full(self, path: str) -> str:
        return "/" + "/".join(filter(None, (self._root, path)))

    def _wait_seconds(self, failures: int) -> float:
        return float(min(self._source.retry_wait_seconds * 2 ** (failures - 1), RETRY_WAIT_MAX_SECONDS))

    def _persist(self, path: str, ask: Callable[[], T]) -> T:
        """Return what `ask` returns; RetriableError when no node has answered after some attempts."""
        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_NotAnswering),
                stop=tenacity.stop_after_attempt(self._source.max_attempts),
                wait=lambda state: self._wait_seconds(state.attempt_number),
                reraise=True,
            )(ask)
        except _NotAnswering as error:
            raise RetriableError(f"asking HDFS about {self._full(path)}: {error}") from error

    def _ask(self, path: str, **question: str) -> dict[str, Any]:
        """Return the name node's answer; raises _NotThere, _Refused, RetriableError."""

        def ask() -> dict[str, Any]:
            with self._get(self._url(path), question) as answer:
                found: dict[str, Any] = answer.json()
                return found

        return self._persist(path, ask)

    def _url(self, path: str) -> str:
        return f"http://{self._name_node}/webhdfs/v1{quote(self._full(path))}"

    @contextmanager
    def _data_node(self, path: str, **question: str | int) -> Iterator[requests.Response]:
        """The answer of the data node that the name node sends us to."""
        for _ in range(OTHER_NODE_TRIES):
            with self._get(self._url(path), question) as answer:
                where = answer.headers.get("Location", "")
            node = urlsplit(where).netloc
            if node not in self._failed_nodes:
                break
        try:
            with self._get(where, {}) as answer:
                yield answer
        except (_NotAnswering, _Refused):
            self._failed_nodes.add(node)
            raise
        self._failed_nodes.discard(node)

    @contextmanager
    def _get(self, url: str, question: dict[str, str | int] | dict[str, str]) -> Iterator[requests.Response]:
        """An answer with status 200 or 307, whose body is read while it is given out.

        Raises _NotThere, _NotAnswering, _Refused, and ConfigurationError when the user is not allowed to.
        """
        user = {"user.name": self._source.hdfs_user} if question and self._source.hdfs_user else {}
        node = urlsplit(url).netloc
        try:
            with self._session.get(
                url,
                params={**question, **user},
                stream=True,
                allow_redirects=False,
                timeout=(self._source.connect_timeout_seconds, self._source.read_timeout_seconds),
            ) as answer:
                self._check(node, answer)
                yield answer
        except requests.exceptions.ChunkedEncodingError as error:
            raise _Refused(f"{node} broke its answer off") from error
        except requests.RequestException as error:
            raise _NotAnswering(f"{node} does not answer ({type(error).__name__})") from error

    def _check(self, node: str, answer: requests.Response) -> None:
        if answer.status_code in {HTTPStatus.OK, HTTPStatus.TEMPORARY_REDIRECT}:
            return
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise _NotThere
        name, message = "", answer.text[:500]
        try:
            remote = answer.json()["RemoteException"]
            name, message = remote["exception"], remote["message"]
        except (requests.RequestException, KeyError, TypeError):
            pass  # Not an answer of HDFS, or a broken one: its status says enough.
        message = f"{node} answers {answer.status_code} {name}: {message}"
        if name in _NOT_ALLOWED or answer.status_code == HTTPStatus.UNAUTHORIZED:
            user = self._source.hdfs_user or "the default user"
            raise ConfigurationError(
                f"{message} (as {user}; set another with TELEMETRY_LAKE_BACKFILL__SOURCE__HDFS_USER)"
            )
        if name in _REFUSALS:
            raise _Refused(message)
        raise _NotAnswering(message)
