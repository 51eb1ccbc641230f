"""What a fleet sends: the same for the same seed, of the size of real pings, and what each ping promises."""

import gzip
import itertools
import statistics
import struct
import zlib
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pytest

from client_fleet.clients import random_client
from client_fleet.documents import DocumentSource, main_ping
from client_fleet.gzip_parts import Document, section
from client_fleet.histograms import histogram_definitions
from client_fleet.pings import LIVE, NOT_STORED, OVERSIZED_BYTES, Ping, PingKind, Pings, Shares
from telemetry_lake.failures import ErrorType, PingRejected
from telemetry_lake.raw.submission_path import parse_submission_path

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SPECIAL = Shares(duplicates=0.1, late=0.1, malformed=0.3, oversized=0.01)
UNTIL_ALL_ERRORS = 1_500


def _pings(seed=7, shares=None, clients=200):
    return Pings(seed, clients, shares or Shares(), lambda: NOON)


def _take(pings, count):
    return list(itertools.islice(pings, count))


def _sent(ping):
    return ping.kind, ping.target, ping.headers, ping.body()


def _path_error(path):
    try:
        parse_submission_path(path)
    except PingRejected as rejection:
        return rejection.error_type
    return None


@pytest.fixture(scope="module")
def normal():
    return _take(_pings(), 1_500)


@pytest.fixture(scope="module")
def special():
    return _take(_pings(shares=SPECIAL), UNTIL_ALL_ERRORS)


def test_the_same_seed_sends_the_same_bytes():
    one, other = _pings(shares=SPECIAL), _pings(shares=SPECIAL)
    assert [_sent(ping) for ping in _take(one, 300)] == [_sent(ping) for ping in _take(other, 300)]


def test_another_seed_sends_other_pings():
    ids = {ping.document_id for ping in _take(_pings(seed=7), 200)}
    assert not ids & {ping.document_id for ping in _take(_pings(seed=8), 200)}


def test_bodies_have_the_size_of_real_ones(normal):
    bodies = [len(ping.body()) for ping in normal]
    documents = [len(ping.document.json()) for ping in normal if ping.document_type == "main"]
    assert 15_000 <= statistics.mean(bodies) <= 17_000
    assert 68_000 <= statistics.mean(documents) <= 76_000
    assert max(documents) > 1.8 * min(documents)


def test_every_body_is_one_gzip_member_of_the_document(normal):
    for ping in normal[:200]:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        assert decompressor.decompress(ping.body()) == ping.document.json()
        assert decompressor.eof
        assert not decompressor.unused_data
        assert isinstance(orjson.loads(ping.document.json()), dict)


def test_no_two_documents_are_the_same(normal):
    assert len({ping.document_id for ping in normal}) == len(normal)
    assert len({ping.document.json() for ping in normal}) == len(normal)


def test_histograms_fit_their_definitions(normal):
    definitions = {definition.name: definition for definition in histogram_definitions()}
    ping = next(ping for ping in normal if ping.document_type == "main")
    payload = orjson.loads(ping.document.json())["payload"]
    histograms = payload["histograms"] | payload["processes"]["content"]["histograms"]
    assert 150 < len(histograms) < len(definitions)
    for name, histogram in histograms.items():
        definition = definitions[name]
        assert {int(bucket) for bucket in histogram["values"]} <= set(definition.buckets)
        assert histogram["bucket_count"] == len(definition.buckets)
        assert histogram["range"] == [definition.low, definition.high]
        assert all(count >= 0 for count in histogram["values"].values())


def test_unified_pings_agree_with_their_path(normal):
    for ping in normal:
        path = parse_submission_path(ping.target.partition("?")[0])
        assert (path.document_id, path.document_type) == (ping.document_id, ping.document_type)
        if path.namespace != "telemetry":
            continue
        document = orjson.loads(ping.document.json())
        assert (document["id"], document["type"]) == (ping.document_id, ping.document_type)
        application = document["application"]
        assert [path.app_name, path.app_version, path.app_update_channel, path.app_build_id] == [
            application[name] for name in ("name", "version", "channel", "buildId")
        ]


def test_clients_keep_their_id_and_count_their_subsessions(normal):
    seen: dict[str, dict[str, Any]] = {}
    for ping in normal:
        if ping.document_type not in ("main", "saved-session"):
            continue
        document = orjson.loads(ping.document.json())
        info = document["payload"]["info"]
        before = seen.get(document["clientId"])
        if before is not None:
            assert info["profileSubsessionCounter"] == before["profileSubsessionCounter"] + 1
            assert info["previousSubsessionId"] == before["subsessionId"]
        seen[document["clientId"]] = info
    assert 100 < len(seen) <= 200


def test_shares_are_what_was_asked_for(special):
    kinds = Counter(ping.kind for ping in special)
    for kind, share in (
        (PingKind.DUPLICATE, SPECIAL.duplicates),
        (PingKind.LATE, SPECIAL.late),
        (PingKind.MALFORMED, SPECIAL.malformed),
        (PingKind.OVERSIZED, SPECIAL.oversized),
    ):
        assert kinds[kind] == pytest.approx(share * len(special), rel=0.6)


def test_duplicates_repeat_a_ping_before_them(special):
    before: dict[str, Ping] = {}
    for ping in special:
        if ping.kind is PingKind.DUPLICATE:
            assert _sent(ping)[1:] == _sent(before[ping.document_id])[1:]
        before.setdefault(ping.document_id, ping)


def test_late_pings_were_made_before(special):
    late = [
        ping
        for ping in special
        if ping.kind is PingKind.LATE and "creationDate" in ping.document.json().decode()
    ]
    assert late
    for ping in late:
        assert datetime.fromisoformat(orjson.loads(ping.document.json())["creationDate"]) < NOON


def test_malformed_pings_cover_the_errors_that_a_client_can_make(special):
    expected = {ping.expected for ping in special if ping.kind is PingKind.MALFORMED}
    # Unified pings need no definitions, and what has a wrong type does not fit its schema already.
    never = {ErrorType.UNKNOWN_HISTOGRAM_REVISION, ErrorType.INVALID_VALUE}
    # A document that is too large costs a fleet too much, and no client can cause a defect of the lake.
    never |= {ErrorType.TOO_LARGE, ErrorType.CONVERSION_FAILED}
    assert expected == {f"rejected:{error}" for error in set(ErrorType) - never}


def test_malformed_paths_are_rejected_as_promised(special):
    found = set()
    for ping in special:
        assert ping.document_id in ping.target
        error = _path_error(ping.target.partition("?")[0])
        if error is not None:
            assert ping.expected == f"rejected:{error}"
            found.add(error)
    assert found == {ErrorType.INVALID_DOCUMENT_ID, ErrorType.BARE_DOCUMENT_ID, ErrorType.INVALID_PATH}


def test_only_good_pings_promise_to_be_live(special):
    for ping in special:
        if ping.kind is PingKind.OVERSIZED:
            assert ping.expected == NOT_STORED
            assert len(ping.body()) == OVERSIZED_BYTES
        else:
            assert (ping.expected == LIVE) == (ping.kind is not PingKind.MALFORMED)


@pytest.mark.parametrize("shares", [{"late": -0.1}, {"malformed": 1.1}, {"duplicates": 0.6, "late": 0.5}])
def test_shares_must_be_shares(shares):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Shares(**shares)


def test_a_fleet_needs_clients():
    with pytest.raises(ValueError, match="at least one client"):
        _pings(clients=0)


@pytest.mark.parametrize("seed,clients,is_phone", [(0, 1, False), (24, 1, True), (1, 2, False)])
def test_the_smallest_fleets_send_whatever_their_clients_are(seed, clients, is_phone):
    pings = _take(_pings(seed=seed, clients=clients, shares=SPECIAL), 60)
    normal = {ping.document_type for ping in pings if ping.kind is PingKind.NORMAL}
    assert ("main" not in normal) == is_phone


def test_one_main_ping_for_benchmarks():
    rng = Random(1)
    source = DocumentSource(rng)
    document = orjson.loads(main_ping(rng, random_client(rng, source.machines), NOON, source))
    assert document["type"] == "main"
    assert document["creationDate"] == "2026-11-23T12:00:00.000Z"


def test_gzip_of_sections_and_of_patches_up_to_the_longest():
    large = section(b"section " * 20_000)
    longest = b"p" * 65_535
    document = Document((longest, large, b"", large, b"end"))
    assert gzip.decompress(document.gzip()) == longest + large.text + large.text + b"end"


def test_a_patch_is_refused_where_it_is_too_long():
    with pytest.raises(struct.error):
        Document((b"p" * 65_536,)).gzip()
