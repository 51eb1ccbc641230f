"""Record how much of the core the tests run, by room, from the data that `make coverage` has left.

    make coverage

Functions that numba compiles are left out, because they run outside of Python (`[tool.coverage]` in
`pyproject.toml`). So is what a process did that was killed with SIGKILL, which many tests do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.results import Recorder, add_results_option, recording
from telemetry_lake.project_files import PROJECT_ROOT

CORE = "telemetry_lake"


class Summary(BaseModel):
    """What the report of coverage says of a file; it has more members than these."""

    model_config = ConfigDict(frozen=True)

    covered_lines: int
    num_statements: int
    covered_branches: int
    num_branches: int

    @property
    def covered(self) -> int:
        """Lines and branches that ran."""
        return self.covered_lines + self.covered_branches

    @property
    def total(self) -> int:
        """Lines and branches that can run."""
        return self.num_statements + self.num_branches


def main() -> None:
    """Read the data of the last run and record the coverage of each room."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_results_option(parser)
    arguments = parser.parse_args()
    with recording("coverage", arguments.results) as recorder:
        record(read_summaries(), recorder)


def read_summaries() -> dict[str, Summary]:
    """Read the combined data. Returns the summary of each file, by its path below the project.

    Exits with a message when there is no data.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)]
        if subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode:
            raise SystemExit("There is no coverage data: run `make coverage`.")
        files = json.loads(report.read_bytes())["files"]
    return {name: Summary.model_validate(file["summary"]) for name, file in files.items()}


def record(summaries: Mapping[str, Summary], recorder: Recorder) -> None:
    """Add the share of lines and branches that ran, for the core and for each of its rooms."""
    by_room: dict[str, list[Summary]] = defaultdict(list)
    for name, summary in summaries.items():
        parts = Path(name).parts
        by_room[f"{parts[1]}/" if len(parts) > 2 else "beside the rooms"].append(summary)
    everything = [summary for room in by_room.values() for summary in room]
    for name, room in {CORE: everything, **dict(sorted(by_room.items()))}.items():
        total = sum(summary.total for summary in room)
        if total:
            share = 100 * sum(summary.covered for summary in room) / total
            print(f"{name:20} {share:5.1f} % of {total:,} lines and branches")
            recorder.add(name, share, "%")
            recorder.add(name, total, "lines and branches")


if __name__ == "__main__":
    main()
