"""The package: the same bytes for the same files, and what machines need of the project."""

import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from provisioning.package import (
    MACHINE_REQUIREMENTS,
    NEEDED,
    REQUIREMENTS,
    machine_requirements,
    make_package,
)
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT


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
        assert sorted(archive.getnames()) == sorted([*NEEDED, "web/static/app.js", MACHINE_REQUIREMENTS])


def test_machines_install_all_requirements_but_those_of_spark_with_their_hashes():
    every = (PROJECT_ROOT / REQUIREMENTS).read_text()
    for_machines = machine_requirements().decode()
    with tarfile.open(fileobj=io.BytesIO(make_package().body)) as archive:
        member = archive.extractfile(MACHINE_REQUIREMENTS)
        assert member is not None
        assert member.read().decode() == for_machines

    def named(text: str) -> list[str]:
        return re.findall(r"^([\w.-]+)==", text, re.MULTILINE)

    assert set(named(every)) - set(named(for_machines)) == {"pyspark", "py4j"}
    left_out = re.search(r"^pyspark==.*\n( +.*\n)+", every, re.MULTILINE)
    assert left_out is not None
    assert not any(digest in for_machines for digest in re.findall("sha256:[0-9a-f]+", left_out[0]))


def test_what_is_missing_is_named(clone):
    (clone / "requirements.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"requirements\.txt is missing: run this in a clone"):
        make_package(clone)
