"""The package: the same bytes for the same files, and what machines need of the project."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from provisioning.package import NEEDED, make_package
from telemetry_lake.failures import ConfigurationError


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for name in (
        *NEEDED,
        "web/static/app.js",
        "web/frontend/src/app.js",
        "tests/test_x.py",
        "java/lib/x.jar",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_equal_files_give_equal_bytes_wherever_and_whenever_they_are(clone, tmp_path):
    first = make_package(clone)
    other = tmp_path / "elsewhere"
    shutil.copytree(clone, other, copy_function=shutil.copyfile)
    (other / "requirements.txt").chmod(0o600)
    (other / "telemetry_lake" / "__pycache__").mkdir()
    (other / "telemetry_lake" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert make_package(other) == first
    (other / "requirements.txt").write_text("changed")
    assert make_package(other).key != first.key


def test_it_holds_what_runs_and_nothing_else(clone):
    with tarfile.open(fileobj=io.BytesIO(make_package(clone).body)) as archive:
        assert sorted(archive.getnames()) == sorted([*NEEDED, "web/static/app.js"])


def test_what_is_missing_is_named(clone):
    (clone / "requirements.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"requirements\.txt is missing: run this in a clone"):
        make_package(clone)
