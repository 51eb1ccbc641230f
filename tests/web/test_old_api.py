"""Mozilla's aggregation service as pages know it: its shapes, its errors, its sharing across sites."""

from collections import Counter
from typing import Any

import httpx
import pytest

from lake_testing.aggregate_rows import KEYS

CHANNEL = "/aggregates_by/submission_date/channels/nightly/"
ASKED = {"version": "121", "dates": "20260928,20260929", "metric": "GC_MS"}


def test_channels_and_the_dates_of_their_versions(site: httpx.Client) -> None:
    assert site.get("/status").text == "OK"
    for prefix in ("build_id", "submission_date"):
        assert site.get(f"/aggregates_by/{prefix}/channels/").json() == ["beta", "nightly", "release"]
    dates = site.get(f"{CHANNEL}dates/").json()
    assert dates[0] == {"version": "121", "date": "20260928"}
    assert dates[-1] == {"version": "122", "date": "20261009"}


def test_a_histogram_for_each_date(site: httpx.Client, served: Any) -> None:
    answer = site.get(CHANNEL, params={**ASKED, "os": "Windows_NT,10.0", "application": "Firefox"})
    assert answer.headers["access-control-allow-origin"] == "*"
    document = answer.json()
    assert set(document) == {"buckets", "kind", "description", "data"}
    assert (document["kind"], document["buckets"][:3]) == ("exponential", [0, 1, 2])
    counts: Counter[str] = Counter()
    pings: Counter[str] = Counter()
    for day, rows in served.rows.items():
        for row in rows:
            if (row["name"], row["app_update_channel"], row["normalized_os"], row["document_type"]) == (
                "GC_MS",
                "nightly",
                "Windows",
                "main",
            ):
                counts[f"{day:%Y%m%d}"] += sum(row["counts"])
                pings[f"{day:%Y%m%d}"] += row["pings"]
    for entry in document["data"]:
        assert set(entry) == {"date", "label", "histogram", "count", "sum"}
        assert len(entry["histogram"]) == len(document["buckets"])
        assert (sum(entry["histogram"]), entry["count"]) == (counts[entry["date"]], pings[entry["date"]])
    same = site.get(CHANNEL, params=ASKED, headers={"If-None-Match": answer.headers["etag"]})
    assert same.status_code == 304


def test_keys_are_labels_and_names_are_buckets(site: httpx.Client) -> None:
    keyed = site.get(CHANNEL, params={**ASKED, "metric": "SEARCH_LATENCY_MS"}).json()
    labels = {entry["label"] for entry in keyed["data"]}
    assert "bing" in labels
    assert labels <= set(KEYS)
    one = site.get(CHANNEL, params={**ASKED, "metric": "SEARCH_LATENCY_MS", "label": "bing"}).json()
    assert {entry["label"] for entry in one["data"]} == {"bing"}
    named = site.get(CHANNEL, params={**ASKED, "metric": "GC_REASON"}).json()
    assert named["buckets"][:3] == ["API", "EAGER", "LAST_DITCH"]


def test_what_can_be_chosen(site: httpx.Client) -> None:
    document = site.get("/filters/", params={"channel": "nightly", "version": "121"}).json()
    assert document["os"] == ["Darwin", "Linux", "Windows_NT"]
    assert document["child"] == ["content", "parent"]
    assert "GC_MS" in document["metric"]


@pytest.mark.parametrize(
    "path,params,status,sentence",
    [
        (CHANNEL, {**ASKED, "metric": "NOTHING"}, 404, "There is no metric “NOTHING”"),
        (CHANNEL, {**ASKED, "dates": "20200101"}, 404, "no samples on these dates"),
        (CHANNEL, {**ASKED, "dates": "yesterday"}, 404, "expected eight digits"),
        (CHANNEL, {**ASKED, "version": "../"}, 404, "is not a version"),
        (CHANNEL, {"metric": "GC_MS"}, 404, "metric, version and dates are needed"),
        (CHANNEL, {**ASKED, "colour": "red"}, 405, "There is no argument “colour”"),
        ("/aggregates_by/week/channels/", {}, 404, "by build_id or by submission_date"),
        ("/aggregates_by/build_id/channels/aurora/dates/", {}, 404, "no channel “aurora”"),
        ("/filters/", {"channel": "nightly", "version": "1"}, 404, "no version “1”"),
    ],
)
def test_what_is_not_there_is_said_as_before(
    site: httpx.Client, path: str, params: dict[str, str], status: int, sentence: str
) -> None:
    answer = site.get(path, params=params)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]["sentence"]
    assert answer.headers["access-control-allow-origin"] == "*"
