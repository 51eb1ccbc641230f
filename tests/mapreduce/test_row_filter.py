"""Filter documents, and that what they rule out early is never what they want."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.convert.derivation.dimensions import AllowedRange
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.reading.filter_rules import FilterRule, load_filter
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.tables.definitions import table_definition

STABLE_PINGS = table_definition("stable.pings")
OF_2013: dict[str, Any] = {
    "version": 1,
    "dimensions": [
        {"field_name": "reason", "allowed_values": ["saved-session"]},
        {"field_name": "appName", "allowed_values": ["Firefox", "Fennec"]},
        {"field_name": "appUpdateChannel", "allowed_values": "nightly"},
        {"field_name": "appVersion", "allowed_values": "*"},
        {"field_name": "appBuildID", "allowed_values": {"min": "20130600"}},
        {"field_name": "submission_date", "allowed_values": {"min": "20131101", "max": "2013-11-07"}},
    ],
}

VALUES = st.sampled_from(["", "a", "ab", "b", "10", "9", "20130814063812", "é", "*", "OTHER"])
RANGES = st.builds(AllowedRange, min=VALUES, max=VALUES | st.none()) | st.builds(
    AllowedRange, min=st.integers(0, 20), max=st.none()
)
RULES = st.builds(
    FilterRule,
    field_name=st.just("os"),
    allowed_values=VALUES | st.lists(VALUES, max_size=3).map(tuple) | RANGES,
)


def test_the_filter_of_2013_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text(json.dumps(OF_2013))
    rules = {rule.column: rule for rule in load_filter(file, STABLE_PINGS, has_dates=False)}
    assert list(rules) == [
        *("reason", "app_name", "app_update_channel", "app_version", "app_build_id", "submission_date")
    ]
    offered: dict[str, list[str | None]] = {
        "reason": ["saved-session", "idle-daily", None],
        "app_name": ["Firefox", "Fennec", "B2G", "Fire"],
        "app_update_channel": ["nightly", "night", "nightly-x"],
        "app_version": ["", None, "23.0"],
        "app_build_id": ["20130600", "20130601", "201305", "2013060", "3", None],
        "submission_date": ["20131031", "20131101", "20131107", "20131108"],
    }
    allowed = {
        name: [value for value in values if rules[name].allows(value)] for name, values in offered.items()
    }
    assert allowed == {
        "reason": ["saved-session"],
        "app_name": ["Firefox", "Fennec"],
        "app_update_channel": ["nightly"],
        "app_version": ["", None, "23.0"],
        "app_build_id": ["20130600", "20130601", "3"],
        "submission_date": ["20131101", "20131107"],
    }
    condition = str(RowFilter(tuple(rules.values())).condition())
    assert "2013-11-07" in condition
    assert "app_version" not in condition


@pytest.mark.parametrize(
    "document, said",
    [
        ("{", "filter.json cannot be used: it: Invalid JSON"),
        ({"dimensions": [{"field_name": "os"}]}, "dimensions.0.allowed_values: Field required"),
        (
            {"dimensions": [{"field_name": "no_such", "allowed_values": "*"}]},
            "names 'no_such'; possible are appName",
        ),
        ({"dimensions": [{"field_name": "histograms", "allowed_values": "*"}]}, "names 'histograms'"),
        (
            {"dimensions": [{"field_name": "os", "allowed_values": {"min": 1, "max": "2"}}]},
            "both numbers or both",
        ),
        ({"version": 2, "dimensions": []}, "version: Input should be 1"),
    ],
)
def test_what_is_wrong_with_a_filter_is_said(tmp_path: Path, document: Any, said: str) -> None:
    file = tmp_path / "filter.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(FatalError) as caught:
        load_filter(file, STABLE_PINGS, has_dates=False)
    assert said in str(caught.value)


@pytest.mark.parametrize("day", ['["__TARGET_DATE__"]', "__TARGET_DATE__", '"__TARGET_DATE__"'])
def test_a_template_of_2014_takes_the_dates_of_the_run(tmp_path: Path, day: str) -> None:
    file = tmp_path / "filter_template.json"
    reason = '{"field_name": "reason", "allowed_values": ["idle-daily"]}'
    file.write_text(
        f'{{"dimensions": [{reason}, {{"field_name": "submission_date", "allowed_values": {day}}}]}}'
    )
    of_reason, of_date = load_filter(file, STABLE_PINGS, has_dates=True)
    assert of_date.lets_everything_through
    assert not of_reason.lets_everything_through
    with pytest.raises(FatalError, match="a template, which says __TARGET_DATE__: give the run dates"):
        load_filter(file, STABLE_PINGS, has_dates=False)


def test_a_filter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"the filter .*nowhere\.json cannot be read"):
        load_filter(tmp_path / "nowhere.json", STABLE_PINGS, has_dates=False)


@given(RULES, st.lists(VALUES | st.none(), min_size=1, max_size=6))
def test_what_is_ruled_out_early_is_not_wanted(rule: FilterRule, values: list[str | None]) -> None:
    known = sorted(value for value in values if value is not None)
    row_filter = RowFilter((rule,))
    wanted = [rule.allows(value) for value in values]
    if known and not row_filter.may_allow({"os": (known[0], known[-1])}):
        assert not any(rule.allows(value) for value in known)
    batch = pa.RecordBatch.from_pydict({"os": pa.array(values, pa.string())})
    for one in (batch, pa.RecordBatch.from_pydict({"os": batch.column("os").dictionary_encode()})):
        mask = row_filter.mask(one) if rule.allowed_values != "*" else None
        assert (wanted if mask is None else mask.tolist()) == wanted
        assert mask is not None or all(wanted)


def test_dates_and_samples() -> None:
    rule = FilterRule(field_name="submission_date", allowed_values=("20261123", "20261124"))
    day = date(2026, 11, 23)
    assert RowFilter((rule,)).may_allow({"submission_date": (day, day)})
    assert not RowFilter((rule,)).may_allow({"submission_date": (date(2026, 11, 22),) * 2})
    batch = pa.RecordBatch.from_pydict({"submission_date": [day, date(2026, 11, 25)]})
    mask = RowFilter((rule,)).mask(batch)
    assert mask is not None
    assert mask.tolist() == [True, False]
    samples = pa.RecordBatch.from_pydict({"sample_id": pa.array([0, 9, 10, 99, None], pa.int32())})
    mask = RowFilter(sample_percent=10).mask(samples)
    assert mask is not None
    assert mask.tolist() == [True, True, False, False, False]
    assert not RowFilter(sample_percent=10).may_allow({"sample_id": (10, 99)})
    assert RowFilter(sample_percent=10).may_allow({"sample_id": (9, 99)})
