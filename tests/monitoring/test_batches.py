"""Batches and rows as the exporter counts them: once, over restarts, and under labels that are bounded."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest

from lake_testing.shipping import greeting, ship_pings
from lake_testing.stack import Lake
from telemetry_lake.drain.audit_frames import COUNTED_GROUPS_MAX, NamedTypes, StagedRows, row_counts
from telemetry_lake.drain.claim import claim
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import RowCount
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.drain.usual_shares import UsualShares
from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.exporter import Exporter, Reading
from telemetry_lake.monitoring.exporter_metrics import CHANNELS, LABEL_SETS_MAX
from telemetry_lake.monitoring.metric import OTHER
from telemetry_lake.monitoring.sources.batches import BatchSource
from telemetry_lake.monitoring.sources.facts import Fact
from telemetry_lake.monitoring.sources.row_labels import BEGUN_WITH_MAX, RowCounter, RowLabels
from telemetry_lake.raw.raw_object import RawPing
from telemetry_lake.settings import Settings

CLIENT: Final = "c0ffee00-0000-4000-8000-000000000001"
ADDRESS: Final = "198.51.100.7"
GREETINGS: Final = ("lake-demo", "greeting", OTHER)
STRANGERS: Final = ("Robert'); DROP", "x" * 200, "ünïcode", "a\nb", '"}', CLIENT, ADDRESS)


class Watch:
    """The source as the exporter reads it, which may be started again."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self.start_again()
        self.facts: dict[str, dict[tuple[str, ...], Fact]] = {}

    def start_again(self) -> None:
        labels = RowLabels.of(self._settings.conversion)
        self.source = BatchSource(LakeConnections(self._settings), labels, self._directory)

    def look(self) -> None:
        self.facts = {}
        for fact in self.source.read(datetime.now(UTC)):
            self.facts.setdefault(fact.name.removeprefix("telemetry_lake_"), {})[fact.labels] = fact

    def value(self, name: str, *labels: str) -> float:
        return self.facts[name][labels].value_at(datetime.now(UTC).timestamp())

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        return {labels: fact.value for labels, fact in self.facts[name].items() if fact.value}

    @property
    def stages(self) -> dict[str, float]:
        return {labels[0]: value for labels, value in self.counted("batches_total").items()}


@pytest.fixture
def watch(tabled_lake: Lake, tmp_path: Path) -> Watch:
    return Watch(tabled_lake.settings, tmp_path / "kept")


def ship_now(settings: Settings, *, good: int = 0, bad: int = 0) -> None:
    at = datetime.now(UTC)
    bodies = [b'{"text": "hello"}'] * good + [b"{"] * bad
    ship_pings(settings, [greeting(str(uuid.uuid4()), at=at, body=body) for body in bodies], first=at)


def test_rows_are_counted_when_their_batch_is_committed_and_only_once(tabled_lake, watch):
    watch.look()
    assert watch.stages == {}
    assert watch.value("rows_total", *GREETINGS) == 0, (
        "a series begins at 0, or its first rows are no increase"
    )
    ship_now(tabled_lake.settings, good=3, bad=2)
    watch.look()
    assert watch.value("raw_objects_waiting") == 1
    assert watch.value("queue_oldest_age_seconds") > 0
    assert drain_once(tabled_lake.settings).failures == []
    for _ in range(2):
        watch.look()
        assert watch.stages == {"claimed": 1, "converted": 1, "committed": 1}
        assert watch.counted("rows_total") == {GREETINGS: 3}
        assert watch.counted("rejected_rows_total") == {("lake-demo", "greeting", "invalid_json"): 2}
    assert watch.value("raw_objects_waiting") == watch.value("queue_oldest_age_seconds") == 0
    assert watch.value("batches_open") == 0
    assert 0 < watch.value("live_newest_row_age_seconds") < 120


def test_a_new_start_goes_on_where_the_last_one_was(tabled_lake, watch):
    watch.look()
    ship_now(tabled_lake.settings, good=1)
    drain_once(tabled_lake.settings)
    watch.look()
    ship_now(tabled_lake.settings, good=2)
    drain_once(tabled_lake.settings)
    watch.start_again()
    watch.look()
    assert watch.stages == {"claimed": 2, "converted": 2, "committed": 2}
    assert watch.counted("rows_total") == {GREETINGS: 3}


def test_what_was_there_before_the_first_look_is_not_counted(tabled_lake, watch):
    ship_now(tabled_lake.settings, good=1)
    drain_once(tabled_lake.settings)
    watch.look()
    watch.look()
    assert watch.stages == {}
    assert watch.counted("rows_total") == {}
    assert watch.value("live_newest_row_age_seconds") < 120


def test_a_kept_file_that_cannot_be_read_costs_the_counts_and_nothing_else(
    tabled_lake, watch, tmp_path, caplog
):
    watch.look()
    (tmp_path / "kept" / "batches.json").write_text("{")
    watch.start_again()
    watch.look()
    assert "batches.json cannot be read, counters begin at zero" in caplog.text


def test_a_batch_is_open_from_its_claim_to_its_commit(tabled_lake, watch):
    watch.look()
    ship_now(tabled_lake.settings, good=1)
    lake = LakeConnections(tabled_lake.settings)
    claim(lake.settings, lake.queue, lake.ledger, created_at=datetime.now(UTC))
    watch.look()
    assert watch.stages == {"claimed": 1}
    assert watch.value("batches_open") == 1
    assert watch.value("batches_open_oldest_age_seconds") > 0
    assert watch.value("raw_objects_waiting") == 0


def test_what_strangers_post_is_in_no_label(tabled_lake, watch, tmp_path):
    at = datetime.now(UTC)
    watch.look()
    pings = [
        RawPing(
            at,
            "POST",
            path.encode(),
            b"",
            "HTTP/1.1",
            ADDRESS,
            b"",
            (("x-forwarded-for", ADDRESS.encode()),),
            body,
        )
        for number, stranger in enumerate(STRANGERS)
        for path, body in (
            (f"/submit/stranger-{number}/x/1/{uuid.uuid4()}", _glean(stranger)),
            (f"/submit/org-{CLIENT}/baseline/1/{uuid.uuid4()}", _glean("nightly")),
            (f"/submit/telemetry/{uuid.uuid4()}/invented-{number}/Firefox/1/{number}/1", b"{}"),
            (f"/submit/{number}/{CLIENT}/1/{uuid.uuid4()}", b"{"),
            (f"/submit/{ADDRESS}", b""),
        )
    ]
    ship_pings(tabled_lake.settings, pings, first=at)
    drain_once(tabled_lake.settings)
    reading = Reading(watch.source)
    exporter = Exporter([])
    exporter.readings.append(reading)
    reading.read()
    watch.look()
    counted = {**watch.facts["rows_total"], **watch.facts["rejected_rows_total"]}
    assert sum(fact.value for fact in counted.values()) == len(pings)
    labels = RowLabels.of(tabled_lake.settings.conversion)
    allowed = {OTHER, *labels.namespaces, *(kind for _, kind in labels.types), *CHANNELS, *ErrorType}
    assert {label for names in counted for label in names} <= allowed
    assert watch.counted("rows_total").keys() <= {(OTHER, OTHER, channel) for channel in CHANNELS}
    assert (OTHER, OTHER, "nightly") in watch.counted("rows_total")
    text = "".join(str(sample) for family in exporter.collect() for sample in family.samples)
    assert "rejected_rows_total" in text
    assert not any(part in text for part in (CLIENT, ADDRESS, "stranger", "invented", "DROP"))


def _glean(channel: str) -> bytes:
    client = {
        "client_id": CLIENT,
        "app_channel": channel,
        "app_build": "1",
        "app_display_version": "1",
        "os": "Linux",
        "os_version": "6",
        "architecture": "x86_64",
        "telemetry_sdk_build": "71.0.0",
        "first_run_date": "2026-11-01+00:00",
    }
    ping = {"seq": 0, "start_time": "2026-11-23T12:00+00:00", "end_time": "2026-11-23T12:01+00:00"}
    return json.dumps({"ping_info": ping, "client_info": client}).encode()


def test_label_sets_end_at_their_limit():
    counter = RowCounter(CHANNELS)
    counter.begin_with([(OTHER, OTHER)])
    room = LABEL_SETS_MAX - len(CHANNELS)
    for number in range(room):
        counter.add(("named", f"type-{number}"), "release", 1)
    assert (len(counter.rows), counter.folded) == (LABEL_SETS_MAX, 0)
    counter.add(("named", "one-more"), "beta", 5)
    counter.add(("named", "type-0"), "release", 1)
    assert (len(counter.rows), counter.folded) == (LABEL_SETS_MAX, 5)
    assert counter.rows["other/other/beta"] == 5
    assert counter.rows["named/type-0/release"] == 2


def test_types_that_schemas_name_are_counted_however_many_are_invented():
    groups = COUNTED_GROUPS_MAX
    types = [f"invented-{number}" for number in range(groups)] * 2
    pings = pa.table(
        {
            "namespace": ["lake-demo"] * (2 * groups + 1),
            "document_type": [*types, "greeting"],
            "normalized_channel": [*["release"] * 2 * groups, "beta"],
        }
    )
    nothing = pa.nulls(1, pa.string())
    rejected = pa.table({"namespace": nothing, "document_type": nothing, "error_type": ["invalid_path"]})
    named = NamedTypes(frozenset({("lake-demo", "greeting")}), UsualShares())
    counts = row_counts(StagedRows(pings, rejected), named)
    assert counts[0] == RowCount(namespace="lake-demo", document_type="greeting", channel="beta", rows=1)
    assert len(counts) == groups
    assert {count.rows for count in counts[1:]} == {2}
    few = row_counts(StagedRows(pings.slice(0, 1), rejected), named)
    assert few[-1] == RowCount(namespace=None, document_type=None, error_type="invalid_path", rows=1)


def test_unknown_types_of_known_namespaces_can_be_foreseen():
    labels = RowLabels(frozenset({"lake-demo", "telemetry"}), frozenset({("telemetry", "main")}))
    assert labels.kinds() == [
        ("telemetry", "main"),
        ("lake-demo", OTHER),
        ("telemetry", OTHER),
        (OTHER, OTHER),
    ]


@pytest.mark.parametrize("more, begun", [(0, BEGUN_WITH_MAX // 5 * 5), (1, 5)])
def test_series_that_can_be_foreseen_begin_at_zero_if_they_are_not_too_many(more, begun):
    counter = RowCounter(("a", "b", "c", "d", "e"))
    counter.begin_with(
        [*((str(number), "x") for number in range(BEGUN_WITH_MAX // 5 - 1 + more)), (OTHER, OTHER)]
    )
    assert len(counter.rows) == begun
