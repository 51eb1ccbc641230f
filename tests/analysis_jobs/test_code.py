"""The code of a job in each form in which it may be given, and what is refused of it."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.analysis_jobs import code
from telemetry_lake.analysis_jobs.code import (
    FILES_MAX_BYTES,
    FILES_MAX_COUNT,
    code_of_file,
    code_of_repository,
    code_of_tarball,
    code_of_text,
    read_command,
    read_tarball,
)
from telemetry_lake.analysis_jobs.documents import CodeKind
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore

SCRIPT: Final = b"import helping\n\ndef map(key, dimensions, value, context):\n    helping.count(context)\n"
HELPER: Final = b"def count(context):\n    context.write('pings', 1)\n"

PARTS = st.text("abcXYZ09_-. é", min_size=1, max_size=12).filter(
    lambda part: part.strip(".") and not part.startswith("._")
)
FILES = st.dictionaries(PARTS, st.binary(max_size=200), min_size=1, max_size=3)


def tarball(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """Return a tarball with these files, and with other members after them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in others:
            archive.addfile(member)
    return packed.getvalue()


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def test_a_text_and_a_file_become_one_script() -> None:
    written = code_of_text("def map(key, dimensions, value, context):\r\n    pass")
    assert (written.code.kind, written.code.entry) == (CodeKind.TEXT, "script.py")
    assert written.files == {"script.py": b"def map(key, dimensions, value, context):\n    pass\n"}
    assert code_of_text(written.files["script.py"].decode()).code.digest == written.code.digest
    sent = code_of_file("C:\\Users\\me\\count.py", SCRIPT)
    assert (sent.code.entry, sent.code.origin, dict(sent.files)) == (
        *("count.py", "count.py"),
        {"count.py": SCRIPT},
    )
    with pytest.raises(FatalError, match=r"^script\.py:1 is not Python 3\.11"):
        code_of_text("print 'hello'")
    with pytest.raises(FatalError, match=r"count\.ipynb is not a Python file: give a \.py file"):
        code_of_file("count.ipynb", b"{}")
    with pytest.raises(FatalError, match="1,048,577 characters; 1,048,576 are allowed"):
        code_of_text("#" * (1024 * 1024 + 1))


@given(FILES, st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]))
def test_files_come_out_of_a_tarball_as_they_went_in(
    files: dict[str, bytes], compress: Callable[[bytes], bytes]
) -> None:
    inside = {f"job/{name}": content for name, content in files.items()}
    assert read_tarball(compress(tarball(inside))) == inside


def test_a_tarball_is_a_script_with_arguments() -> None:
    packed = gzip.compress(tarball({"./job/run.py": SCRIPT, "job/helping.py": HELPER}))
    given_code = code_of_tarball("job.tar.gz", packed, 'python ./job/run.py --by os "a b; rm -rf $HOME"')
    assert (given_code.code.entry, given_code.code.arguments) == (
        *("job/run.py",),
        ("--by", "os", "a b; rm -rf $HOME"),
    )
    assert given_code.files == {"job/run.py": SCRIPT, "job/helping.py": HELPER}
    assert code_of_tarball("job.tar.gz", packed, " ").code.entry == "job/run.py"
    two = tarball({"a.py": SCRIPT, "b.py": SCRIPT})
    with pytest.raises(FatalError, match=r"these have a `map`: a\.py, b\.py"):
        code_of_tarball("two.tar", two, "")
    with pytest.raises(FatalError, match=r"c\.py is not in the tarball; it has a\.py, b\.py"):
        code_of_tarball("two.tar", two, "c.py")


@pytest.mark.parametrize(
    "members, said",
    [
        (
            [member("../evil.py", tarfile.REGTYPE)],
            r"\.\./evil\.py in the tarball does not stay in its folder",
        ),
        ([member("a/../../evil.py", tarfile.REGTYPE)], "does not stay in its folder"),
        ([member("a/../evil.py", tarfile.REGTYPE)], "paths are relative, without"),
        ([member("/etc/cron.d/evil", tarfile.REGTYPE)], "paths are relative, without"),
        ([member("a\\..\\evil.py", tarfile.REGTYPE)], "paths are relative, without"),
        ([member("passwd", tarfile.SYMTYPE, "/etc/passwd")], "passwd in the tarball is a link, a device"),
        ([member("passwd", tarfile.LNKTYPE, "a.py")], "is a link, a device"),
        ([member("null", tarfile.CHRTYPE)], "is a link, a device"),
        ([member("pipe", tarfile.FIFOTYPE)], "is a link, a device"),
        ([member("n" * 256, tarfile.REGTYPE)], "at most 255 characters"),
        ([member("bell\x07.py", tarfile.REGTYPE)], r"'bell\\x07\.py' in the tarball: the name holds"),
        ([member("a.py", tarfile.REGTYPE)], r"a\.py is in the tarball twice"),
        ([member(f"{n}", tarfile.REGTYPE) for n in range(FILES_MAX_COUNT)], "500 files with 16,777,216"),
    ],
)
def test_a_tarball_holds_files_that_stay_in_their_folder(
    members: Sequence[tarfile.TarInfo], said: str
) -> None:
    with pytest.raises(FatalError, match=said):
        read_tarball(tarball({"a.py": b"pass"}, *members))


def test_a_tarball_has_limits_also_where_it_is_small() -> None:
    largest = b"\0" * FILES_MAX_BYTES
    assert len(read_tarball(gzip.compress(tarball({"a": largest})))["a"]) == FILES_MAX_BYTES
    with pytest.raises(FatalError, match="500 files with 16,777,216 bytes together"):
        read_tarball(gzip.compress(tarball({"a": largest, "b": b"x"})))
    bomb = gzip.compress(b"\0" * (3 * FILES_MAX_BYTES))
    assert len(bomb) < 100_000
    header = tarball({"a": b"x"})[:512]
    with pytest.raises(FatalError, match=r"more than 33,554,432 bytes when it is unpacked|is empty"):
        read_tarball(bomb)
    extended = header[:156] + b"x" + header[157:]  # a header of attributes that is as long as it says
    with pytest.raises(FatalError, match="the tarball"):
        read_tarball(gzip.compress(extended + b"\0" * (3 * FILES_MAX_BYTES)))
    with pytest.raises(FatalError, match="16,777,217 bytes; 16,777,216 are allowed"):
        read_tarball(b"x" * (code.TARBALL_MAX_BYTES + 1))


@pytest.mark.parametrize(
    "content", [b"", b"not a tarball" * 100, gzip.compress(b"x" * 600, mtime=0), b"\x1f\x8b\x00"]
)
def test_what_is_not_a_tarball_is_said(content: bytes) -> None:
    with pytest.raises(FatalError, match=r"the tarball (cannot be read|is empty)"):
        read_tarball(content)
    packed = gzip.compress(tarball({"a.py": b"x" * 10_000}))
    with pytest.raises(FatalError, match="the tarball cannot be read"):
        read_tarball(packed[:-20])


@pytest.mark.parametrize(
    "command, said",
    [
        ("./run.sh", r"run\.sh, which is not a Python file: name the script.* Shell scripts are not run"),
        ("run.py 'open", "the command cannot be read: No closing quotation"),
        ("run.py " + "a " * 51, "50 arguments of 1,000 characters"),
        ("run.py " + "a" * 1_001, "50 arguments of 1,000 characters"),
        ("a" * 4_001, "4,001 characters; 4,000 are allowed"),
    ],
)
def test_a_command_is_a_script_and_words(command: str, said: str) -> None:
    with pytest.raises(FatalError, match=said):
        read_command(command)


def test_a_path_below_the_scripts_brings_its_modules_along(lake_settings: Settings) -> None:
    store, bucket = ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket
    for name, content in {"run.py": SCRIPT, "helping.py": HELPER, "unused.py": b"x = 1"}.items():
        store.put(bucket, f"analyses/scripts/ours/{name}", content)
    found = code_of_repository(lake_settings, "ours/run.py", "--by os")
    assert (found.code.kind, found.code.origin) == (CodeKind.REPOSITORY, "ours/run.py")
    assert (found.code.entry, found.code.arguments) == ("run.py", ("--by", "os"))
    assert found.files == {"run.py": SCRIPT, "helping.py": HELPER}
    for path in ("../jobs/a.py", "/etc/a.py", "ours/run.sh"):
        with pytest.raises(FatalError, match="is not the path of a script below s3://"):
            code_of_repository(lake_settings, path)
