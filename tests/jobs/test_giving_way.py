"""Jobs on the worker's machine give way, as processes and as sessions."""

import subprocess
import sys

import pytest

from jobs.giving_way import OF_THIS_SESSION

SHOW = f"import os, pathlib; print(os.nice(0), pathlib.Path({str(OF_THIS_SESSION)!r}).read_text())"


@pytest.mark.skipif(not OF_THIS_SESSION.exists(), reason="this kernel does not group processes by session")
def test_a_command_and_its_session_have_the_niceness() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "jobs.giving_way", "7", sys.executable, "-c", SHOW],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert (shown[0], shown[-1]) == ("7", "7")
