"""The checked variant of compiled code raises where the other one would read or write outside of arrays.

Which variant a process has is decided when it starts, so everything here runs in processes of its own.
"""

import os
import subprocess
import sys

import pytest

from telemetry_lake import numba_options
from telemetry_lake.numba_options import CHECKED, CHECKED_VARIABLE, KernelCache
from telemetry_lake.project_files import PROJECT_ROOT

OUTSIDE = """
import numpy as np
from telemetry_lake.convert.fast_histograms.scanner import past_string
from telemetry_lake.convert.fast_histograms.swar import put_word, word_at
from telemetry_lake.numba_options import CHECKED, compiled

# A part of a larger array: whoever reads behind the part reads what belongs to us.
memory = np.full(64, ord("a"), np.uint8)
part, rows = memory[8:32], np.zeros((8, 2), np.int64)[2:6]

@compiled
def get(array, at):
    return array[at]

@compiled
def put(array, at):
    array[at] = 7

@compiled
def get_row(table, row):
    return table[row, 1]

@compiled
def get_word(text, at):
    return word_at(text, at)

@compiled
def write_word(text, at):
    put_word(text, at, np.uint64(0))

raised = 0

def last_and_next(function, array, last):
    global raised
    function(array, np.uint64(last))
    try:
        function(array, np.uint64(last + 1))
    except IndexError:
        raised += 1

last_and_next(get, part, 23)
last_and_next(put, part, 23)
last_and_next(get_row, rows, 3)
last_and_next(get_word, part, 16)
last_and_next(write_word, part, 16)

# A string of a document without zeros behind it.
if CHECKED:
    try:
        past_string(np.frombuffer(b'"a', np.uint8), np.uint64(0))
    except IndexError:
        raised += 1
print(raised)
"""


def run(command, checked, **options):
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT_ROOT),
        CHECKED_VARIABLE: "1" if checked else "0",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=PROJECT_ROOT, env=environment, text=True, check=False, **options
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("checked, raised", [(True, 6), (False, 0)])
def test_one_past_the_end_is_an_error_in_the_checked_variant_only(checked, raised, tmp_path):
    program = tmp_path / "outside.py"
    program.write_text(OUTSIDE)
    done = run([str(program)], checked, capture_output=True)
    assert (done.returncode, done.stdout) == (0, f"{raised}\n"), done.stderr


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(CHECKED, reason="these are the tests that the checked variant runs")
def test_conversion_passes_its_tests_on_the_checked_variant():
    tests = ["tests/convert", "tests/histograms", "tests/backfill/test_row_texts.py"]
    ignored = ["test_checked_kernels.py", "test_damaged_documents.py"]
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not stack and not long", *tests]
    command += [f"--ignore=tests/convert/{name}" for name in ignored]
    done = run(command, checked=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " passed" in done.stdout


def test_machine_code_is_out_of_date_when_a_file_beside_it_changes(tmp_path):
    source, neighbour = tmp_path / "kernels.py", tmp_path / "layout.py"
    source.touch()
    stamps = set()
    for text in ("NAME = 0", "NAME = 1"):
        neighbour.write_text(text)
        numba_options._digest_of_folder.cache_clear()
        locator = KernelCache.from_function(run, str(source))
        assert locator is not None
        stamps.add(locator.get_source_stamp())
    assert len(stamps) == 2
