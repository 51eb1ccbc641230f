"""An emulator of AWS for tests: ministack on a free loopback port, with rights checked as AWS checks them.

A pytest plugin, loaded by `tests/conftest.py`, with one fixture, `aws_emulator` (session): an `AwsEmulator`.
Tests of one process share it: give stacks, buckets, queues and roles names of your own, or call `reset()`. A
test that asks for it is skipped where `.venv-emulator` is missing, which `make install` makes.

`client("s3")` acts as the root user, who is refused nothing. So a test of rights takes the variables of
`assume(role_arn)`, or of `assume_for_long(role_arn)` for programs that outlive a session, and first calls
`assert_assumed`. What `lake_testing/exact_ministack.py` does not correct is in docs/deploying.md.
"""

import contextlib
import json
import os
import shutil
import stat
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session
import pytest
from botocore.config import Config

from lake_testing.stack import RunningProgram, free_ports
from local_stack.program import LOOPBACK, Program, probe
from telemetry_lake.project_files import PROJECT_ROOT

EMULATOR_PYTHON: Final = PROJECT_ROOT / ".venv-emulator" / "bin" / "python"
REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
ROOT_KEY: Final = "test"
SESSION_SECONDS: Final = 900
"""The shortest time for which AWS gives out credentials."""
REQUEST_TIMEOUT_SECONDS: Final = 60
PROFILE: Final = "assumed"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a caller was allowed to do something."""

    key: str
    action: str
    resource: str
    allowed: bool


class AwsEmulator:
    """A running ministack: where it listens, and how programs act in it as a role."""

    def __init__(self, directory: Path, *, keeps_state: bool = False) -> None:
        self.directory = directory
        self.port = free_ports(1)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.decisions_file = directory / "decisions.jsonl"
        self._decisions_before = 0
        self._session = boto3.session.Session()
        self.program = RunningProgram(self._program(keeps_state=keeps_state))

    def client(self, service: str, environment: Mapping[str, str] | None = None) -> Any:
        """Return a client of boto3 that acts as the root user, or with the keys in `environment`."""
        variables = environment or {"AWS_ACCESS_KEY_ID": ROOT_KEY, "AWS_SECRET_ACCESS_KEY": ROOT_KEY}
        config = Config(
            read_timeout=REQUEST_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": "path"},
        )
        return self._session.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=variables.get("AWS_SESSION_TOKEN"),
            config=config,
        )

    def root(self) -> dict[str, str]:
        """Return the variables of a process that acts as the root user."""
        return {
            **self._place(),
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_SESSION_TOKEN": "",
        }

    def assume(self, role_arn: str) -> dict[str, str]:
        """Return the variables of a process that acts as a role, for a quarter of an hour."""
        keys = self._credentials(role_arn)
        return {
            **self._place(),
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    def assume_for_long(self, role_arn: str) -> dict[str, str]:
        """Return the variables of a process that acts as a role as long as it lives.

        Its AWS libraries call a program for new credentials when the old ones end.
        """
        folder = self.directory / "profiles" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        program = folder / "credentials.sh"
        command = f"exec {sys.executable} -m lake_testing.aws_emulator {self.url} {role_arn}"
        program.write_text(f"#!/bin/sh\ncd {PROJECT_ROOT}\n{command}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        configuration = folder / "config"
        configuration.write_text(f"[profile {PROFILE}]\ncredential_process = {program}\nregion = {REGION}\n")
        return {
            **self._place(),
            "AWS_CONFIG_FILE": str(configuration),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PROFILE": PROFILE,
        }

    def assert_assumed(self, environment: Mapping[str, str], role_name: str) -> None:
        """Fail unless a process with these variables acts as this role.

        The root user is refused nothing, so that without this a test of rights can pass without testing any.
        """
        if "AWS_ACCESS_KEY_ID" not in environment:
            session = botocore.session.Session(profile=environment["AWS_PROFILE"])
            session.set_config_variable("config_file", environment["AWS_CONFIG_FILE"])
            found = session.get_credentials()
            assert found is not None
            keys = found.get_frozen_credentials()
            environment = {
                "AWS_ACCESS_KEY_ID": keys.access_key or "",
                "AWS_SECRET_ACCESS_KEY": keys.secret_key or "",
                "AWS_SESSION_TOKEN": keys.token or "",
            }
        caller = self.client("sts", environment).get_caller_identity()["Arn"]
        assert f":assumed-role/{role_name}/" in caller, f"not {role_name} but {caller}"

    def decisions(self) -> list[Decision]:
        """Return every decision since the last reset, in the order of the calls.

        Those on the root user are among them.
        """
        return [Decision(**json.loads(line)) for line in self._decision_lines()[self._decisions_before :]]

    def _decision_lines(self) -> list[str]:
        return self.decisions_file.read_text().splitlines() if self.decisions_file.exists() else []

    def reset(self) -> None:
        """Remove everything that was made in it."""
        request = urllib.request.Request(f"{self.url}/_ministack/reset", method="POST")
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:
            assert answer.status == 200
        self._decisions_before = len(self._decision_lines())

    def _credentials(self, role_arn: str) -> dict[str, Any]:
        return credentials_of(self.client("sts"), role_arn)

    def _place(self) -> dict[str, str]:
        return {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.url,
        }

    def _program(self, *, keeps_state: bool) -> Program:
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return Program(
            name="ministack",
            # -P: the modules beside the program are not those that ministack means.
            command=(str(EMULATOR_PYTHON), "-P", str(PROJECT_ROOT / "lake_testing" / "exact_ministack.py")),
            directory=self.directory,
            log_file=self.directory / "ministack.log",
            environment={
                "AUTH": "true",
                "BIND_HOST": LOOPBACK,
                "GATEWAY_PORT": str(self.port),
                "MINISTACK_HOST": LOOPBACK,
                "MINISTACK_REGION": REGION,
                "STATE_DIR": str(self.directory / "state"),
                "S3_DATA_DIR": str(self.directory / "objects"),
                "TMPDIR": str(temporary),
                "PERSIST_STATE": str(int(keeps_state)),
                "S3_PERSIST": str(int(keeps_state)),
                "DECISIONS_FILE": str(self.decisions_file),
                "AWS_ACCESS_KEY_ID": ROOT_KEY,
                "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
                "AWS_SESSION_TOKEN": "",
            },
            check_health=lambda: probe("the emulator of AWS", f"{self.url}/_ministack/health"),
            ports={self.port: "GATEWAY_PORT"},
        )


def credentials_of(sts: Any, role_arn: str) -> dict[str, Any]:
    """Return the keys of a new session of a role, and when they end."""
    session = sts.assume_role(
        RoleArn=role_arn, RoleSessionName=f"test-{uuid.uuid4().hex[:8]}", DurationSeconds=SESSION_SECONDS
    )
    keys: dict[str, Any] = session["Credentials"]
    return keys


@contextlib.contextmanager
def running_aws_emulator(directory: Path, *, keeps_state: bool = False) -> Iterator[AwsEmulator]:
    """Run an emulator with its files in `directory`.

    With `keeps_state` it has everything again after a restart.
    """
    emulator = AwsEmulator(directory, keeps_state=keeps_state)
    try:
        emulator.program.start()
        yield emulator
    finally:
        emulator.program.stop()


@pytest.fixture(scope="session")
def aws_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    if not EMULATOR_PYTHON.exists():
        pytest.skip("the emulator of AWS is not installed: `make install` makes .venv-emulator")
    directory = tmp_path_factory.mktemp("aws-emulator")
    with running_aws_emulator(directory) as emulator:
        yield emulator
    shutil.rmtree(directory, ignore_errors=True)


def main(url: str, role_arn: str) -> None:
    """Print the credentials of a role as AWS libraries read them from a `credential_process`."""
    sts = boto3.client(
        "sts",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=ROOT_KEY,
        aws_secret_access_key=ROOT_KEY,
    )
    keys = credentials_of(sts, role_arn)
    keys["Expiration"] = keys["Expiration"].isoformat()
    sys.stdout.write(json.dumps({"Version": 1, **keys}))


if __name__ == "__main__":
    main(*sys.argv[1:])
