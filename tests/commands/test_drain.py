"""The commands that drain, replay, reconcile and rebuild, as somebody types them."""

import pytest
from typer.testing import CliRunner, Result

from lake_testing.shipping import assert_each_once, ship, ship_bytes
from lake_testing.stack import Lake
from telemetry_lake.__main__ import app
from telemetry_lake.drain.steps import UnfinishedDrain
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import ENV_FILE_VARIABLE


@pytest.fixture
def here(tabled_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake that commands find by themselves."""
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(tabled_lake.env_file))
    return tabled_lake


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_day_of_trouble_on_the_command_line(here):
    poison, shipped = ship_bytes(here.settings, b"not Arrow"), ship(here.settings, bad=1)
    drained = command("drain")
    assert "1 batches committed" in drained.stdout
    assert isinstance(drained.exception, UnfinishedDrain)
    assert poison.key in command("dead-letters").stdout
    assert "1 sent again" in command("replay", "dead-letters").stdout
    assert isinstance(command("drain").exception, UnfinishedDrain)
    replayed = command("replay", "rejected", "--error-type", "invalid_json", "--first-day", "2026-11-23")
    assert "1 rejected pings sent again" in replayed.stdout
    assert "were committed already" in command("replay", "raw-objects", "--first-day", "2026-11-23").stdout
    # What is damaged was given back, too, and is set aside once more.
    assert isinstance(command("drain").exception, UnfinishedDrain)
    assert "0 commit records were written again" in command("rebuild-ledger").stdout
    assert "0 never claimed" in command("reconcile").stdout
    assert "1 days open, 0 complete" in command("completeness").stdout
    assert "sent again" in command("rebuild-queue").stdout
    assert_each_once(here.settings, shipped)


def test_a_message_of_another_program_is_named_and_deleted(here):
    queue = IndexQueue(here.settings.sqs).dead_letters()
    queue._sqs.send_message(QueueUrl=queue._url(here.settings.sqs.dead_letter_queue_name), MessageBody="{}")
    assert "1 cannot be replayed and were left" in str(command("replay", "dead-letters").exception)
    deleted = command("replay", "dead-letters", "--delete-foreign")
    assert deleted.exit_code == 0
    assert "1 were no index messages and are deleted" in deleted.stdout
    assert "0 dead letters" in command("dead-letters").stderr


@pytest.mark.parametrize(
    "arguments", [["replay", "raw-objects"], ["replay", "rejected", "--first-day", "today"]]
)
def test_wrong_usage_is_explained(here, arguments):
    wrong = command(*arguments)
    assert wrong.exit_code == 2
    assert "first-day" in wrong.stderr
