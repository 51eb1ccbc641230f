"""The code of a job, as a person gives it: a text, a file, a tarball, or a path below the scripts in S3.

Whatever it was, what is kept is files by their paths, one of which is the script. Nothing is unpacked onto a
disk, nothing of it is run here, and no shell sees any of it.
"""

import bz2
import gzip
import io
import lzma
import shlex
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from telemetry_lake.analysis_jobs.documents import (
    ARGUMENT_MAX_CHARACTERS,
    ARGUMENTS_MAX_COUNT,
    ENTRY_MAX_CHARACTERS,
    Code,
    CodeKind,
    code_digest,
)
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import TEXT_MAX_CHARACTERS
from telemetry_lake.mapreduce.script.fetch import BESIDE_MAX_FILES, fetched, scripts_prefix
from telemetry_lake.mapreduce.script.script import SOURCE_MAX_BYTES, ScriptError, pack_script
from telemetry_lake.settings import Settings
from telemetry_lake.units import MIB

TEXT_SCRIPT: Final = "script.py"
"""What a script is called that was given as text."""
FILES_MAX_COUNT: Final = BESIDE_MAX_FILES
FILES_MAX_BYTES: Final = SOURCE_MAX_BYTES
TARBALL_MAX_BYTES: Final = 16 * MIB
UNPACKED_MAX_BYTES: Final = 2 * FILES_MAX_BYTES
"""The most that a tarball is unpacked to, with its headers and padding: the rest is not looked at."""
COMMAND_MAX_CHARACTERS: Final = 4_000
_LEFT_OUT: Final = frozenset({"__pycache__", ".git", "__MACOSX"})
_OPENERS: Final[Mapping[bytes, Callable[[io.BytesIO], io.BufferedIOBase]]] = {
    b"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


@dataclass(frozen=True, slots=True)
class GivenCode:
    """Checked code that is not kept yet: keep `files` by `JobStore.put_code`, and `code` in the job."""

    code: Code
    files: Mapping[str, bytes]


def code_of_text(text: str) -> GivenCode:
    """Return the code of a script that was written into a form; raises FatalError when it cannot be used."""
    if len(text) > TEXT_MAX_CHARACTERS:
        raise FatalError(
            f"the script has {len(text):,} characters; {TEXT_MAX_CHARACTERS:,} are allowed: give it as a file"
        )
    # A form may send the ends of lines of any system.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return _given(CodeKind.TEXT, {TEXT_SCRIPT: f"{lines}\n".encode(errors="replace")}, TEXT_SCRIPT)


def code_of_file(name: str, content: bytes) -> GivenCode:
    """Return the code of an uploaded Python file; raises FatalError when it cannot be used."""
    base = PurePosixPath(name.replace("\\", "/")).name
    if not base.endswith(".py"):
        raise FatalError(f"{_short(name)} is not a Python file: give a .py file, or a tarball")
    return _given(CodeKind.FILE, {base: content}, base, origin=base)


def code_of_tarball(name: str, content: bytes, command: str) -> GivenCode:
    """Return the code in an uploaded tarball; raises FatalError when it cannot be used.

    `command` names the script in it and may give it arguments, as on a command line: `count.py --by os`.
    Without one, the tarball has to have just one script at hand.
    """
    files = read_tarball(content)
    words = read_command(command)
    entry = words[0] if words else _only_script(files)
    return _given(CodeKind.TARBALL, files, entry, arguments=tuple(words[1:]), origin=_short(name))


def code_of_repository(settings: Settings, path: str, command: str = "") -> GivenCode:
    """Return the code at a path below the prefix for scripts in S3, with the modules that it imports.

    `command` gives the script arguments. Raises FatalError when it cannot be used.
    """
    prefix = scripts_prefix(settings)
    if not path.endswith(".py") or {"", ".", ".."} & set(path.split("/")):
        raise FatalError(f"{_short(path)} is not the path of a script below {prefix}, such as flash/count.py")
    with fetched(f"{prefix}{path}", settings.s3) as file:
        modules = pack_script(file).modules.values()
        files = {
            Path(module.file).relative_to(file.parent).as_posix(): Path(module.file).read_bytes()
            for module in modules
        }
    words = read_command(f"{file.name} {command}")
    return _given(CodeKind.REPOSITORY, files, file.name, arguments=tuple(words[1:]), origin=_short(path))


def read_command(command: str) -> list[str]:
    """Return the words of a command line: a script and its arguments. No shell is meant or asked.

    Raises FatalError when it cannot be read, or is not of a Python script.
    """
    if len(command) > COMMAND_MAX_CHARACTERS:
        raise FatalError(
            f"the command has {len(command):,} characters; {COMMAND_MAX_CHARACTERS:,} are allowed"
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise FatalError(f"the command cannot be read: {error}") from error
    if words and PurePosixPath(words[0]).name in ("python", "python3", "python2"):
        del words[0]
    if not words:
        return []
    words[0] = words[0].removeprefix("./")
    if not words[0].endswith(".py"):
        raise FatalError(
            f"the command begins with {_short(words[0])}, which is not a Python file: name the script with "
            "`map`, and give its arguments after it. Shell scripts are not run: dates and filter are fields "
            "of the job, and its output is kept for you"
        )
    if len(words) - 1 > ARGUMENTS_MAX_COUNT or max(map(len, words)) > ARGUMENT_MAX_CHARACTERS:
        raise FatalError(
            f"a script may have {ARGUMENTS_MAX_COUNT} arguments of {ARGUMENT_MAX_CHARACTERS:,} characters"
        )
    return words


def read_tarball(content: bytes) -> dict[str, bytes]:
    """Return the files in a tarball, plain or compressed by gzip, bzip2 or xz, by their paths.

    Raises FatalError when it holds anything but files and folders, or more than may be in it, or cannot be
    read.
    """
    if len(content) > TARBALL_MAX_BYTES:
        raise FatalError(f"the tarball has {len(content):,} bytes; {TARBALL_MAX_BYTES:,} are allowed")
    opener = next((opener for magic, opener in _OPENERS.items() if content.startswith(magic)), None)
    packed = io.BytesIO(content)
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=_Limited(opener(packed) if opener else packed), mode="r|") as archive:
            for member in archive:
                _add_member(files, archive, member)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        raise FatalError(f"the tarball cannot be read: {error}") from error
    if not files:
        raise FatalError("the tarball is empty")
    return files


def _add_member(files: dict[str, bytes], archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    name = member.name
    if member.isdir():
        return
    if not member.isreg():
        raise FatalError(
            f"{_short(name)} in the tarball is a link, a device or something else that is not a file: "
            "only files and folders may be in it"
        )
    try:
        # What Python's own unpacking would refuse: absolute paths, `..`, and whatever leads out of a folder.
        tarfile.data_filter(member, "/code")
    except tarfile.FilterError as error:
        raise FatalError(f"{_short(name)} in the tarball does not stay in its folder: {error}") from error
    path = PurePosixPath(name)
    if name.startswith("/") or ".." in path.parts or len(name) > ENTRY_MAX_CHARACTERS or "\\" in name:
        raise FatalError(
            f"{_short(name)} in the tarball: paths are relative, without .. and backslashes, and have "
            f"at most {ENTRY_MAX_CHARACTERS} characters"
        )
    if not name.isprintable():
        raise FatalError(f"{_short(name)} in the tarball: the name holds a character that cannot be shown")
    if _LEFT_OUT & set(path.parts) or path.name.startswith("._"):
        return
    if str(path) in files:
        raise FatalError(f"{_short(name)} is in the tarball twice")
    size = member.size + sum(map(len, files.values()))
    if len(files) >= FILES_MAX_COUNT or size > FILES_MAX_BYTES:
        raise FatalError(
            f"a tarball may have {FILES_MAX_COUNT:,} files with {FILES_MAX_BYTES:,} bytes together: pings "
            "and results do not belong into it"
        )
    file = archive.extractfile(member)
    assert file is not None
    files[str(path)] = file.read()


class _Limited(io.RawIOBase):
    """A file that is read up to `UNPACKED_MAX_BYTES`: a small one may be compressed from a huge one."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._room = UNPACKED_MAX_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._source.read(min(size, self._room + 1) if size >= 0 else self._room + 1)
        self._room -= len(content)
        if self._room < 0:
            raise FatalError(
                f"the tarball has more than {UNPACKED_MAX_BYTES:,} bytes when it is unpacked: too many"
            )
        return content


def _only_script(files: Mapping[str, bytes]) -> str:
    scripts = [name for name, text in files.items() if name.endswith(".py") and b"def map(" in text]
    if len(scripts) == 1:
        return scripts[0]
    have = ", ".join(map(_short, sorted(scripts)[:10])) if scripts else "none"
    raise FatalError(f"name the script: of the files in the tarball, these have a `map`: {have}")


def _given(
    kind: CodeKind,
    files: Mapping[str, bytes],
    entry: str,
    *,
    arguments: tuple[str, ...] = (),
    origin: str | None = None,
) -> GivenCode:
    """Return code after reading its script, and what that imports, as a run will."""
    if entry not in files:
        raise FatalError(f"{_short(entry)} is not in the tarball; it has {', '.join(sorted(files)[:10])}")
    if sum(map(len, files.values())) > FILES_MAX_BYTES:
        raise FatalError(f"a script with its modules may have {FILES_MAX_BYTES:,} bytes together")
    try:
        code = Code(kind=kind, digest=code_digest(files), entry=entry, arguments=arguments, origin=origin)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"][0] == "entry":
            message = "use letters, digits, spaces and ._-/ in the names of scripts"
        raise FatalError(f"{_short(entry)} cannot be kept: {message}") from error
    with tempfile.TemporaryDirectory(prefix="code-") as folder:
        for name, content in files.items():
            file = Path(folder, name)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            except OSError as error:
                raise FatalError(f"{_short(name)} is a file and a folder in the tarball") from error
        try:
            pack_script(Path(folder, entry))
        except ScriptError as error:
            raise ScriptError(str(error).replace(f"{folder}/", "")) from error
    return GivenCode(code, files)


def _short(text: str) -> str:
    """Return a name for a message: printable, and not longer than one is."""
    shown = text if len(text) <= ENTRY_MAX_CHARACTERS else f"{text[:ENTRY_MAX_CHARACTERS]}…"
    return shown if shown.isprintable() else ascii(shown)
