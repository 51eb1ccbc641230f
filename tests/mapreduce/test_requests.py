"""A form becomes a run: what is wrong with it is said, and what the job needs is in the lake bucket."""

import json
import tracemalloc
from pathlib import Path

import httpx
import pytest

from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.mapreduce.form import read_request
from telemetry_lake.mapreduce.requests import output_link, output_summary, prepare_run
from telemetry_lake.mapreduce.script.script import SOURCE_MAX_BYTES
from telemetry_lake.settings import AnalysisSettings, S3Settings, Settings
from telemetry_lake.storage.object_keys import analysis_run_key
from telemetry_lake.storage.object_store import ObjectStore

RUN = "manual__2026-11-23T06:00:00+00:00"
SCRIPT = "def map(key, dimensions, value, context):\n    context.write(key, 1)\n"
FILTER = json.dumps({"dimensions": [{"field_name": "appName", "allowed_values": ["Firefox"]}]})


@pytest.mark.parametrize(
    "form, message",
    [
        ({}, "either the place of a script or its text"),
        ({"script": "/a.py", "script_text": SCRIPT}, "either the place of a script or its text"),
        ({"script": "/a.py", "sample": 101}, "sample: "),
        ({"script": "/a.py", "schedule": "daily"}, "needs a name"),
        ({"script": "/a.py", "schedule": "hourly"}, "schedule: "),
        (
            {"script": "/a.py", "schedule": "daily", "name": "a", "output": "s3://b/k"},
            "leave the output empty",
        ),
        ({"script": "/a.py", "name": "../a"}, "name: "),
        ({"script": "/a.py", "scirpt": "/b.py"}, "scirpt: "),
    ],
)
def test_a_form_that_cannot_be_used_says_why(form, message):
    with pytest.raises(FatalError, match=message):
        read_request(form)


def test_empty_fields_are_left_out():
    request = read_request({"script_text": SCRIPT, "script": "", "output": None, "num_reducers": None})
    assert (request.script, request.output, request.sample) == (None, None, 100)


def test_a_run_has_copies_of_its_script_the_modules_beside_it_and_its_filter(lake_settings, tmp_path: Path):
    (tmp_path / "helping").mkdir()
    (tmp_path / "helping" / "__init__.py").write_text("from helping.words import WORD\n")
    (tmp_path / "helping" / "words.py").write_text("WORD = 'ä'\n")
    (tmp_path / "not_imported.py").write_text("secret = 1\n")
    (tmp_path / "count.py").write_text(f"import helping\n{SCRIPT}")
    form = {"script": str(tmp_path / "count.py"), "filter": FILTER, "dates": "2026-11-01", "num_reducers": 3}

    prepared = prepare_run(lake_settings, read_request(form), RUN)

    store, bucket = ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket
    prefix = analysis_run_key(RUN, "")
    assert {found.key.removeprefix(prefix) for found in store.list_objects(bucket, prefix)} == {
        *("script/count.py", "script/helping/__init__.py", "script/helping/words.py", "filter.json")
    }
    assert prepared.arguments == [
        f"--script=s3://{bucket}/{prefix}script/count.py",
        f"--filter=s3://{bucket}/{prefix}filter.json",
        *("--table=stable", "--dates=2026-11-01", "--sample=100", "--format=text", "--num-reducers=3"),
        f"--output=s3://{bucket}/{prefix}output.txt",
    ]
    # The copies are as good as the files: another run may start from them.
    copies = read_request({"script": prepared.script, "filter": prepared.filter})
    again = prepare_run(lake_settings, copies, "other", trusted=(f"s3://{bucket}/{prefix}",))
    assert store.get(bucket, analysis_run_key("other", "script/helping/words.py")).decode() == "WORD = 'ä'\n"
    assert again.output != prepared.output


def test_a_pasted_script_may_come_from_any_system_and_hold_any_text(lake_settings):
    text = "# $(id) `id` {{ params }} '\"\r\n" + SCRIPT.replace("\n", "\r\n") + "ODD = 'a\x0cb\u2028c'"
    prepared = prepare_run(lake_settings, read_request({"script_text": text}), RUN)
    stored = ObjectStore(lake_settings.s3).get(
        lake_settings.s3.lake_bucket, analysis_run_key(RUN, "script/script.py")
    )
    assert stored.decode() == text.replace("\r\n", "\n") + "\n"
    assert "$(id)" not in " ".join(prepared.arguments)


@pytest.mark.parametrize(
    "form, message",
    [
        ({"script_text": "def map(:\n"}, r"script\.py:1 is not Python 3\.11"),
        ({"script": "/nowhere/a.py"}, r"/nowhere/a\.py cannot be read"),
        ({"script": "s3://{bucket}/analyses/scripts/nowhere.py"}, r"nowhere\.py is not there"),
        ({"script_text": SCRIPT, "filter": "{"}, "the filter .* cannot be used"),
        (
            {"script_text": SCRIPT, "filter": '{"dimensions": [{"field_name": "x", "allowed_values": "*"}]}'},
            "names 'x'; possible are",
        ),
    ],
)
def test_a_script_or_a_filter_that_cannot_be_used_says_why(lake_settings, form, message):
    given = {name: value.replace("{bucket}", lake_settings.s3.lake_bucket) for name, value in form.items()}
    with pytest.raises(FatalError, match=message):
        prepare_run(lake_settings, read_request(given), RUN)


@pytest.mark.parametrize(
    "place",
    [
        "s3://{raw}/raw/v1/2026-11-23/09/node-1/segment.py",
        "s3://{lake}/batches/a.py",
        "s3://{lake}/analyses/scripts.py",
        "s3://{lake}/analyses/scripts/../../batches/a.py",
        "s3://{lake}/analyses/scripts//a.py",
        "s3://another/analyses/scripts/a.py",
    ],
)
def test_only_scripts_and_filters_of_analysts_are_read_from_s3(lake_settings, place):
    s3 = lake_settings.s3
    place = place.format(raw=s3.raw_bucket, lake=s3.lake_bucket)
    for form in ({"script": place}, {"script_text": SCRIPT, "filter": place}):
        with pytest.raises(FatalError, match=r"may not be read: put scripts and filters below s3://lake-"):
            prepare_run(lake_settings, read_request(form), RUN)


def test_a_script_may_be_below_the_prefix_of_the_settings_which_is_never_where_pings_are(lake_settings):
    s3 = lake_settings.s3
    store = ObjectStore(s3)
    analysis = AnalysisSettings(scripts_prefix=f"s3://{s3.lake_bucket}/ours/")
    settings = lake_settings.model_copy(update={"analysis": analysis})
    store.put(s3.lake_bucket, "ours/count.py", SCRIPT.encode())
    store.put(s3.lake_bucket, "ours/filter.json", FILTER.encode())
    form = {
        "script": f"s3://{s3.lake_bucket}/ours/count.py",
        "filter": f"s3://{s3.lake_bucket}/ours/filter.json",
    }
    prepared = prepare_run(settings, read_request(form), RUN)
    assert store.get(s3.lake_bucket, prepared.script.split("/", 3)[3]).decode() == SCRIPT
    wrong = AnalysisSettings(scripts_prefix=f"s3://{s3.raw_bucket}/raw/")
    with pytest.raises(ConfigurationError, match="SCRIPTS_PREFIX is in the raw bucket"):
        prepare_run(lake_settings.model_copy(update={"analysis": wrong}), read_request(form), RUN)


def test_a_path_is_read_only_where_jobs_run_on_the_worker_anyway(lake_settings, tmp_path: Path):
    (tmp_path / "count.py").write_text(SCRIPT)
    request = read_request({"script": str(tmp_path / "count.py")})
    assert prepare_run(lake_settings, request, RUN).script.endswith("count.py")
    spark = lake_settings.spark.model_copy(update={"run_on": "emr-cluster"})
    with pytest.raises(FatalError, match=r"count\.py would be read on the Airflow worker"):
        prepare_run(lake_settings.model_copy(update={"spark": spark}), request, RUN)


@pytest.mark.parametrize("field", ["script", "filter"])
def test_an_object_that_is_too_large_is_refused_before_it_is_loaded(lake_settings, field):
    s3 = lake_settings.s3
    name = "analyses/scripts/large" + (".py" if field == "script" else ".json")
    ObjectStore(s3).put(s3.lake_bucket, name, b" " * (SOURCE_MAX_BYTES + 1))
    form = {"script_text": SCRIPT} if field == "filter" else {}
    request = read_request({**form, field: f"s3://{s3.lake_bucket}/{name}"})
    tracemalloc.start()
    try:
        with pytest.raises(FatalError, match=r"16,777,216 bytes together: .* has 16,777,217 bytes"):
            prepare_run(lake_settings, request, RUN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SOURCE_MAX_BYTES / 2


def test_an_output_cannot_be_in_the_place_of_something_else(lake_settings):
    with pytest.raises(FatalError, match="the form cannot be used: output"):
        read_request({"script_text": SCRIPT, "output": "/etc/cron.d/analyst"})
    s3 = lake_settings.s3
    for bucket in (s3.lake_bucket, s3.raw_bucket):
        of_another = f"s3://{bucket}/{analysis_run_key('of_another', 'output.txt')}"
        request = read_request({"script_text": SCRIPT, "output": of_another})
        with pytest.raises(FatalError, match="could be in the place of what others made"):
            prepare_run(lake_settings, request, RUN)
    free = read_request({"script_text": SCRIPT, "output": "s3://ours/out.txt"})
    assert prepare_run(lake_settings, free, RUN).output == "s3://ours/out.txt"


def test_an_output_is_summed_up_and_linked_to(lake_settings):
    bucket = lake_settings.s3.lake_bucket
    ObjectStore(lake_settings.s3).put(bucket, "out.txt", b"Linux\t3\n")
    assert output_summary(lake_settings, f"s3://{bucket}/out.txt").endswith("8 bytes and begins:\nLinux\t3\n")
    answer = httpx.get(output_link(lake_settings, f"s3://{bucket}/out.txt"))
    assert (answer.status_code, answer.text) == (200, "Linux\t3\n")
    with pytest.raises(FatalError, match=r"missing\.txt"):
        output_summary(lake_settings, f"s3://{bucket}/missing.txt")
    on_aws = Settings(s3=S3Settings(region="eu-west-1"), _env_file=None)
    assert output_link(on_aws, "s3://lake/a/b.txt") == (
        "https://eu-west-1.console.aws.amazon.com/s3/object/lake?region=eu-west-1&prefix=a/b.txt"
    )
    assert output_link(on_aws, "/tmp/b.txt") == ""


def test_keys_of_runs_differ_when_the_ids_do():
    assert analysis_run_key("a:b", "x") != analysis_run_key("a+b", "x")
    assert len(analysis_run_key("r" * 250, "output.txt").encode()) < 1_024
