"""The code of a job over HTTP: tried before it is saved, given as a text, a file or a tarball, refused."""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lake_testing.sample_pings import DAYS, PINGS_PER_DAY

API = "/api/v1/analyses"
COUNTING = """\
def map(key, dimensions, value, context):
    context.write(dimensions[1], 1)


def reduce(key, values, context):
    context.write(key, sum(values))
"""


@pytest.fixture
def ada(service: Any) -> Iterator[httpx.Client]:
    with service.browser("ada") as client:
        yield client


def tarball(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("filled")
def test_a_script_is_tried_beside_its_form_and_nothing_is_saved(service: Any, ada: httpx.Client) -> None:
    form = {
        "csrf": service.csrf(ada),
        "name": "tried",
        "script": COUNTING,
        "request.dates": "all",
        "description": "kept",
    }
    answer = ada.post("/analyses/try-it", data=form)
    assert answer.status_code == 200, answer.text
    assert f"{DAYS * PINGS_PER_DAY} pings" in answer.text
    assert ">kept</textarea>" in answer.text
    begin = time.monotonic()
    document = {"name": "tried", "script": COUNTING, "request": {"dates": "all"}}
    warm = ada.post(f"{API}/try-it", json=document, headers=service.token_of(ada))
    seconds = time.monotonic() - begin
    assert warm.status_code == 200, warm.text
    outcome = warm.json()
    assert outcome["error"] is None
    assert outcome["records"] == DAYS * PINGS_PER_DAY
    counts = [line.split("\t") for line in outcome["output"].splitlines()]
    assert sum(int(count) for _, count in counts) == DAYS * PINGS_PER_DAY
    print(f"tried again in {seconds:.2f} s, {outcome['seconds']:.2f} s of them in the trial")
    assert ada.get("/analyses/jobs/tried").status_code == 404

    wrong = ada.post("/analyses/try-it", data={**form, "script": COUNTING.replace("[1]", "[99]")})
    assert "IndexError" in wrong.text
    assert "script.py:2" in wrong.text
    refused = ada.post("/analyses/try-it", data={**form, "request.dates": "someday"})
    assert refused.status_code == 400
    assert "request-dates" in refused.text
    assert ada.post("/analyses/try-it", data={**form, "csrf": "x"}).status_code == 403


def test_code_is_given_as_a_file_and_as_a_tarball_with_a_command_line(
    service: Any, ada: httpx.Client
) -> None:
    form = {"csrf": service.csrf(ada), "name": "as-a-file", "script": "ignored"}
    answer = ada.post("/analyses/jobs", data=form, files={"upload": ("count.py", COUNTING.encode())})
    assert answer.status_code == 303, answer.text
    document = ada.get(f"{API}/jobs/as-a-file").json()
    assert (document["code"]["kind"], document["code"]["entry"]) == ("file", "count.py")
    assert document["script"] == COUNTING

    packed = tarball({"count.py": f"import helping\n{COUNTING}", "helping.py": "x = 1\n"})
    answer = ada.post(
        f"{API}/jobs",
        data={"job": json.dumps({"name": "as-a-tarball", "command": "count.py --by 'the os'"})},
        files={"upload": ("code.tar.gz", packed)},
        headers=service.token_of(ada),
    )
    assert answer.status_code == 201, answer.text
    code = answer.json()["code"]
    assert (code["kind"], code["entry"], code["arguments"]) == ("tarball", "count.py", ["--by", "the os"])
    assert "helping.py" in ada.get("/analyses/jobs/as-a-tarball").text
    # Saved again without a file, it keeps its code.
    edited = {"csrf": form["csrf"], "version": "1", "description": "edited", "arguments": "--by\nthe os"}
    assert ada.post("/analyses/jobs/as-a-tarball", data=edited).status_code == 303
    assert ada.get(f"{API}/jobs/as-a-tarball").json()["code"] == code


@pytest.mark.parametrize(
    "name,content,status,sentence",
    [
        ("evil.tar.gz", tarball({"../../etc/cron.d/x": "x"}), 400, "does not stay in its folder"),
        ("evil.tgz", tarball({"/etc/passwd": "x"}), 400, "/etc/passwd in the tarball"),
        ("broken.tar.gz", b"\x1f\x8bnot a tarball", 400, "the tarball cannot be read"),
        ("script.sh", b"rm -rf /", 400, "the tarball cannot be read"),
        ("wrong.py", b"def map(", 400, "is not Python"),
        ("large.tar.gz", b"x" * 17_000_000, 413, "more than 16,777,216 bytes"),
    ],
    ids=["leaves its folder", "absolute", "broken", "no tarball", "no Python", "too large"],
)
def test_code_that_cannot_be_used_is_refused_with_a_sentence(
    service: Any, ada: httpx.Client, name: str, content: bytes, status: int, sentence: str
) -> None:
    answer = ada.post(
        "/analyses/jobs",
        data={"csrf": service.csrf(ada), "name": "refused", "command": "script.py"},
        files={"upload": (name, content)},
    )
    assert answer.status_code == status
    assert sentence.lower() in answer.text.lower()
    assert ada.get("/analyses/jobs/refused").status_code == 404
