"""The API and the exports over HTTP: shapes, caching, limits, and sentences for what is wrong."""

import csv
import io
import json
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from lake_testing.aggregate_rows import LAST, queried

GC = {"metric": "GC_MS"}


def test_a_distribution_with_all_that_a_page_shows(site: httpx.Client) -> None:
    answer = site.get("/api/v1/distribution", params={**GC, "compare": "os", "trim": "1"})
    assert answer.status_code == 200
    document = answer.json()
    assert document["metric"]["description"] == "Time spent running JavaScript garbage collection (ms)"
    assert document["selection"]["channel"] == ["nightly"]
    assert "channel" in document["chosen_here"]
    assert {series["name"] for series in document["series"]} == {"Windows", "Mac", "Linux"}
    assert {option["value"] for option in document["options"]["architecture"]} == {"x86-64", "unknown"}
    for series in document["series"]:
        assert len(series["counts"]) == len(document["buckets"])
    assert document["reason"] is None


@pytest.mark.parametrize("metric", ["GC_MS", "GC_REASON", "SEARCH_LATENCY_MS"])
@pytest.mark.parametrize("weight", ["samples", "client"])
def test_csv_and_json_have_the_numbers_of_the_answer(site: httpx.Client, metric: str, weight: str) -> None:
    params = {"metric": metric, "compare": "os", "weight": weight}
    answer = site.get("/api/v1/distribution", params=params).json()
    assert site.get("/api/v1/distribution.json", params=params).json() == answer
    lines = list(csv.DictReader(io.StringIO(site.get("/api/v1/distribution.csv", params=params).text)))
    expected = [
        (series["group"]["os"], bucket["start"], count, share)
        for series in answer["series"]
        for bucket, count, share in zip(answer["buckets"], series["counts"], series["shares"], strict=True)
    ]
    assert [
        (line["os"], int(line["start"]), int(line["samples"]), float(line["share"])) for line in lines
    ] == expected
    evolution = site.get("/api/v1/evolution", params=params).json()
    lines = list(csv.DictReader(io.StringIO(site.get("/api/v1/evolution.csv", params=params).text)))
    points = [
        (series["group"]["os"], day, series["pings"][place], series["samples"][place])
        for series in evolution["series"]
        for place, day in enumerate(evolution["dates"])
        if series["pings"][place] is not None
    ]
    assert [(line["os"], line["date"], int(line["pings"]), int(line["samples"])) for line in lines] == points
    if metric == "GC_MS":
        medians = [
            series["percentiles"]["50"][place]
            for series in evolution["series"]
            for place in range(len(evolution["dates"]))
            if series["pings"][place] is not None
        ]
        assert [float(line["p50"]) if line["p50"] else None for line in lines] == medians


def test_a_file_has_a_name_and_no_cell_is_a_formula(site: httpx.Client) -> None:
    answer = site.get("/api/v1/distribution.csv", params={"metric": "SEARCH_LATENCY_MS", "key": "=formula"})
    assert answer.headers["content-disposition"] == (
        'attachment; filename="SEARCH_LATENCY_MS-distribution-nightly.csv"'
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.splitlines()[1].startswith("'=formula,")


def test_the_shown_sql_runs_as_it_is_and_gives_the_numbers(site: httpx.Client, served: Any) -> None:
    params = {"metric": "SEARCH_LATENCY_MS", "key": "o'key & co", "weight": "client"}
    sql = site.get("/api/v1/distribution.sql", params=params).text
    assert sql.startswith("-- The numbers of this page")
    answer = site.get("/api/v1/distribution", params=params).json()
    with queried(served.rows) as connection:
        result = connection.execute(sql)
        names = [column[0] for column in result.description]
        lines = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    [series] = answer["series"]
    assert [line["samples"] for line in lines] == [count for count in series["counts"] if count]


def test_keys_are_listed_with_the_rest(site: httpx.Client) -> None:
    document = site.get("/api/v1/keys", params={"metric": "SEARCH_LATENCY_MS", "key": "bing"}).json()
    assert {"google", "bing", ""} <= {key["key"] for key in document["keys"]}
    assert document["rest"]["keys"] > 0
    assert site.get("/api/v1/keys", params=GC).json() == {"keys": [], "rest": None, "left_out": 0}


def test_metrics_are_found_in_spite_of_typing_errors(site: httpx.Client) -> None:
    document = site.get("/api/v1/metrics", params={"search": "cylce colector"}).json()
    assert document["metrics"][0]["name"] == "CYCLE_COLLECTOR"
    assert document["count"] == 9
    assert len(site.get("/api/v1/metrics", params={"limit": "2"}).json()["metrics"]) == 2


def test_an_answer_is_not_sent_again_until_the_data_changes(site: httpx.Client, served: Any) -> None:
    answer = site.get("/api/v1/evolution", params=GC)
    etag = answer.headers["etag"]
    assert served.version() in etag
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["access-control-allow-origin"] == "*"
    same = site.get("/api/v1/evolution", params=GC, headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    other = site.get("/api/v1/evolution", params=GC, headers={"If-None-Match": 'W/"other"'})
    assert other.status_code == 200


def test_answers_are_compressed(site: httpx.Client) -> None:
    answer = site.get(
        "/api/v1/evolution", params={**GC, "compare": "os"}, headers={"Accept-Encoding": "gzip"}
    )
    assert answer.headers["content-encoding"] == "gzip"
    plain = site.get(
        "/api/v1/evolution", params={**GC, "compare": "os"}, headers={"Accept-Encoding": "identity"}
    )
    assert "content-encoding" not in plain.headers
    assert plain.json() == answer.json()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/distribution?metric=GC_MS",
        "/metrics",
        "/api",
        "/api/v1/distribution?metric=GC_MS",
        "/api/v1/openapi.json",
        "/__lbheartbeat__",
        "/__heartbeat__",
    ],
)
def test_head_has_the_headers_of_get_and_no_body(site: httpx.Client, path: str) -> None:
    whole, head = site.get(path), site.request("HEAD", path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert "default-src 'none'" in whole.headers["content-security-policy"]
    assert "unsafe" not in whole.headers["content-security-policy"]
    assert whole.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path,status,sentence",
    [
        ("distribution?metric=GC_SM", 404, "There is no metric “GC_SM”. Did you mean GC_MS"),
        ("distribution?metric=GC_MS&versions=../", 400, "expected a version such as 120.0"),
        ("distribution?metric=GC_MS&dates=2026-02-30", 400, "is not a date: expected YYYY-MM-DD"),
        ("distribution?metric=GC_MS&nonsense=1", 400, "There is no parameter “nonsense”"),
        ("distribution?metric=" + "x" * 201, 400, "metric has 201 characters; at most 200 are possible"),
        ("distribution?metric=GC_MS&os=" + "x" * 8_200, 414, "and at most 8,192 are possible"),
    ],
)
def test_bad_input_gets_a_sentence_and_the_right_status(
    site: httpx.Client, path: str, status: int, sentence: str
) -> None:
    for prefix in ("/", "/api/v1/", "/embed/"):
        answer = site.get(prefix + path)
        assert answer.status_code == status, answer.text[:300]
        text = json.loads(answer.text)["error"]["sentence"] if answer.text.startswith("{") else answer.text
        assert sentence in text.replace("&#39;", "'")
        assert len(answer.content) < 5_000


def test_a_million_characters_get_a_sentence(site: httpx.Client) -> None:
    connection = HTTPConnection(site.base_url.host, site.base_url.port, timeout=30)
    try:
        connection.request("GET", "/distribution?metric=" + "x" * 1_000_000)
        answer = connection.getresponse()
        assert answer.status == 414
        assert b"has 1,000,020 characters, and at most 8,192 are possible." in answer.read()
    finally:
        connection.close()


def test_an_api_without_a_metric_says_that_it_is_missing(site: httpx.Client) -> None:
    answer = site.get("/api/v1/distribution")
    assert answer.status_code == 400
    assert "The parameter metric is missing" in answer.json()["error"]["sentence"]
    assert site.get("/api/v1/metrics", params={"limit": "many"}).status_code == 400


def test_what_is_not_there_and_what_is_not_possible(site: httpx.Client) -> None:
    missing = site.get("/static/../../etc/passwd")
    assert missing.status_code == 404
    assert "There is no page at this address." in missing.text
    assert site.get("/api/v1/nothing").json()["error"]["status"] == 404
    for path in ("/distribution", "/api/v1/distribution"):
        posted = site.post(path)
        assert posted.status_code == 405
        assert "POST is not possible here" in posted.text
        assert "GET" in posted.headers["allow"]
    large = site.post("/api/v1/distribution", content=b"x" * 100_000)
    assert large.status_code == 413
    assert "65,536 bytes" in large.text


def test_names_of_clients_are_text_in_pages(site: httpx.Client) -> None:
    answer = site.get("/metrics", params={"search": "<script>alert(1)</script>"})
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    page = site.get("/distribution?metric=GC_MS&os=%22%3E%3Cscript%3E")
    assert page.status_code == 200
    assert '"><script>' not in page.text


def test_embedding_is_for_charts_alone(site: httpx.Client) -> None:
    assert "frame-ancestors *" in site.get("/embed/evolution?metric=GC_MS").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in site.get("/evolution?metric=GC_MS").headers["content-security-policy"]
    assert site.get("/embed/evolution").status_code == 404


def test_the_heartbeat_says_until_when_the_data_goes(site: httpx.Client, served: Any) -> None:
    document = site.get("/__heartbeat__").json()["dashboard"]
    assert document["version"] == served.version()
    assert document["data_until"].startswith(LAST.isoformat()[:7])
    assert document["problem"] is None


def test_the_api_describes_itself(site: httpx.Client) -> None:
    document = site.get("/api/v1/openapi.json").json()
    assert {"/api/v1/distribution", "/api/v1/evolution.csv", "/api/v1/keys"} <= set(document["paths"])
    names = [each["name"] for each in document["paths"]["/api/v1/distribution"]["get"]["parameters"]]
    assert {"metric", "channel", "versions", "weight"} <= set(names)
