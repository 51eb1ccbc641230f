"""Counts of pings while a filter is written, against the sample pings that are in the table."""

import json
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from lake_testing.lake_of_scripts import LakeOfScripts
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY, sample_pings
from telemetry_lake.analysis_jobs.documents import JobRequest
from telemetry_lake.analysis_jobs.filter_fields import FILTER_COLUMNS, document_of_fields
from telemetry_lake.analysis_jobs.sandbox import dimensions
from telemetry_lake.analysis_jobs.sandbox.counting import PINGS, READ, TOTAL, VALUES_SHOWN, Counting
from telemetry_lake.failures import FatalError


@pytest.fixture
def counting(lake_of_scripts: LakeOfScripts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake_of_scripts.env_file))
    counting = Counting()
    yield counting
    counting.close()


def request(dates: str = "all", sample: int = 100, **fields: str) -> JobRequest:
    return JobRequest(dates=dates, sample=sample, filter=document_of_fields(fields) or None)


def test_counts_are_those_of_the_table(counting):
    pings = [{name: row[name] for name in FILTER_COLUMNS} for row in sample_pings().to_pylist()]
    everything = counting.matching(request())
    assert (everything.pings, everything.total, everything.counted) == (len(pings),) * 3
    assert not everything.is_estimate
    assert len(pings) == DAYS * PINGS_PER_DAY
    for column in FILTER_COLUMNS:
        counts = Counter(ping[column] for ping in pings if ping[column] is not None)
        shown = [(each.value, each.pings) for each in everything.values[column]]
        assert shown == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:VALUES_SHOWN]

    channel, system = pings[0]["app_update_channel"], pings[0]["normalized_os"]
    chosen = counting.matching(request(app_update_channel=channel, normalized_os=f"{system}.."))
    fitting = [
        ping for ping in pings if ping["app_update_channel"] == channel and ping["normalized_os"] >= system
    ]
    assert chosen.pings == len(fitting)
    # The values of a column are those that could be chosen besides its own.
    assert {each.value for each in chosen.values["app_update_channel"]} == {
        ping["app_update_channel"] for ping in pings if ping["normalized_os"] >= system
    }
    assert counting.matching(request("2026-11-23")).total == PINGS_PER_DAY
    assert counting.matching(request(sample=50)).pings == round(len(pings) / 2)
    nothing = counting.matching(request("2013-01-01"))
    assert (nothing.pings, nothing.total) == (0, 0)


def test_what_cannot_be_counted_is_said(counting):
    other = json.dumps(
        {"version": 1, "dimensions": [{"field_name": "architecture", "allowed_values": "x86"}]}
    )
    with pytest.raises(FatalError, match="not counted by architecture"):
        counting.matching(JobRequest(dates="all", filter=other))
    with pytest.raises(FatalError, match=r"the filter .* cannot be used"):
        counting.matching(JobRequest(dates="all", filter="{"))
    with pytest.raises(FatalError, match="Give dates"):
        counting.matching(JobRequest(dates="period"))


@pytest.mark.parametrize("limit, least", [("COUNTING_MAX_SECONDS", 1), ("COMBINATIONS_MAX_COUNT", 0)])
def test_counts_stop_at_their_limits(lake_of_scripts, monkeypatch, tmp_path, limit, least):
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(lake_of_scripts.env_file))
    monkeypatch.setattr(dimensions, limit, 0)
    file = tmp_path / "counts.parquet"
    dimensions.count({"table": "stable.pings", "first": None, "last": None}, file)
    counts = pq.read_table(file)
    said = counts.schema.metadata or {}
    read, total = int(said[READ]), int(said[TOTAL])
    assert total == DAYS * PINGS_PER_DAY
    assert 0 < read <= total
    assert counts.column(PINGS).to_numpy().sum() == (read if least else 0)
    assert (read < total) == bool(least)
