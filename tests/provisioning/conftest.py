"""An environment of the emulator with templates of its own, and the command line that deploys it."""

import shutil
import uuid
from pathlib import Path

import boto3
import pytest

import provisioning.first_ping
import provisioning.rolling
import provisioning.stacks
from lake_testing.aws_emulator import AwsEmulator
from lake_testing.emulated_environment import Environment

DATA = Path(__file__).parent / "data" / "templates"


@pytest.fixture
def environment(aws_emulator: AwsEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    aws_emulator.reset()
    for name, value in aws_emulator.root().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    # boto3 keeps the keys that the first test of a process had.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("COLUMNS", "200")
    for module in (provisioning.stacks, provisioning.rolling):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(provisioning.first_ping, "LOOK_SECONDS", 0.5)
    templates = tmp_path / "templates"
    shutil.copytree(DATA, templates)
    return Environment(f"t{uuid.uuid4().hex[:6]}", aws_emulator, templates, tmp_path / "values.json")
