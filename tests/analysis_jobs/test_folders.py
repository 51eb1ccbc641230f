"""Folders that end with the process that made them, also when that was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

from telemetry_lake.analysis_jobs.sandbox.folders import new_folder, remove_folder


def test_folders_of_killed_processes_are_removed_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, of_another_kind = new_folder("box"), new_folder("pings")
    make = "from telemetry_lake.analysis_jobs.sandbox.folders import new_folder; import os, signal; "
    killed = make + "print(new_folder('box'), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", killed],
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    (left / "pings").write_text("of somebody")
    (tmp_path / "telemetry-lake-box-of-somebody-else").mkdir()
    another = new_folder("box")
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "telemetry-lake-box-of-somebody-else",
        *(folder.name for folder in (mine, another, of_another_kind)),
    }
    assert mine.stat().st_mode & 0o077 == 0
    remove_folder(mine)
    assert not mine.exists()
