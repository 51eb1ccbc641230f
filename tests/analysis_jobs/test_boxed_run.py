"""A whole map-reduce job in its box: it does its work, and a script that looks around finds nothing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from lake_testing.lake_of_scripts import LakeOfScripts
from lake_testing.sample_pings import DAYS, PINGS_PER_DAY
from telemetry_lake.analysis_jobs.sandbox.box import sandbox_state
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Role
from telemetry_lake.storage.object_store import ObjectStore

DEADLINE_SECONDS: Final = 240.0
RAW: Final = "raw/v1/2026-11-23/09/node-1/pried.arrows"
OTHERS: Final = "analyses/runs/of_another/output.txt"
LIVE: Final = "live/pings/data/pried.parquet"
STABLE: Final = "stable/pings/data/pried.parquet"

PRIES: Final = """
import glob, http.client, os, socket, subprocess
from urllib.parse import urlsplit

fields = ()

def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""

def ask(method, path):
    endpoint = urlsplit(os.environ["TELEMETRY_LAKE_S3__ENDPOINT_URL"])
    connection = http.client.HTTPConnection(endpoint.hostname, endpoint.port, timeout=20)
    connection.request(method, path, body=b"changed" if method == "PUT" else None)
    answer = connection.getresponse()
    return f"{answer.status} {answer.read()[:20]!r}"

def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return "open"
    except OSError:
        return "closed"

def found():
    seen = [read(path) for path in glob.glob("/proc/[0-9]*/environ")] + [str(dict(os.environ))]
    seen += [read(path) for path in glob.glob("/proc/[0-9]*/cmdline")]
    seen.append(read(ENV_FILE) + read(PROJECT + "/.local/telemetry_lake.env"))
    yield "secrets", sum("secret-of-" in text for text in seen)
    yield "key file", os.path.exists(ENV_FILE)
    yield "home of the stack", os.path.exists(PROJECT + "/.local")
    yield "other processes", "pytest" in " ".join(seen)
    yield "user", os.getuid() == OWNER
    for port in PORTS:
        yield "port", connects(port)
    for path in ALLOWED + REFUSED:
        yield path, ask("GET", path)
    yield "put", ask("PUT", ALLOWED[0])
    yield "delete", ask("DELETE", ALLOWED[0])
    yield "list", ask("GET", "/warehouse?list-type=2&prefix=stable/")

def map(key, dimensions, value, context):
    context.write(dimensions[1], 1)

def setup_reduce(context):
    for name, value in found():
        context.writeline(f"{name}: {value}")

def reduce(key, values, context):
    context.write(key, sum(values))
"""


def run(lake: LakeOfScripts, script: Path, output: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the job as the DAG does."""
    module = "telemetry_lake.analysis_jobs.sandbox.boxed_run"
    return subprocess.run(
        (
            *(sys.executable, "-m", module, "jobs.mapreduce", f"--script={script}", f"--output={output}"),
            *arguments,
        ),
        cwd=PROJECT_ROOT,
        env={**os.environ, "TELEMETRY_LAKE_ENV_FILE": str(lake.env_file)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(not sandbox_state().is_apart, reason="bubblewrap is not installed: there is no box")
def test_a_script_does_its_work_and_can_reach_nothing_else(
    lake_of_scripts: LakeOfScripts, tmp_path: Path
) -> None:
    lake = lake_of_scripts.lake
    store = ObjectStore(lake.settings.s3)
    for bucket, key in (("raw", RAW), ("lake", OTHERS), ("warehouse", LIVE), ("warehouse", STABLE)):
        store.put(bucket, key, b"a secret")
    refused = [f"/raw/{RAW}", f"/lake/{OTHERS}", f"/warehouse/{LIVE}"]
    refused += [f"/warehouse/stable/pings/../../{LIVE}", f"/warehouse/stable/pings/%2e%2e/%2e%2e/{LIVE}"]
    named = {
        "ENV_FILE": str(lake_of_scripts.env_file),
        "PROJECT": str(PROJECT_ROOT),
        "OWNER": os.getuid(),
        "PORTS": [lake.s3.s3_port, lake.s3.catalog_port, lake.s3.first_internal_port, lake.sqs.port],
        "ALLOWED": [f"/warehouse/{STABLE}"],
        "REFUSED": refused,
    }
    script = tmp_path / "pries.py"
    script.write_text("\n".join(f"{name} = {value!r}" for name, value in named.items()) + PRIES)
    place = "analyses/runs/own/output.txt"
    done = run(lake_of_scripts, script, f"s3://lake/{place}", "--dates=2026-11-23..2026-11-24")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = ObjectStore(lake.of(Role.ANALYST).s3).get("lake", place).decode().splitlines()
    answers = [line for line in lines if "\t" not in line]
    counts = dict(line.split("\t") for line in lines if "\t" in line)
    assert sum(map(int, counts.values())) == 2 * PINGS_PER_DAY < DAYS * PINGS_PER_DAY
    assert answers == [
        *("secrets: 0", "key file: False", "home of the stack: False", "other processes: False"),
        f"user: {os.getuid() != 0}",
        *["port: closed"] * 4,
        f"/warehouse/{STABLE}: 200 b'a secret'",
        *(f"{path}: 403 b''" for path in refused),
        *(f"{refused_act}: 403 b''" for refused_act in ("put", "delete", "list")),
    ]
