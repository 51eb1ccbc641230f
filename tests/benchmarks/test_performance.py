"""The page of figures is what its generator writes, from results that benchmarks have written."""

import re
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from benchmarks import performance
from benchmarks.chaos import record as record_chaos
from benchmarks.coverage import Summary, record
from benchmarks.results import RESULTS_DIRECTORY, Figure, Recorder, Target, read_results, recording
from benchmarks.yardstick import fixed_document
from lake_testing.chaos import ChaosReport
from lake_testing.proof_check import Verdict
from telemetry_lake.project_files import PROJECT_ROOT


def test_the_page_is_what_the_results_say() -> None:
    assert performance.PAGE.read_text() == performance.page(), "run `make performance`"


def test_every_result_is_that_of_a_command_of_the_makefile() -> None:
    modules = set(re.findall(r"-m benchmarks\.(\w+)", (PROJECT_ROOT / "Makefile").read_text()))
    for result in read_results(RESULTS_DIRECTORY).values():
        module = re.match(r"python -m benchmarks\.(\w+)", result.command)
        assert module, result.command
        assert module[1] in modules


def test_a_run_is_recorded_with_its_yardstick_and_shown(tmp_path: Path) -> None:
    with recording("convert", tmp_path) as recorder:
        recorder.add("the whole way", 1_234.567, "pings/s", at_least=1_900)
        recorder.add("the whole way", 0.81, "ms", measure="p50")
        recorder.add("lost", 1_234_567, "pings", at_most=0)
        recorder.remark("Two pings.")
    result = read_results(tmp_path)["convert"]
    assert result.figures[0] == Figure(
        name="the whole way", value=1_234.57, unit="pings/s", target=Target(bound="at least", value=1_900)
    )
    assert result.yardstick
    assert min(result.yardstick.model_dump().values()) > 0
    assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?", result.commit)
    page = performance.page(tmp_path)
    assert "| | pings/s | p50, ms |" in page
    assert "| the whole way | 1,235 **(target: at least 1,900: missed)** | 0.81 |" in page
    assert "| lost | 1,234,567 pings | **(target: at most 0: missed)** |" in page
    assert "Two pings." in page


def test_a_run_that_fails_leaves_the_old_result(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), recording("convert", tmp_path):
        raise SystemExit(1)
    assert list(tmp_path.iterdir()) == []


def test_a_target_is_met_at_its_bound() -> None:
    recorder = Recorder()
    recorder.add("rate", 10, "pings/s", at_least=10)
    recorder.add("memory", 11, "MiB", at_most=10)
    assert [figure.target and figure.target.is_met_by(figure.value) for figure in recorder.figures] == [
        True,
        False,
    ]


def test_the_document_of_the_yardstick_never_changes() -> None:
    assert crc32(fixed_document()) == 0x142852B9


def test_coverage_is_recorded_by_room(tmp_path: Path) -> None:
    half = Summary(covered_lines=40, num_statements=80, covered_branches=10, num_branches=20)
    whole = Summary(covered_lines=100, num_statements=100, covered_branches=0, num_branches=0)
    recorder = Recorder()
    record({"telemetry_lake/drain/claim.py": half, "telemetry_lake/columns.py": whole}, recorder)
    assert [(figure.name, figure.value, figure.unit) for figure in recorder.figures] == [
        ("telemetry_lake", 75, "%"),
        ("telemetry_lake", 200, "lines and branches"),
        ("beside the rooms", 100, "%"),
        ("beside the rooms", 100, "lines and branches"),
        ("drain/", 50, "%"),
        ("drain/", 100, "lines and branches"),
    ]


def test_a_broken_promise_is_a_missed_target_of_the_chaos_run() -> None:
    recorder = Recorder()
    verdict = Verdict(acknowledged=1_234_567, document_ids=1_234_000, lost=["an id"])
    record_chaos(ChaosReport(Counter(seaweedfs=2, elasticmq=1), 60.0, verdict), recorder)
    figures = {figure.name: figure for figure in recorder.figures}
    assert (figures["killed processes"].value, figures["acknowledged pings"].value) == (3, 1_234_567)
    missed = {
        name
        for name, figure in figures.items()
        if figure.target and not figure.target.is_met_by(figure.value)
    }
    assert missed == {"lost document ids"}
