"""A script that is tried: right, wrong, and of every kind that a person may give by mistake or on purpose."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from lake_testing.lake_of_scripts import LakeOfScripts
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY
from telemetry_lake.analysis_jobs.documents import JobRequest
from telemetry_lake.analysis_jobs.sandbox import try_it
from telemetry_lake.analysis_jobs.sandbox.box import sandbox_state
from telemetry_lake.analysis_jobs.sandbox.try_it import Trials, TryResult
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.units import MIB

EVERYTHING: Final = JobRequest(dates="all")
COUNTS: Final = """
import json, sys
import helping

print("begun with", sys.argv[1:])

def map(key, dimensions, value, context):
    context.write(helping.word(dimensions), json.loads(value) and 1)

def reduce(key, values, context):
    context.write(key, sum(values))
"""
ONE: Final = "def map(key, dimensions, value, context):\n    "


@pytest.fixture
def trials(lake_of_scripts: LakeOfScripts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake_of_scripts.env_file))
    monkeypatch.setenv("SECRET_OF_THE_STACK", "hush")
    trials = Trials(lake_of_scripts.settings)
    yield trials
    trials.close()


def tried(trials: Trials, script: str, request: JobRequest = EVERYTHING) -> TryResult:
    return trials.try_script({"script.py": script.encode()}, "script.py", request)


def test_a_script_is_tried_on_pings_of_the_request(trials: Trials) -> None:
    files = {"in/count.py": COUNTS.encode(), "in/helping.py": b"def word(dimensions): return dimensions[5]"}
    request = JobRequest(dates="2026-11-23..2026-11-24", format=OutputFormat.CSV)
    result = trials.try_script(files, "in/count.py", request, arguments=["--loud", "a b"])
    assert result.error is None
    assert result.output == f"20261123,{PINGS_PER_DAY}\n20261124,{PINGS_PER_DAY}\n"
    assert result.printed == "begun with ['--loud', 'a b']\n"
    assert (result.records, result.written, result.failures) == (2 * PINGS_PER_DAY, 2, 0)
    filtered = '{"dimensions": [{"field_name": "appName", "allowed_values": ["nothing has this"]}]}'
    with pytest.raises(FatalError, match=r"no pings of stable\.pings fit the dates and the filter"):
        tried(trials, COUNTS, JobRequest(dates="all", filter=filtered))
    with pytest.raises(FatalError, match=r"the filter .* cannot be used"):
        tried(trials, COUNTS, JobRequest(dates="all", filter="{"))


def test_what_is_wrong_with_a_script_is_told_with_its_line(trials: Trials) -> None:
    for script, error, records in (
        ("def map(key, dimensions, value, context)\n    pass\n", "script.py:1 is not Python 3.11", 0),
        ("import no_such_thing\n" + ONE + "pass", "script.py:1 (import no_such_thing) cannot be imported", 0),
        ("def reduce(key, values, context): pass", "script.py has no function map(key, dimensions", 0),
        ("print 'hello'\n", "script.py:1 is not Python 3.11", 0),
        (ONE + "value['x']", "script.py:2 (value['x']): TypeError", None),
    ):
        result = tried(trials, script)
        assert result.error is not None
        assert error in result.error, result
        assert "/box" not in result.error
        assert records is None or result.records == records


def test_a_script_that_fails_on_one_ping_says_on_which_and_shows_the_rest(trials: Trials) -> None:
    counts = "n = 0\ndef map(key, d, value, cx):\n    global n\n    n += 1\n    cx.write(1 // (n - 7), key)\n"
    result = tried(trials, counts + "def reduce(key, values, cx):\n    cx.write(key, len(values))\n")
    assert result.failures == 1
    assert result.error is not None
    assert "script.py:5 (cx.write(1 // (n - 7), key)): ZeroDivisionError" in result.error
    assert "document " in result.error
    assert result.records == DAYS * PINGS_PER_DAY
    assert result.output


FORGES: Final = f"""
import atexit, os

def forge():
    os.unlink('/box/out/result.json')
    os.symlink('/etc/passwd', '/box/out/result.json')

atexit.register(forge)
{ONE}pass
"""
MISBEHAVING: Final = {
    "never ends": (ONE + "while True: pass", "it was stopped after 10 seconds", ""),
    "eats memory": (ONE + "bytearray(2 << 30)", "MemoryError", ""),
    "fills the disk": (
        f"n = 0\n{ONE}global n; n += 1; open(f'/tmp/{{n}}', 'wb').write(b'x' * (8 << 20))",
        "it wrote more than 64 MiB",
        "",
    ),
    "prints secrets": (
        f"import os\nprint(os.environ, open('/proc/self/environ').read())\n{ONE}pass",
        None,
        "'TZ': 'UTC'",
    ),
    "prints much": (ONE + "print('x' * 9_000_000)", None, "x" * 1_000),
    "ends its process": (ONE + "__import__('os')._exit(3)", "ended its process (exit status 3)", ""),
    "writes over its report": (
        FORGES,
        "the script wrote over the report of its trial",
        "",
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not sandbox_state().is_apart, reason="bubblewrap is not installed: there is no box")
def test_a_script_that_does_not_behave_gets_an_answer(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (script, error, printed) in MISBEHAVING.items():
        # All but one have the time that a busy machine takes to start them.
        limits = replace(try_it.LIMITS, seconds=10 if name == "never ends" else 60, disk_bytes=64 * MIB)
        monkeypatch.setattr(try_it, "LIMITS", limits)
        result = tried(trials, script)
        assert (result.error is None) == (error is None), (name, result)
        assert error is None or error in str(result.error), name
        assert printed in result.printed, name
        assert len(result.printed) <= try_it.SHOWN_MAX_CHARACTERS, name
        assert "hush" not in result.printed, name
        assert "secret-of-" not in result.printed, name
