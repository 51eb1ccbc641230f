"""Histogram definitions from a folder, S3 and an upstream server: real ones, on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from telemetry_lake.convert import definition_store
from telemetry_lake.convert.definition_store import DEFINITIONS_MAX_BYTES, DefinitionStore, NoDefinitions
from telemetry_lake.object_store import ObjectStore
from tests.convert.ping_builders import REVISION, settings

TEXT = json.dumps({"X": {"kind": "flag"}}).encode()
PATH = "releases/mozilla-release/a55c55edf302/Histograms.json"


class Upstream(ThreadingHTTPServer):
    """Answers what a test tells it to, and remembers what it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.text, self.pause = 200, TEXT, threading.Event()
        self.pause.set()
        self.asked = []

    @property
    def template(self):
        return f"http://127.0.0.1:{self.server_port}/{{repository}}/raw-file/{{revision}}/Histograms.json"


class Answer(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.pause.wait(10)
        self.send_response(self.server.status)
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


def test_folder_is_asked_once(tmp_path):
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
    ],
)
def test_revision_that_is_no_commit_is_asked_of_nobody(tmp_path, upstream, wrong):
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    with pytest.raises(NoDefinitions):
        store.definitions(wrong)
    assert upstream.asked == []


def test_what_upstream_gives_is_kept_in_the_folder(tmp_path, upstream):
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    assert "X" in store.definitions(REVISION)
    assert upstream.asked == ["/releases/mozilla-release/raw-file/a55c55edf302/Histograms.json"]
    assert (tmp_path / PATH).read_bytes() == TEXT
    assert [file.name for file in (tmp_path / PATH).parent.iterdir()] == ["Histograms.json"]
    store_in(tmp_path, histogram_definitions_upstream_url=upstream.template).definitions(REVISION)
    assert len(upstream.asked) == 1


def test_a_revision_that_is_not_there_is_asked_for_again_later(tmp_path, upstream):
    clock = Clock()
    upstream.status = 404
    store = store_in(tmp_path, clock, histogram_definitions_upstream_url=upstream.template)
    for _ in range(3):
        with pytest.raises(NoDefinitions):
            store.definitions(REVISION)
    assert len(upstream.asked) == 1
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
    assert len(upstream.asked) == 1
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
    with pytest.raises(NoDefinitions, match="did not answer"):
        store.definitions(REVISION)


def test_invented_revisions_are_asked_for_within_a_limit(tmp_path, upstream, monkeypatch):
    monkeypatch.setattr(definition_store, "UPSTREAM_MAX_REQUESTS", 3)
    upstream.status = 404
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    for number in range(10):
        with pytest.raises(NoDefinitions):
            store.definitions(revision(number))
    assert len(upstream.asked) == 3


@pytest.mark.parametrize("text", [b"<html>", b"[]", b""])
def test_what_is_not_a_histograms_json_is_not_kept(tmp_path, upstream, text):
    upstream.text = text
    store = store_in(tmp_path, histogram_definitions_upstream_url=upstream.template)
    with pytest.raises(NoDefinitions, match="not a Histograms"):
        store.definitions(REVISION)
    assert not (tmp_path / PATH).exists()


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


def test_s3_is_asked_before_upstream(tmp_path, upstream, lake_settings):
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
    assert upstream.asked == []
    assert "X" in store.definitions(revision(1))
    assert len(upstream.asked) == 1
