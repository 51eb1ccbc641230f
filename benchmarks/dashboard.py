"""Measure the dashboard over cubes of 2014's size: answers of the API, first charts in browsers, a new day.

    python -m benchmarks.dashboard

Starts a SeaweedFS, writes cubes into it (`benchmarks/large_cubes.py`), starts `python -m web`, and asks it
one question after another over HTTP. Cold is a server that was just started, its files evicted from the page
cache, and for each metric the first question about it. Between the questions a reference is measured: the
time that this process takes to parse a fixed JSON document. Where other work takes the processors, both
become slower, and their ratio stays. `--keep FOLDER` keeps the cubes, and uses them again.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from benchmarks.large_cubes import (
    ARCHITECTURES,
    CHANNELS,
    COMMON_KEYS,
    DAYS,
    KEYED_METRIC,
    LAST,
    METRICS,
    SYSTEMS,
    DayOfAggregates,
    days_of,
    definitions_of,
    shapes,
    version_of,
    write_cubes,
)
from benchmarks.results import Recorder, add_results_option, recording
from benchmarks.yardstick import fixed_document
from lake_testing.stack import DrivenStack, Lake
from lake_testing.web_pages import RunningPages
from telemetry_lake.dashboard.making.build import update_cubes
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.dashboard.version_order import major_of
from telemetry_lake.settings import Role
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import MIB

WARM_TARGET_MS = 100
KEYED_TARGET_MS = 300
CHART_TARGET_MS = 1_500
ANSWER_MAX_BYTES = 1_000_000
SERVED_WITHIN_SECONDS = 600.0
BROWSERS = 5
SEED = 2014

Params = list[tuple[str, str | int | float | bool | None]]
"""As httpx takes them; all values are text."""


@dataclass(slots=True)
class Times:
    """The questions of one kind: how long each took, and the reference after it."""

    milliseconds: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def record(self, recorder: Recorder, name: str, target: float | None = None) -> None:
        """Add the line of this kind."""
        p95 = quantiles(self.milliseconds, n=20, method="inclusive")[-1]
        recorder.add(name, median(self.milliseconds), "ms", measure="p50")
        recorder.add(name, p95, "ms", measure="p95", at_most=target)
        recorder.add(name, p95 / median(self.reference), "references", measure="p95")
        show(f"{name}: p50 {median(self.milliseconds):.1f} ms, p95 {p95:.1f} ms of {len(self.milliseconds)}")


class Reader:
    """Asks the server, and measures the reference in turns."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, headers={"Accept-Encoding": "gzip"})
        self._document = fixed_document()
        self.largest: tuple[int, str] = (0, "")
        self.references: list[float] = []

    def ask(self, path: str, params: Params, times: Times | None = None) -> httpx.Response:
        """Ask one question; the time is that until the whole answer is here."""
        begin = time.perf_counter()
        answer = self._client.get(path, params=httpx.QueryParams(params))
        took = (time.perf_counter() - begin) * 1e3
        answer.raise_for_status()
        self.largest = max(self.largest, (len(answer.content), f"{path}?{answer.url.query.decode()[:60]}"))
        if times is not None:
            times.milliseconds.append(took)
            times.reference.append(self.reference())
        return answer

    def reference(self) -> float:
        """Return how many milliseconds the reference takes now."""
        begin = time.perf_counter()
        json.loads(self._document)
        self.references.append((time.perf_counter() - begin) * 1e3)
        return self.references[-1]

    def state(self) -> dict[str, Any]:
        """Return what the server says of its cubes, whatever else it says."""
        state: dict[str, Any] = self._client.get("/__heartbeat__").json()["dashboard"]
        return state

    def wait_for(self, version: str, *, merged: bool) -> float:
        """Wait until a version is served, and its days are merged. Returns the seconds."""
        begin = time.monotonic()
        while time.monotonic() < begin + SERVED_WITHIN_SECONDS:
            state = self.state()
            if state["version"] == version and not (merged and state["unmerged"]):
                return time.monotonic() - begin
            time.sleep(0.1)
        raise RuntimeError(f"not served within {SERVED_WITHIN_SECONDS:g} s: {version}")


def main() -> None:
    """Make the cubes, measure, and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--metrics", type=int, default=METRICS, help=f"(default {METRICS})")
    parser.add_argument("--days", type=int, default=DAYS, help=f"submission dates (default {DAYS})")
    parser.add_argument("--questions", type=int, default=300, help="of each kind (default 300)")
    parser.add_argument("--keep", type=Path, help="a folder for the cubes, which is kept")
    add_results_option(parser)
    arguments = parser.parse_args()
    folder = (arguments.keep or Path(tempfile.mkdtemp(prefix="bench-dashboard-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stack = DrivenStack(folder / "stack")
    try:
        stack.command("start", "--only", "seaweedfs")
        with recording("dashboard", arguments.results) as recorder:
            measure(stack, folder, arguments.metrics, arguments.days, arguments.questions, recorder)
    finally:
        stack.command("stop")
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(
    stack: DrivenStack, folder: Path, metrics: int, days: int, questions: int, recorder: Recorder
) -> None:
    """Measure everything and record it."""
    settings = stack.settings(Role.JOBS)
    versions = CubeVersions(ObjectStore(settings.s3), settings.s3.lake_bucket)
    begin = time.monotonic()
    manifest = versions.current().manifest
    if manifest is None:
        manifest = write_cubes(versions, folder, metrics, days)
    rows = sum(segment.rows for segment in manifest.segments)
    size = sum(segment.bytes for segment in manifest.segments)
    show(f"{rows:,} rows, {size / MIB:,.0f} MiB, after {time.monotonic() - begin:.0f} s")
    recorder.remark(
        f"{metrics} metrics, {len(CHANNELS)} channels, {days} builds and days, {len(SYSTEMS)} systems, "
        f"{len(ARCHITECTURES)} architectures: {rows:,} rows in {len(manifest.segments)} segments. "
        f"One reader, {questions} questions of each kind."
    )
    shutil.rmtree(folder / "web", ignore_errors=True)
    (folder / "web").mkdir()
    lake = Lake(settings, {"TELEMETRY_LAKE_ENV_FILE": str(stack.layout.env_file)}, stack.layout.env_file)
    pages = RunningPages(lake, folder / "web", CUBES_POLL_SECONDS="0.5", STALE_AFTER_HOURS="1000000")
    try:
        pages.start()
        reader = Reader(pages.url)
        recorder.add("segments in S3", size / MIB, "MiB")
        recorder.add("a new server serves after", reader.wait_for(manifest.version, merged=False), "s")
        unmerged = Times()
        for path, params in any_questions(metrics, days, questions // 3):
            reader.ask(path, params, unmerged)
        is_merging = reader.state()["unmerged"] > 0
        merging = reader.wait_for(manifest.version, merged=True)
        show(f"all merged {merging:.0f} s later")
        recorder.add("its copy with merged days", size_of(folder / "web") / MIB, "MiB")
        if is_merging:
            unmerged.record(recorder, "any metric and filter, while days are merged")
        ask_everything(reader, pages, folder, metrics, days, questions, recorder)
        first_charts(reader, pages.url, metrics, recorder)
        largest_answers(reader)
        recorder.add("largest answer", reader.largest[0], "bytes", at_most=ANSWER_MAX_BYTES)
        recorder.remark(f"The largest answer, before compression, is {reader.largest[1]}…")
        recorder.add("memory of the server", psutil.Process(pages.pid).memory_info().rss / MIB, "MiB")
        add_a_day(reader, versions, metrics, days, recorder)
        # The day is added anew in the next run over the same cubes.
        versions.make_current(manifest, versions.current())
        recorder.add("the reference", median(reader.references), "ms")
    finally:
        pages.kill()


def ask_everything(
    reader: Reader,
    pages: RunningPages,
    folder: Path,
    metrics: int,
    days: int,
    questions: int,
    recorder: Recorder,
) -> None:
    """Ask the API, cold and warm."""
    cold, cold_keyed = Times(), Times()
    for path, params in first_questions(metrics, min(questions, metrics)):
        if not cold.milliseconds or len(cold.milliseconds) % 50 == 0:
            restart(pages, folder)
        reader.ask(path, params, cold)
    for path, params in keyed_questions(days, 6):
        restart(pages, folder)
        reader.ask(path, params, cold_keyed)
    warm, keyed, old = Times(), Times(), Times()
    for path, params in any_questions(metrics, days, questions):
        reader.ask(path, params, warm)
    for path, params in keyed_questions(days, questions):
        reader.ask(path, params, keyed)
    for path, params in old_questions(metrics, questions // 3):
        reader.ask(path, params, old)
    warm.record(recorder, "any metric and filter, warm", WARM_TARGET_MS)
    cold.record(recorder, "any metric, cold")
    keyed.record(recorder, "the largest keyed metric, warm", KEYED_TARGET_MS)
    cold_keyed.record(recorder, "the largest keyed metric, cold")
    old.record(recorder, "the paths of Mozilla's service, warm")


def any_questions(metrics: int, days: int, count: int) -> Iterator[tuple[str, Params]]:
    """Yield questions about any metric with any filters."""
    chance = random.Random(SEED)
    names = [shape.name for shape in shapes(metrics) if shape.name != KEYED_METRIC]
    for _ in range(count):
        yield (
            f"/api/v1/{chance.choice(('distribution', 'evolution'))}",
            [
                ("metric", chance.choice(names)),
                *filters(chance, days),
            ],
        )


def filters(chance: random.Random, days: int) -> Params:
    """Return some filters."""
    params: Params = [("by", chance.choice(("build", "submission")))]
    if chance.random() < 0.7:
        params.append(("channel", chance.choice(CHANNELS)))
    if chance.random() < 0.4:
        params.append(("os", chance.choice(SYSTEMS)))
    if chance.random() < 0.3:
        params.append(("architecture", chance.choice(ARCHITECTURES)))
    if chance.random() < 0.5:
        params.append(("compare", chance.choice(("os", "version", "channel", "architecture"))))
    if chance.random() < 0.3:
        params.append(("weight", "client"))
    if chance.random() < 0.3:
        first = LAST - timedelta(days=chance.randrange(1, days))
        params.append(("dates", f"{first}..{LAST}"))
    return params


def first_questions(metrics: int, count: int) -> Iterator[tuple[str, Params]]:
    """Yield for some metrics what a page asks first."""
    names = [shape.name for shape in shapes(metrics) if shape.name != KEYED_METRIC]
    for name in random.Random(SEED).sample(names, min(count, len(names))):
        yield "/api/v1/distribution", [("metric", name)]


def keyed_questions(days: int, count: int) -> Iterator[tuple[str, Params]]:
    """Yield questions about the keyed metric: its keys, the most common ones, chosen ones, the rest."""
    chance = random.Random(SEED)
    for number in range(count):
        metric: Params = [("metric", KEYED_METRIC)]
        if number % 6 == 0:
            yield "/api/v1/keys", metric
            continue
        if number % 6 > 2:
            metric += [("key", f"common-key-{chance.randrange(COMMON_KEYS):04d}") for _ in range(12)]
        if number % 6 == 5:
            metric.append(("rest", "1"))
        yield f"/api/v1/{('distribution', 'evolution')[number % 2]}", [*metric, *filters(chance, days)]


def old_questions(metrics: int, count: int) -> Iterator[tuple[str, Params]]:
    """Yield what pages written for Mozilla's service ask: all dates of a version."""
    chance = random.Random(SEED)
    names = [shape.name for shape in shapes(metrics) if shape.name != KEYED_METRIC]
    for _ in range(count):
        channel = f"/aggregates_by/build_id/channels/{chance.choice(CHANNELS)}/"
        yield channel, [("metric", chance.choice(names)), *newest_version()]


def newest_version() -> Params:
    """Return the parameters that ask Mozilla's service for the newest version."""
    days = [LAST - timedelta(days=number) for number in range(60)]
    return [("version", major_of(version_of(LAST))), ("dates", ",".join(f"{day:%Y%m%d}" for day in days))]


def largest_answers(reader: Reader) -> None:
    """Ask for all that is large."""
    percents = ("percentiles", "0.1,1,5,25,50,75,95,99,99.9")
    keys = [("key", f"common-key-{number:04d}") for number in range(12)]
    for view in ("distribution", "evolution"):
        for by in ("build", "submission"):
            for ending in ("", ".csv"):
                reader.ask(
                    f"/api/v1/{view}{ending}",
                    [("metric", KEYED_METRIC), ("by", by), ("compare", "channel"), percents, *keys],
                )
    reader.ask("/api/v1/keys", [("metric", KEYED_METRIC)])
    reader.ask("/api/v1/metrics", [("limit", "5000")])
    reader.ask("/metrics", [])
    reader.ask("/filters/", [("channel", "nightly"), ("version", major_of(version_of(LAST)))])
    for by in ("build_id", "submission_date"):
        channel = f"/aggregates_by/{by}/channels/nightly/"
        reader.ask(channel, [("metric", KEYED_METRIC), *newest_version()])
        reader.ask(f"{channel}dates/", [])


def first_charts(reader: Reader, url: str, metrics: int, recorder: Recorder) -> None:
    """Measure a new browser with an empty profile from the address to the chart; needs Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        recorder.remark("Chromium is not installed: the first chart was not measured.")
        return
    from playwright.sync_api import sync_playwright

    name = shapes(metrics)[0].name
    with sync_playwright() as playwright:
        for view in ("distribution", "evolution"):
            times = Times()
            for _ in range(BROWSERS):
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page()
                begin = time.perf_counter()
                page.goto(f"{url}/{view}?metric={name}", wait_until="commit")
                page.wait_for_selector(f"#chart-{view} svg")
                times.milliseconds.append((time.perf_counter() - begin) * 1e3)
                browser.close()
                times.reference.append(reader.reference())
            chart = f"first chart of a new browser, {view}"
            recorder.add(chart, median(times.milliseconds), "ms", measure="median", at_most=CHART_TARGET_MS)
            ratio = median(times.milliseconds) / median(times.reference)
            recorder.add(chart, ratio, "references", measure="median")
            show(f"{chart}: {median(times.milliseconds):.0f} ms, {times.milliseconds}")


def add_a_day(reader: Reader, versions: CubeVersions, metrics: int, days: int, recorder: Recorder) -> None:
    """Measure what a day of new rows of the aggregates takes, until it is served."""
    dates = [*days_of(days), LAST + timedelta(days=1)]
    source = DayOfAggregates(dates, metrics)
    clock = datetime.combine(dates[-1], datetime.min.time(), UTC) + timedelta(hours=3)
    begin = time.monotonic()
    manifest = next(update_cubes(versions, lambda: source, definitions_of, clock=lambda: clock))
    recorder.add("cubes of a day added", time.monotonic() - begin, "s")
    recorder.add("served after", reader.wait_for(manifest.version, merged=False), "s")
    recorder.add("merged after", reader.wait_for(manifest.version, merged=True), "s")
    recorder.remark(f"The day that is added has {source.row_count:,} rows of the aggregates.")
    show(f"a day: {[(figure.name, figure.value) for figure in recorder.figures[-3:]]}")


def restart(pages: RunningPages, folder: Path) -> None:
    """Start the server again, and evict its files from the page cache."""
    pages.kill()
    pages.start()  # it verifies the files, and so reads all of them
    for path in (folder / "web" / "cubes").rglob("*.parquet"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def show(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
