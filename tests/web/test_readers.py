"""Many readers at once while new data comes: every one is answered, and each answer is of one version."""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import httpx

from lake_testing.aggregate_rows import LAST

READERS = 50
EARLIER = LAST - timedelta(days=4)


def test_fifty_readers_get_answers_of_one_version_each_while_versions_are_switched(served: Any) -> None:
    stopped = threading.Event()
    asked = {"metric": "GC_MS", "by": "submission", "channel": "nightly"}

    def read(number: int) -> list[tuple[str, int, int]]:
        found = []
        with httpx.Client(base_url=served.pages.url, timeout=60) as client:
            while not stopped.is_set():
                view = ("distribution", "evolution")[number % 2]
                answer = client.get(f"/api/v1/{view}", params=asked)
                assert answer.status_code == 200, answer.text
                document = answer.json()
                [series] = document["series"]
                found.append(
                    (document["data"]["version"], series["totals"]["pings"], series["totals"]["samples"])
                )
                assert document["data"]["version"] in answer.headers["etag"]
        return found

    versions = {served.version()}
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read, number) for number in range(READERS)]
        try:
            for last in (EARLIER, LAST):
                versions.add(served.make_cubes_until(last))
        finally:
            stopped.set()
        answers = [answer for reader in readers for answer in reader.result()]
    totals = defaultdict(set)
    for version, pings, samples in answers:
        totals[version].add((pings, samples))
    assert versions <= set(totals), "readers got every version, and perhaps some on the way to them"
    assert all(len(of_version) == 1 for of_version in totals.values())
    assert set.union(*totals.values()) == {expected(served, EARLIER), expected(served, LAST)}


def expected(served: Any, last: date) -> tuple[int, int]:
    """Return the pings and samples of all dates up to one."""
    rows = [
        row
        for day, of_day in served.rows.items()
        for row in of_day
        if day <= last
        and (row["name"], row["app_update_channel"], row["document_type"]) == ("GC_MS", "nightly", "main")
    ]
    return sum(row["pings"] for row in rows), sum(sum(row["counts"]) for row in rows)
