"""A disk that is full, fails or stalls: no false 200, and accepting again once it is well."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest_server.answers import RETRY_AFTER_SECONDS
from lake_testing.stack import Lake, wait_until
from tests.ingest.running_node import WITHOUT_SERVICES, RunningNode, request
from tests.ingest.shipped import read_shipped

NewNode = Callable[..., RunningNode]
TMPFS_BYTES = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def faulty_disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`faulty_disk.c`, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (apt-get install gcc) to build the library that makes a disk fail")
    library = tmp_path_factory.mktemp("faulty_disk") / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


class FaultyDisk:
    """What happens to the segments of a node from now on."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._order = directory / "order"
        self.environment = {**WITHOUT_SERVICES, "LD_PRELOAD": str(library), "FAULTY_DISK": str(self._order)}

    def now(self, what: str) -> None:
        """`EIO`, `ENOSPC`, `stall`, `short`, `directory` or `well`."""
        draft = self._order.with_suffix(".draft")
        draft.write_text(what)
        draft.rename(self._order)


@pytest.fixture
def disk(faulty_disk_library: Path, tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(faulty_disk_library, tmp_path)


def submit(node: RunningNode, name: bytes, body: bytes = b"{}") -> int:
    answer = node.ask(request(b"/submit/telemetry/" + name, body))
    if answer.status in (503, 507):
        assert answer.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
    return answer.status


def names(node: RunningNode) -> list[bytes]:
    return [ping.path.removeprefix(b"/submit/telemetry/") for ping in node.stored()]


def wait_until_accepting(node: RunningNode, name: bytes) -> None:
    wait_until(lambda: submit(node, name) == 200, deadline_seconds=90, what="the node accepts again")


@pytest.mark.parametrize("error,status,health", [("EIO", 503, 500), ("ENOSPC", 507, 507)])
def test_failed_flush(new_node: NewNode, disk: FaultyDisk, error: str, status: int, health: int) -> None:
    node = new_node(disk.environment).start()
    assert submit(node, b"good") == 200
    disk.now(error)
    assert submit(node, b"bad") == status
    assert node.get_privately("/__heartbeat__").status == health
    # For a second the disk is left alone.
    assert submit(node, b"refused") == status
    disk.now("well")
    wait_until_accepting(node, b"again")
    assert node.get_privately("/__heartbeat__").status == 200
    assert names(node) == [b"again", b"good"] or names(node) == [b"good", b"again"]
    # The segment whose flush failed is never written again; what it held before is sealed.
    (sealed,) = node.spool.sealed_segments()
    assert sealed.pings == 1
    assert node.spool.waiting_open().segments == 1
    assert node.metrics()["commit_failures_total"] >= 1
    assert node.get("/__lbheartbeat__").status == 200


def test_failed_flush_of_a_new_segment_leaves_nothing(new_node: NewNode, disk: FaultyDisk) -> None:
    node = new_node(disk.environment).start()
    disk.now("EIO")
    assert submit(node, b"bad") == 503
    assert node.spool.waiting_open().segments == node.spool.waiting_sealed().segments == 0
    disk.now("well")
    wait_until_accepting(node, b"good")
    assert names(node) == [b"good"]


def test_failed_flush_of_the_directory_of_a_new_segment(new_node: NewNode, disk: FaultyDisk) -> None:
    node = new_node(disk.environment).start()
    disk.now("directory")
    assert submit(node, b"bad") == 503
    disk.now("well")
    wait_until_accepting(node, b"good")
    assert names(node) == [b"good"]


def test_stalled_flush(new_node: NewNode, disk: FaultyDisk) -> None:
    node = new_node(disk.environment, commit_max_seconds=0.5).start()
    disk.now("stall")
    assert submit(node, b"stalled") == 503
    assert submit(node, b"refused") == 503
    assert node.get_privately("/__heartbeat__").status == 500
    disk.now("well")
    wait_until_accepting(node, b"good")
    # What was answered 503 may be stored: its client sends it again, and it is deduplicated later.
    assert set(names(node)) == {b"stalled", b"good"}


def test_short_writes_are_finished(new_node: NewNode, disk: FaultyDisk) -> None:
    node = new_node(disk.environment).start()
    disk.now("short")
    for number in range(5):
        assert submit(node, b"%d" % number, bytes(range(256)) * 40 * number) == 200
    assert [ping.body for ping in node.stored()] == [bytes(range(256)) * 40 * n for n in range(5)]


def test_stop_while_the_disk_stalls(new_node: NewNode, disk: FaultyDisk) -> None:
    node = new_node(disk.environment, commit_max_seconds=0.5, stop_answer_seconds=0.5, stop_ship_seconds=0.2)
    node.start()
    disk.now("stall")
    assert submit(node, b"stalled") == 503
    assert node.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(directory)],
        capture_output=True,
        check=False,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"only root can mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.slow
def test_full_disk_and_room_again(lake: Lake, small_disk: Path, embedded_s3) -> None:
    """507 while S3 is away and the disk is full; then everything that was acknowledged arrives once."""
    node = RunningNode(
        small_disk,
        {**lake.environment, "TELEMETRY_LAKE_S3__MAX_ATTEMPTS": "1"},
        spool_min_free_bytes=0,
        segment_max_bytes=1_000_000,
        segment_max_age_seconds=0.5,
    )
    node.log_file = small_disk.parent / "node.log"
    accepted = set()
    embedded_s3.kill()
    try:
        node.start()
        statuses = set()
        for number in range(3 * TMPFS_BYTES // 30_000):
            name = b"%d" % number
            statuses.add(submit(node, name, b"x" * 30_000))
            if 507 not in statuses:
                accepted.add(name)
        assert statuses == {200, 507}
        assert node.get_privately("/__heartbeat__").status == 507
        assert node.get("/__lbheartbeat__").status == 200
        embedded_s3.start()
        wait_until_accepting(node, b"room-again")
        accepted.add(b"room-again")
        wait_until(
            lambda: node.spool.waiting_open().segments + node.spool.waiting_sealed().segments == 0,
            deadline_seconds=120,
            what="everything is shipped",
        )
        assert node.stop() == 0
        paths = read_shipped(lake).paths
        assert {b"/submit/telemetry/" + name for name in accepted} <= set(paths)
        assert max(paths.values()) == 1
    finally:
        embedded_s3.start()
        node.kill()


def test_spool_limit(new_node: NewNode) -> None:
    node = new_node(spool_max_bytes=100_000).start()
    assert node.metrics()["spool_room_bytes"] == 100_000
    statuses = [submit(node, b"%d" % number, b"x" * 30_000) for number in range(6)]
    assert statuses == [200, 200, 200, 200, 507, 507]
    assert node.metrics()["spool_room_bytes"] == 0
    assert node.get_privately("/__heartbeat__").status == 507
    with contextlib.ExitStack() as room:
        for path in node.spool.open_directory.iterdir():
            moved = path.with_name("elsewhere")
            path.rename(moved)
            room.callback(moved.rename, path)
        wait_until_accepting(node, b"room-again")


def test_free_space_limit(new_node: NewNode) -> None:
    node = new_node(spool_min_free_bytes=1 << 60).start()
    assert submit(node, b"x") == 507
    assert node.metrics()["spool_room_bytes"] == 0
    assert node.get_privately("/__heartbeat__").status == 507
    assert node.stored() == []
