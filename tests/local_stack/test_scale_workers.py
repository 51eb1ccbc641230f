"""What decides about the workers of a stack: its backlog, and who of them works; how they start and stop."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lake_testing.shipping import SAMPLE_MESSAGE
from lake_testing.stack import DrivenStack, Lake, wait_until
from local_stack.bring_up import take_down
from local_stack.celery_workers import worker_name
from local_stack.launch import describe
from local_stack.layout import Layout
from local_stack.program import Program
from local_stack.scale_workers import Backlog, Workers, backlog
from local_stack.supervision import Supervisor, start_supervisor, supervisor_configuration
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.storage.object_keys import raw_object_key
from telemetry_lake.storage.object_store import ObjectStore

DEADLINE_SECONDS = 30.0
IDLE = "sleep 1000 & wait"
BUSY = "sh -c 'sleep 1000 & wait' & wait"
"""A child of its child is a task."""


def test_the_backlog_is_what_has_a_message_the_newest_first(lake: Lake) -> None:
    store, queue = ObjectStore(lake.settings.s3), IndexQueue(lake.settings.sqs)
    bucket, today = lake.settings.s3.raw_bucket, datetime.now(UTC)
    assert backlog(store, queue, bucket, now=today) == Backlog(0, 0.0)
    for days, size in ((2, 1_000), (1, 100), (1, 10), (0, 1)):
        key = raw_object_key(today - timedelta(days=days), "node-1", f"of-{size}-bytes")
        store.put(bucket, key, b"x" * size)

    queue.send_all([SAMPLE_MESSAGE] * 2)
    now = datetime.now(UTC) + timedelta(seconds=30)
    seen = backlog(store, queue, bucket, now=now)
    assert seen.bytes == 11
    assert 29 <= seen.oldest_age_seconds < 60
    assert queue.receive(1, wait_seconds=5)
    assert backlog(store, queue, bucket, now=now) == seen, "what is in work counts"
    queue.send(SAMPLE_MESSAGE)
    assert backlog(store, queue, bucket, now=now).bytes == 111
    queue.send(SAMPLE_MESSAGE)
    assert backlog(store, queue, bucket, now=now).bytes == 111, "older days are not looked at"


@contextmanager
def supervised(layout: Layout, commands: Mapping[str, str]) -> Iterator[None]:
    """Run a supervisord with these programs, each a command of the shell; none is started."""
    programs = [
        Program(
            name=name,
            command=("/bin/sh", "-c", command),
            directory=layout.root,
            log_file=layout.log(name),
            check_health=lambda: None,
        )
        for name, command in commands.items()
    ]
    launchers = {program.name: describe(program, layout) for program in programs}
    layout.supervisor_configuration.write_text(supervisor_configuration(layout, programs, launchers))
    process = start_supervisor(layout)
    try:
        wait_until(
            Supervisor(layout).is_available, deadline_seconds=DEADLINE_SECONDS, what="supervisord answers"
        )
        yield
    finally:
        take_down(layout, lambda _text: None)
        process.wait(DEADLINE_SECONDS)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Workers 1 to 10 of a stack, of which the first is idle, the second has a task, and no other runs."""
    layout = Layout(tmp_path / "s")
    with supervised(layout, {worker_name(number): BUSY if number == 2 else IDLE for number in range(1, 11)}):
        found = Workers(layout)
        assert found.add(2) == [worker_name(1), worker_name(2)]
        wait_until(
            lambda: found.busy() == {worker_name(1): False, worker_name(2): True},
            deadline_seconds=DEADLINE_SECONDS,
            what="two workers run, one with a task",
        )
        yield found


def test_workers_are_started_in_their_order_and_stopped_by_name(workers: Workers) -> None:
    assert workers.names() == [worker_name(number) for number in range(1, 11)], "10 comes after 9"
    assert workers.add(1) == [worker_name(3)]
    workers.remove(worker_name(1))
    assert worker_name(1) not in workers.busy(), "one that stops takes no task any more"
    wait_until(
        lambda: workers.add(1) == [worker_name(1)],
        deadline_seconds=DEADLINE_SECONDS,
        what="a worker that has stopped is started again",
    )
    assert len(workers.add(20)) == 7, "no more than there are"


def test_scaling_needs_a_stack_with_workers(tmp_path: Path) -> None:
    stack = DrivenStack(tmp_path / "s")
    assert "is not running: start it with `python -m local_stack run`" in stack.command("scale", code=1)
    with supervised(stack.layout, {"elasticmq": IDLE}):
        assert "runs without workers: start it with --workers" in stack.command("scale", code=1)
