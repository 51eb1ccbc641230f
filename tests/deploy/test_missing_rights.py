"""Every command with each right of its role missing in turn: one sentence names it, after few requests."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from lake_testing.lake_of_roles import LakeOfRoles
from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.refusing_queue import RefusingQueue, refusing_queue
from lake_testing.shipping import ship
from local_stack.lake_environment import env_file_text, role_keys_text
from telemetry_lake import __main__ as program
from telemetry_lake.deploy.roles import RIGHTS, Listing, Messages, Objects, Queue, Right, Tables
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.settings import ENV_FILE_VARIABLE, AccessKey, Role

REQUESTS_MAX: Final = 150
"""A command that lacks nothing takes about as many to S3, SQS and the catalog together."""
LINES_MAX: Final = 6
SQL: Final = "SELECT count(document_id) FROM live.pings"


@dataclass
class Outcome:
    """What a command did: its exit code, what it wrote to standard error, and how often it asked."""

    code: int
    errors: str
    requests: int


class Commands:
    """Runs commands with the keys of a role, one of whose rights may be missing."""

    def __init__(self, lake: LakeOfRoles, s3: str, catalog: str, queue: RefusingQueue, file: Path) -> None:
        self.lake = lake
        self.requests: list[str] = []
        self._queue = queue
        self._file = file
        self._urls = {lake.s3.s3_url: s3, lake.s3.catalog_url: catalog, lake.sqs.url: queue.url}

    def run(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        role: Role,
        missing: Right | None,
        arguments: list[str],
    ) -> Outcome:
        settings = self.lake.of(role) if missing is None else self.lake.without(role, missing)
        assert settings.s3.access_key_id is not None
        assert settings.s3.secret_access_key is not None
        key = AccessKey(
            access_key_id=settings.s3.access_key_id, secret_access_key=settings.s3.secret_access_key
        )
        variables = {**self.lake.environment, "TELEMETRY_LAKE_ROLE_KEYS": role_keys_text({role: key})}
        text = env_file_text(variables)
        for url, proxied in self._urls.items():
            text = text.replace(url, proxied)
        self._file.write_text(text)
        monkeypatch.setenv(ENV_FILE_VARIABLE, str(self._file))
        monkeypatch.setattr(sys, "argv", ["telemetry_lake", *arguments])
        self._queue.refused = refused_by_the_queue(self.lake, missing)
        before = len(self.requests) + len(self._queue.requests)
        capsys.readouterr()
        try:
            program.run()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Outcome(code, capsys.readouterr().err, len(self.requests) + len(self._queue.requests) - before)


def refused_by_the_queue(lake: LakeOfRoles, missing: Right | None) -> frozenset[tuple[str, str]]:
    if not isinstance(missing, Messages):
        return frozenset()
    index, dead_letters = lake.sqs.queues
    name = index if missing.queue is Queue.INDEX else dead_letters
    return frozenset((action.removeprefix("sqs:"), name) for action in missing.actions)


@pytest.fixture
def commands(lake_of_roles: LakeOfRoles, tmp_path: Path) -> Iterator[Commands]:
    with contextlib.ExitStack() as stack:
        counted: list[str] = []

        def counting(line: str) -> bool:
            counted.append(line)
            return True

        s3 = stack.enter_context(lossy_proxy(lake_of_roles.s3.s3_url, counting))
        catalog = stack.enter_context(lossy_proxy(lake_of_roles.s3.catalog_url, counting))
        queue = stack.enter_context(refusing_queue(lake_of_roles.sqs.url))
        commands = Commands(lake_of_roles, s3, catalog, queue, tmp_path / "role.env")
        commands.requests = counted
        yield commands


NEEDS: Final[dict[str, tuple[Role, list[str]]]] = {
    "drain": (
        Role.DRAIN,
        [
            *("list raw", "list lake", "raw/v1/", "ledger/claims/", "batches/", "audits/"),
            *("live/", "tables", "index"),
        ],
    ),
    "reconcile": (Role.DRAIN, ["tables", "list raw", "list lake"]),
    "dead-letters": (Role.DRAIN, ["dead letters"]),
    "replay dead-letters": (Role.DRAIN, ["dead letters", "ledger/claims/", "index"]),
    "replay rejected": (
        Role.DRAIN,
        ["tables", "live/", "ledger/claims/", "batches/", "replays/", "raw/v1/*/replay/", "index"],
    ),
    "replay raw-objects --first-day 2026-11-23": (Role.DRAIN, ["list raw"]),
    "rebuild-queue": (Role.DRAIN, ["list raw"]),
    "rebuild-ledger": (Role.DRAIN, ["list lake"]),
    "create-tables": (Role.MAINTENANCE, ["tables"]),
    "tables": (Role.ANALYST, ["tables"]),
    "anomalies --check": (Role.ANOMALIES, ["live/", "monitoring/anomalies.json"]),
    "query": (Role.ANALYST, ["tables", ""]),
}
"""For each command the rights that it cannot do without, by their prefixes or names."""


def name_of(right: Right) -> str:
    match right:
        case Objects():
            return right.prefix
        case Listing():
            return f"list {right.bucket}{f'/{right.prefix}' if right.prefix else ''}"
        case Messages():
            return str(right.queue)
        case Tables():
            return "tables"


def names_the_right(errors: str, right: Right) -> bool:
    match right:
        case Tables():
            # SeaweedFS does not show a table to those who may not load it.
            return "in the catalog" in errors or "no right to load" in errors
        case Listing():
            return "s3:ListBucket" in errors
        case _:
            return any(action in errors for action in right.actions)


@pytest.mark.slow
@pytest.mark.parametrize("command", NEEDS)
def test_a_missing_right_is_said_in_a_sentence_and_costs_nothing(command, commands, monkeypatch, capsys):
    role, needed = NEEDS[command]
    arguments = command.split() + (
        ["SELECT count(document_id) FROM live.pings"] if command == "query" else []
    )
    lake = commands.lake
    if command in ("replay rejected", "query", "anomalies --check"):
        ship(lake.of(Role.NODE), good=1, bad=1)
        assert drain_once(lake.of(Role.DRAIN)).failures == []
    elif command != "drain":
        ship(lake.of(Role.NODE), send=False)
    if "dead-letters" in command:
        lake.bury()
    by_name = {name_of(right): right for right in RIGHTS[role]}
    for name in needed:
        if command == "drain":
            ship(lake.of(Role.NODE))
        right = by_name[name]
        outcome = commands.run(monkeypatch, capsys, role, right, arguments)
        assert outcome.code == 1, (name, outcome)
        assert names_the_right(outcome.errors, right), (name, outcome)
        assert "Traceback" not in outcome.errors, name
        assert len(outcome.errors.splitlines()) <= LINES_MAX, name
        assert outcome.requests <= REQUESTS_MAX, name
    if command == "drain":
        ship(lake.of(Role.NODE))
    assert commands.run(monkeypatch, capsys, role, None, arguments).code == 0
