"""What a benchmark found, in `benchmarks/results/<name>.json`: the only place where figures are kept.

A result says what was measured (figures with their units and targets), of which commit, when, on which
machine, and how fast that machine was during the run (`benchmarks.yardstick`). `docs/performance.md` is
generated from these files by `python -m benchmarks.performance`.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.yardstick import Yardstick, measure_yardstick
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import MIB

RESULTS_DIRECTORY = PROJECT_ROOT / "benchmarks" / "results"
RESULTS_OPTION = "--results"
RESULTS_HELP = "folder for the result (default: benchmarks/results)"
SIGNIFICANT_DIGITS = 6
COMMIT_DIGITS = 12


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Record):
    """What a figure has to reach."""

    bound: Literal["at least", "at most"]
    value: float

    def is_met_by(self, value: float) -> bool:
        """Return whether `value` reaches the target."""
        return value >= self.value if self.bound == "at least" else value <= self.value


class Figure(_Record):
    """One measured number: of what (`name`), which property of it (`measure`), and in which unit."""

    name: str
    measure: str = ""
    value: float
    unit: str
    target: Target | None = None


class Machine(_Record):
    """Where a benchmark ran; None where that is not known any more."""

    cores: int
    memory_gib: float | None
    cpu_model: str | None
    python: str | None


class Result(_Record):
    """One run of a benchmark."""

    benchmark: str
    command: str
    measured_on: date
    """UTC."""
    commit: str
    machine: Machine
    load_average: float | None
    """Of the last minute, at the start: more than about 0.5 says that other work ran beside the benchmark."""
    yardstick: Yardstick | None
    """None in results that are older than the yardstick."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know beside the figures."""
    figures: tuple[Figure, ...] = Field(min_length=1)


class Recorder:
    """Collects the figures of a run."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.remarks: list[str] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        measure: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure, with the target that it has to reach where there is one."""
        target = None
        if at_least is not None:
            target = Target(bound="at least", value=at_least)
        elif at_most is not None:
            target = Target(bound="at most", value=at_most)
        rounded = value if isinstance(value, int) else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        self.figures.append(Figure(name=name, measure=measure, value=rounded, unit=unit, target=target))

    def remark(self, text: str) -> None:
        """Add a sentence that belongs to the figures."""
        self.remarks.append(text)


@contextmanager
def recording(benchmark: str, directory: Path, *, module: str | None = None) -> Iterator[Recorder]:
    """Record a run of a benchmark, and write its result into `directory` unless the block raises.

    The yardstick is measured before and after the block, and the faster of both is kept, as benchmarks
    keep their fastest round. `module` is the command's module below `benchmarks`, by default `benchmark`.
    """
    measured_on, load_average = datetime.now(UTC).date(), round(os.getloadavg()[0], 2)
    before = measure_yardstick()
    recorder = Recorder()
    yield recorder
    result = Result(
        benchmark=benchmark,
        command=_command(module or benchmark),
        measured_on=measured_on,
        commit=current_commit(),
        machine=this_machine(),
        load_average=load_average,
        yardstick=before.faster(measure_yardstick()),
        remarks=tuple(recorder.remarks),
        figures=tuple(recorder.figures),
    )
    file = write_result(result, directory)
    print(f"written to {file}; `make performance` puts it into docs/performance.md", file=sys.stderr)


def write_result(result: Result, directory: Path) -> Path:
    """Write a result into its file below `directory`. Returns the file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{result.benchmark}.json"
    file.write_text(result.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    return file


def read_results(directory: Path = RESULTS_DIRECTORY) -> dict[str, Result]:
    """Read every result in `directory`. Returns them by the name of their benchmark.

    Raises ValueError for a file that is not a result, or that is not named after its benchmark.
    """
    results = {}
    for file in sorted(directory.glob("*.json")):
        result = Result.model_validate_json(file.read_bytes())
        if result.benchmark != file.stem:
            raise ValueError(f"{file} holds the result of {result.benchmark}: rename it")
        results[result.benchmark] = result
    return results


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the folder of the result, so that a trial need not replace a committed result."""
    parser.add_argument(RESULTS_OPTION, type=Path, default=RESULTS_DIRECTORY, help=RESULTS_HELP)


def this_machine() -> Machine:
    """Describe this machine without naming it."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in cpu_info if line.startswith("model name")]
    return Machine(
        cores=os.cpu_count() or 1,
        memory_gib=round(pages * page_bytes / MIB / 1024, 1),
        cpu_model=models[0] if models else None,
        python=platform.python_version(),
    )


def current_commit() -> str:
    """Return the commit that is checked out, with `+changes` when the code differs from it."""
    commit = _git("rev-parse", f"--short={COMMIT_DIGITS}", "HEAD")
    changes = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs"
    )
    return f"{commit}+changes" if changes else commit


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def _command(module: str) -> str:
    arguments = iter(sys.argv[1:])
    shown = []
    for argument in arguments:
        if argument == RESULTS_OPTION:
            next(arguments, None)
        elif not argument.startswith(f"{RESULTS_OPTION}="):
            shown.append(argument)
    return " ".join(["python -m", f"benchmarks.{module}", *shown])
