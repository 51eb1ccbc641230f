"""Histogram definitions from a folder, S3 and an upstream server: real ones, on loopback."""

import errno
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lake_testing.ping_builders import REVISION, settings
from telemetry_lake.histograms import definition_folder, definition_store, look_up_budget
from telemetry_lake.histograms.definition_store import DEFINITIONS_MAX_BYTES, DefinitionStore, NoDefinitions
from telemetry_lake.storage.object_store import ObjectStore

TEXT = json.dumps({"X": {"kind": "flag"}}).encode()
PATH = "releases/mozilla-release/a55c55edf302/Histograms.json"
KEPT = f".fetched/{PATH}"


class Upstream(ThreadingHTTPServer):
    """Answers as a test sets it, and remembers the paths of its requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.text, self.pause = 200, TEXT, threading.Event()
        self.pause.set()
        self.location = None
        self.requests = []

    @property
    def template(self):
        return f"http://127.0.0.1:{self.server_port}/{{repository}}/raw-file/{{revision}}/Histograms.json"


class Answer(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.pause.wait(10)
        self.send_response(self.server.status)
        if self.server.location is not None:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.pause.set()
        server.shutdown()


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


def store_in(tmp_path, clock=None, objects=None, **changes):
    return DefinitionStore(
        settings(histogram_definitions_directory=tmp_path, **changes), objects, clock=clock or Clock()
    )


def revision(number):
    return f"https://hg.mozilla.org/mozilla-central/rev/{number:012x}"


def test_the_folder_is_read_once(tmp_path):
    file = tmp_path / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(TEXT)
    store = store_in(tmp_path)
    first = store.definitions(REVISION)
    file.unlink()
    assert "X" in first
    assert store.definitions(REVISION) is first
    with pytest.raises(NoDefinitions, match="put them at"):
        store_in(tmp_path).definitions(REVISION)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        7,
        "",
        "tip",
        "http://hg.mozilla.org/mozilla-central/rev/tip",
        "http://hg.mozilla.org/mozilla-central/rev/A55C55EDF302",
        "http://hg.mozilla.org/../../etc/rev/a55c55edf302",
        "http://hg.mozilla.org/a//b/rev/a55c55edf302",
        "http://hg.mozilla.org/mozilla-central/rev/a55c55edf302/../../x",
        "http://hg.mozilla.org/a\n/rev/a55c55edf302",
        "file:///x/rev/a55c55edf302",
        "http://hg.mozilla.org/" + "a/" * 6 + "rev/a55c55edf302",
        "http://hg.mozilla.org/mozilla-central/rev/" + "a" * 41,
        "http://hg.mozilla.org/mozilla-central/rev/aaaaa",
        f"http://{'h' * 1_000}/mozilla-central/rev/a55c55edf302",
    ],
)
def test_a_revision_that_is_not_a_commit_is_not_looked_up(tmp_path, upstream, wrong):
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    with pytest.raises(NoDefinitions):
        store.definitions(wrong)
    assert upstream.requests == []


def test_what_upstream_gives_is_kept_in_the_folder(tmp_path, upstream):
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    assert "X" in store.definitions(REVISION)
    assert upstream.requests == ["/releases/mozilla-release/raw-file/a55c55edf302/Histograms.json"]
    assert (tmp_path / KEPT).read_bytes() == TEXT
    assert [file.name for file in (tmp_path / KEPT).parent.iterdir()] == ["Histograms.json"]
    store_in(tmp_path, histogram_definitions_upstream_url=upstream.template).definitions(REVISION)
    assert len(upstream.requests) == 1


def test_a_missing_revision_is_looked_up_again_later(tmp_path, upstream):
    clock = Clock()
    upstream.status = 404
    store = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
    for _ in range(3):
        with pytest.raises(NoDefinitions):
            store.definitions(REVISION)
    assert len(upstream.requests) == 1
    upstream.status = 200
    clock.now += 301
    assert "X" in store.definitions(REVISION)


def test_an_upstream_in_trouble_is_left_alone_for_a_while(tmp_path, upstream):
    clock = Clock()
    upstream.status = 503
    store = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
    for number in range(5):
        with pytest.raises(NoDefinitions):
            store.definitions(revision(number))
    assert len(upstream.requests) == 1
    upstream.status = 200
    clock.now += 301
    assert "X" in store.definitions(revision(1))


def test_an_upstream_that_does_not_answer_in_time(tmp_path, upstream):
    upstream.pause.clear()
    store = store_in(
        tmp_path,
        histogram_definitions_upstream_url=upstream.template,
        histogram_definitions_timeout_seconds=0.2,
    )
    with pytest.raises(NoDefinitions, match="failed"):
        store.definitions(REVISION)


def test_invented_revisions_are_looked_up_within_a_limit_of_the_whole_machine(
    tmp_path, upstream, monkeypatch
):
    monkeypatch.setattr(look_up_budget, "LOOK_UPS_MAX", 3)
    clock = Clock()
    upstream.status = 404
    for first in (0, 10):
        process = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
        for number in range(first, first + 10):
            with pytest.raises(NoDefinitions):
                process.definitions(revision(number))
    assert len(upstream.requests) == 3
    upstream.status = 200
    clock.now += look_up_budget.PERIOD_SECONDS
    assert "X" in process.definitions(revision(12)), "a refusal lasts no longer than the period"


def test_look_ups_in_s3_are_counted_too(tmp_path, lake_settings, monkeypatch):
    monkeypatch.setattr(look_up_budget, "LOOK_UPS_MAX", 3)

    class Counting(ObjectStore):
        looked_up = 0

        def get_or_none(self, bucket, key):
            self.looked_up += 1
            return super().get_or_none(bucket, key)

    objects = Counting(lake_settings.s3)
    prefix = f"s3://{lake_settings.s3.lake_bucket}/definitions/"
    store = store_in(tmp_path, objects=objects, histogram_definitions_s3_prefix=prefix)
    for number in range(10):
        with pytest.raises(NoDefinitions):
            store.definitions(revision(number))
    assert objects.looked_up == 3


def test_what_one_process_missed_the_next_one_does_not_look_up(tmp_path, upstream):
    clock = Clock()
    upstream.status = 404
    for _ in range(2):
        process = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
        with pytest.raises(NoDefinitions, match="put them at"):
            process.definitions(REVISION)
    assert len(upstream.requests) == 1
    upstream.status = 503
    for number in range(2):
        process = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
        with pytest.raises(NoDefinitions, match="failed"):
            process.definitions(revision(number))
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b'{"look_ups": "many"}', b"\x00" * 100])
def test_a_damaged_file_of_limits_counts_as_none(tmp_path, upstream, damage):
    (tmp_path / ".look_ups.json").write_bytes(damage)
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    assert "X" in store.definitions(REVISION)


def test_limits_of_before_the_machine_started_do_not_count(tmp_path, upstream, monkeypatch):
    monkeypatch.setattr(look_up_budget, "LOOK_UPS_MAX", 1)
    clock = Clock()
    clock.now = 1e6
    upstream.status = 503
    store = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
    with pytest.raises(NoDefinitions):
        store.definitions(REVISION)
    upstream.status = 200
    restarted = store_in(tmp_path, Clock(), histogram_definitions_upstream_url=upstream.template)
    assert "X" in restarted.definitions(REVISION)


def test_a_folder_that_cannot_be_written_leaves_a_limit_for_each_process(tmp_path, upstream, monkeypatch):
    monkeypatch.setattr(look_up_budget, "LOOK_UPS_MAX", 3)
    upstream.status = 404
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    store = store_in(not_a_folder, histogram_definitions_upstream_url=upstream.template)
    for number in range(10):
        with pytest.raises(NoDefinitions):
            store.definitions(revision(number))
    assert len(upstream.requests) == 3


def test_the_host_that_a_ping_names_means_nothing(tmp_path, upstream):
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    first = store.definitions(revision(1))
    (tmp_path / ".fetched" / "mozilla-central" / f"{1:012x}" / "Histograms.json").unlink()
    assert store.definitions(revision(1).replace("hg.mozilla.org", "invented.example")) is first
    upstream.status = 404
    for host in ("hg.mozilla.org", "invented.example", "hg.mozilla.org:443"):
        with pytest.raises(NoDefinitions):
            store.definitions(revision(2).replace("hg.mozilla.org", host))
    assert len(upstream.requests) == 2


def test_a_redirect_is_not_followed(tmp_path, upstream):
    with Upstream() as elsewhere:
        upstream.status = 302
        upstream.location = elsewhere.template
        store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
        with pytest.raises(NoDefinitions, match="302"):
            store.definitions(REVISION)


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path, upstream, monkeypatch):
    def fails(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    assert "X" in store.definitions(REVISION)
    assert list((tmp_path / KEPT).parent.iterdir()) == []


@pytest.mark.parametrize("limit", [("KEPT_MAX_COUNT", 2), ("KEPT_MAX_BYTES", 2 * len(TEXT) + 1)])
def test_of_what_was_fetched_the_least_used_goes_first(tmp_path, upstream, monkeypatch, limit):
    monkeypatch.setattr(definition_folder, *limit)
    template = upstream.template
    placed = tmp_path / "mozilla-central" / f"{0:012x}" / "Histograms.json"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(TEXT)
    for number in (1, 2):
        store_in(tmp_path, histogram_definitions_upstream_url=template).definitions(revision(number))
    for age, number in ((20, 1), (10, 2)):
        file = tmp_path / ".fetched" / "mozilla-central" / f"{number:012x}" / "Histograms.json"
        os.utime(file, (time.time() - age,) * 2)
    store_in(tmp_path).definitions(revision(1))
    store_in(tmp_path, histogram_definitions_upstream_url=template).definitions(revision(3))
    kept = {path.name for path in (tmp_path / ".fetched" / "mozilla-central").iterdir()}
    assert kept == {f"{number:012x}" for number in (1, 3)}
    assert placed.exists(), "what the operator put there is never removed"


@pytest.mark.parametrize("text", [b"<html>", b"[]", b""])
def test_what_is_not_a_histograms_json_is_not_kept(tmp_path, upstream, text):
    upstream.text = text
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    with pytest.raises(NoDefinitions, match="not a Histograms"):
        store.definitions(REVISION)
    assert not (tmp_path / KEPT).exists()


def test_definitions_at_their_limit_and_one_past_it(tmp_path, upstream):
    upstream.text = TEXT + b" " * (DEFINITIONS_MAX_BYTES - len(TEXT))
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    assert "X" in store.definitions(revision(1))
    upstream.text += b" "
    with pytest.raises(NoDefinitions, match="larger"):
        store.definitions(revision(2))


def test_memory_holds_the_revisions_used_last(tmp_path, monkeypatch):
    monkeypatch.setattr(definition_store, "REVISIONS_IN_MEMORY", 2)
    for number in range(3):
        file = tmp_path / "mozilla-central" / f"{number:012x}" / "Histograms.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(TEXT)
    store = store_in(tmp_path)
    zero = store.definitions(revision(0))
    one = store.definitions(revision(1))
    assert store.definitions(revision(0)) is zero
    store.definitions(revision(2))
    assert store.definitions(revision(0)) is zero
    assert store.definitions(revision(1)) is not one


def test_s3_comes_before_upstream(tmp_path, upstream, lake_settings):
    objects = ObjectStore(lake_settings.s3)
    bucket = lake_settings.s3.lake_bucket
    objects.put(bucket, f"definitions/{PATH}", json.dumps({"FROM_S3": {"kind": "flag"}}).encode())
    store = store_in(
        tmp_path,
        objects=objects,
        histogram_definitions_s3_prefix=f"s3://{bucket}/definitions/",
        histogram_definitions_upstream_url=upstream.template,
    )
    assert "FROM_S3" in store.definitions(REVISION)
    assert upstream.requests == []
    assert "X" in store.definitions(revision(1))
    assert len(upstream.requests) == 1
