"""What a DAG asks of EMR, held against boto3's service models; nothing here ran on AWS."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.providers.amazon.aws.links.emr import EmrClusterLink, EmrLogsLink, EmrServerlessS3LogsLink
from airflow.sdk.exceptions import AirflowException

from dags.emr import ClusterEnded, ClusterJob, JobRunEnded, ServerlessJob
from dags.spark_job import spark_job
from lake_testing.airflow_runs import airflow_environment
from lake_testing.stack import Lake, free_ports
from telemetry_lake.deploy.script_policy import script_run_policy
from telemetry_lake.deploy.spark_package import SparkPackage, package_of
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import load_settings
from telemetry_lake.storage.object_keys import analysis_run_key
from telemetry_lake.storage.object_store import ObjectStore
from tests.dags.emr_endpoint import (
    FAILS,
    NEVER_ENDS,
    STOPPED_BY_HAND,
    SUCCEEDS,
    EmrEndpoint,
    Json,
    serve,
)

pytestmark = pytest.mark.slow
RUN_DEADLINE_SECONDS = 280
TIME_LIMIT = timedelta(minutes=1)
ROLE = "arn:aws:iam::123456789012:role/telemetry-lake-job"
SCRIPT_ROLE = "arn:aws:iam::123456789012:role/telemetry-lake-script"
PYTHON = "./environment/bin/python"
CATALOG = {"type": "glue", "warehouse": "s3://warehouse/", "client.region": "us-east-1"}


@pytest.fixture(scope="module")
def emr() -> Iterator[tuple[EmrEndpoint, str]]:
    endpoint, port = EmrEndpoint(), free_ports(1)
    server = serve(endpoint, port)
    yield endpoint, f"http://127.0.0.1:{port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is made of and what runs it, which nobody edits meanwhile."""
    copy = tmp_path_factory.mktemp("clone")
    for folder in ("dags", "jobs", "schemas", "sql", "telemetry_lake", "tests/dags"):
        shutil.copytree(PROJECT_ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("java/checksums.sha256", "requirements-emr.txt"):
        (copy / file).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT_ROOT / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def environment(
    emr: tuple[EmrEndpoint, str], new_lake: Any, clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """As on AWS: keys come from the machine's role, which the settings do not know of."""
    lake: Lake = new_lake()
    _, url = emr
    keys = ("S3__ACCESS_KEY_ID", "S3__SECRET_ACCESS_KEY")
    home = tmp_path_factory.mktemp("airflow")
    (home / "empty.env").touch()
    given = {
        "TELEMETRY_LAKE_ENV_FILE": str(home / "empty.env"),
        "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES": json.dumps(CATALOG),
        "TELEMETRY_LAKE_SPARK__APPLICATION_ID": "00f1abcdefgh1j0k",
        "TELEMETRY_LAKE_SPARK__EXECUTION_ROLE_ARN": ROLE,
        "TELEMETRY_LAKE_SPARK__SCRIPTS_APPLICATION_ID": "00f1scripts",
        "TELEMETRY_LAKE_SPARK__SCRIPTS_EXECUTION_ROLE_ARN": SCRIPT_ROLE,
        "TELEMETRY_LAKE_SPARK__SCRIPTS_INSTANCE_PROFILE": "telemetry-lake-scripts",
        "TELEMETRY_LAKE_SPARK__LOG_URI": "s3://logs/spark/",
        "TELEMETRY_LAKE_SPARK__SUBNET_ID": "subnet-0abc",
        "TELEMETRY_LAKE_SPARK__POLL_SECONDS": "1",
        "TELEMETRY_LAKE_SPARK__START_MAX_SECONDS": "1",
        "TELEMETRY_LAKE_SPARK__END_MAX_SECONDS": "1",
        "PYTHONPATH": str(clone),
        "AIRFLOW__CORE__DAGS_FOLDER": str(clone / "tests" / "dags" / "emr_jobs"),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
            {
                "conn_type": "aws",
                "login": lake.environment["TELEMETRY_LAKE_S3__ACCESS_KEY_ID"],
                "password": lake.environment["TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY"],
                "extra": {
                    # The links to Spark's pages look for the region here only.
                    "region_name": "us-east-1",
                    "service_config": {
                        "s3": {"endpoint_url": lake.environment["TELEMETRY_LAKE_S3__ENDPOINT_URL"]},
                        **{name: {"endpoint_url": url} for name in ("emr", "emr-serverless")},
                    },
                },
            }
        ),
    }
    boto = {
        f"AWS_{name.partition('__')[2]}": value
        for name in keys
        if (value := lake.environment[f"TELEMETRY_LAKE_{name}"])
    }
    inherited = {
        name: value for name, value in airflow_environment(home).items() if "TELEMETRY_LAKE_" not in name
    }
    of_s3 = {
        name: value
        for name, value in lake.environment.items()
        if name.startswith("TELEMETRY_LAKE_S3__") and not name.endswith(keys)
    }
    return {**inherited, **of_s3, **boto, **given}


@pytest.fixture
def in_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TELEMETRY_LAKE_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def package(in_environment: None, clone: Path) -> SparkPackage:
    return package_of(load_settings(), clone)


@pytest.fixture
def bucket(in_environment: None) -> str:
    return load_settings().s3.lake_bucket


@pytest.fixture(scope="module")
def runs(
    environment: dict[str, str], clone: Path, emr: tuple[EmrEndpoint, str]
) -> dict[tuple[str, str], Json]:
    """What became of each job on each kind of EMR, after the package was uploaded."""
    uploaded = subprocess.run(
        [sys.executable, "-c", UPLOAD], env=environment, cwd=clone, check=False, capture_output=True
    )
    assert uploaded.returncode == 0, uploaded.stderr
    asked = [
        (where, {"dates": fate, "workers": 5 if fate == FAILS else None})
        for where in ("emr-serverless", "emr-cluster")
        for fate in (SUCCEEDS, FAILS, NEVER_ENDS, STOPPED_BY_HAND)
        if (where, fate) != ("emr-serverless", STOPPED_BY_HAND)  # tells as much as a failure
    ]
    output = f"s3://{environment['TELEMETRY_LAKE_S3__LAKE_BUCKET']}/analyses/scheduled/systems.txt"
    asked += [
        (f"{where}-script", {"dates": SUCCEEDS, "output": output})
        for where in ("emr-serverless", "emr-cluster")
    ]
    program = subprocess.run(
        [sys.executable, "-m", "tests.dags.run_emr_jobs", json.dumps(asked)],
        env=environment,
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_SECONDS,
        check=False,
    )
    output = program.stdout + program.stderr
    assert program.returncode == 0, output[-4_000:]
    endpoint, _ = emr
    assert endpoint.refused == []
    found = json.loads(program.stdout.splitlines()[-1])
    return {
        (where, str(conf["dates"])): {**run, "output": output}
        for (where, conf), run in zip(asked, found, strict=True)
    }


# What EMR would run does not matter here, only that it is there.
UPLOAD = """
import gzip

import boto3

from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.settings import load_settings
from telemetry_lake.storage.object_keys import analysis_run_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.deploy.script_policy import script_run_policy
from telemetry_lake.deploy.spark_package import package_of

settings = load_settings()
for artifact in package_of(settings):
    ObjectStore(settings.s3).put(settings.s3.lake_bucket, artifact.key, b"-")
# As EMR leaves it.
boto3.client("s3", endpoint_url=settings.s3.endpoint_url).create_bucket(Bucket="logs")
place = "spark/applications/00f1scripts/jobs/run7/SPARK_DRIVER/stdout.gz"
ObjectStore(settings.s3).put("logs", place, gzip.compress(b"printed by the script\\n"))
"""


def test_a_job_of_emr_serverless_is_asked_for_like_this(runs, emr, package, bucket):
    endpoint, _ = emr
    assert runs["emr-serverless", SUCCEEDS]["state"] == "success"
    first = endpoint.asked("StartJobRun")[0]
    token = first.pop("clientToken")
    jars = ",".join(f"s3://{bucket}/{jar.key}" for jar in package.jars)
    properties = {
        f"{process}.{name}": value
        for process in ("spark.emr-serverless.driverEnv", "spark.executorEnv")
        for name, value in variables(bucket).items()
    }
    assert len(token) == 36
    assert first == {
        "applicationId": "00f1abcdefgh1j0k",
        "executionRoleArn": ROLE,
        "name": "jobs.count_pings",
        "executionTimeoutMinutes": 1,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": f"s3://{bucket}/{package.entry_point.key}",
                "entryPointArguments": ["jobs.count_pings", "--dates", SUCCEEDS],
                "sparkSubmitParameters": (
                    f"--conf spark.submit.pyFiles=s3://{bucket}/{package.core.key} "
                    f"--conf spark.archives=s3://{bucket}/{package.environment.key}#environment "
                    f"--conf spark.jars={jars} "
                    "--conf spark.driver.cores=2 --conf spark.driver.memory=6g "
                    "--conf spark.executor.cores=4 --conf spark.executor.memory=14g "
                    "--conf spark.dynamicAllocation.maxExecutors=2"
                ),
            }
        },
        "configurationOverrides": {
            "applicationConfiguration": [
                {
                    "classification": "spark-defaults",
                    "properties": {
                        **properties,
                        "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": PYTHON,
                    },
                }
            ],
            "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": "s3://logs/spark/"}},
        },
    }
    # The application slept, and was woken once.
    assert len(endpoint.asked("StartApplication")) == 1


def test_a_cluster_for_one_job_is_asked_for_like_this(runs, emr, package, bucket):
    endpoint, _ = emr
    assert runs["emr-cluster", SUCCEEDS]["state"] == "success"
    jars = ",".join(f"s3://{bucket}/{jar.key}" for jar in package.jars)
    properties = {
        f"{process}.{name}": value
        for process in ("spark.yarn.appMasterEnv", "spark.executorEnv")
        for name, value in variables(bucket).items()
    }
    assert endpoint.asked("RunJobFlow")[0] == {
        "Name": "telemetry-lake jobs.count_pings",
        "ReleaseLabel": "emr-spark-8.1.0",
        "LogUri": "s3://logs/spark/",
        "Applications": [{"Name": "Spark"}],
        "Instances": {
            "InstanceGroups": [
                {
                    "Name": "primary",
                    "InstanceRole": "MASTER",
                    "InstanceType": "m6i.xlarge",
                    "InstanceCount": 1,
                },
                {
                    "Name": "workers",
                    "InstanceRole": "CORE",
                    "InstanceType": "m6i.2xlarge",
                    "InstanceCount": 2,
                },
            ],
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
            "Ec2SubnetId": "subnet-0abc",
        },
        "ServiceRole": "EMR_DefaultRole",
        "JobFlowRole": "EMR_EC2_DefaultRole",
        "AutoTerminationPolicy": {"IdleTimeout": 600},
        "Configurations": [
            {
                "Classification": "spark-defaults",
                "Properties": {**properties, "spark.yarn.appMasterEnv.PYSPARK_DRIVER_PYTHON": PYTHON},
            }
        ],
        "Steps": [
            {
                "Name": "jobs.count_pings",
                "ActionOnFailure": "TERMINATE_CLUSTER",
                "HadoopJarStep": {
                    "Jar": "command-runner.jar",
                    "Args": [
                        *("timeout", "--kill-after=30", "2", "spark-submit", "--deploy-mode", "cluster"),
                        *("--conf", f"spark.submit.pyFiles=s3://{bucket}/{package.core.key}"),
                        *("--conf", f"spark.archives=s3://{bucket}/{package.environment.key}#environment"),
                        *("--conf", f"spark.jars={jars}"),
                        *(
                            f"s3://{bucket}/{package.entry_point.key}",
                            "jobs.count_pings",
                            "--dates",
                            SUCCEEDS,
                        ),
                    ],
                },
            }
        ],
    }


def variables(bucket: str) -> dict[str, str]:
    """What driver and executors have in their environment: settings without keys, and the interpreter."""
    return {
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": str(load_settings().s3.endpoint_url),
        "TELEMETRY_LAKE_S3__RAW_BUCKET": load_settings().s3.raw_bucket,
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": bucket,
        "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES": json.dumps(CATALOG),
        "PYSPARK_PYTHON": PYTHON,
    }


def test_a_script_runs_in_an_application_and_a_role_of_its_own(runs, emr, bucket):
    endpoint, _ = emr
    run = runs["emr-serverless-script", SUCCEEDS]
    assert run["state"] == "success"
    asked = endpoint.asked("StartJobRun")[-1]
    assert (asked["applicationId"], asked["executionRoleArn"]) == ("00f1scripts", SCRIPT_ROLE)
    policy = json.loads(asked["executionIamPolicy"]["policy"])
    own = analysis_run_key(run["run_id"], "")
    objects = {
        (action, resource.removeprefix("arn:aws:s3:::"))
        for statement in policy["Statement"]
        for action in statement["Action"]
        for resource in [statement["Resource"]]
        if action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
    }
    written = {f"{bucket}/{own}*", f"{bucket}/analyses/scheduled/systems.txt*", "logs/spark/*"}
    read = {"warehouse/stable/*", "warehouse/derived/*", f"{bucket}/artifacts/*"}
    assert objects == {
        *(("s3:PutObject", place) for place in written),
        *(("s3:GetObject", place) for place in written | read),
    }
    # The lake's own jobs have what their role allows.
    assert all("executionIamPolicy" not in each for each in endpoint.asked("StartJobRun")[:-1])
    cluster = endpoint.asked("RunJobFlow")[-1]
    assert runs["emr-cluster-script", SUCCEEDS]["state"] == "success"
    assert cluster["JobFlowRole"] == "telemetry-lake-scripts"


def test_the_log_of_a_script_is_shown_with_its_run(runs, in_environment, bucket):
    run = runs["emr-serverless-script", SUCCEEDS]
    log = ObjectStore(load_settings().s3).get(bucket, analysis_run_key(run["run_id"], "log.txt")).decode()
    first, second = log.splitlines()
    assert first == "printed by the script"
    assert "stderr.gz of the driver cannot be read" in second


def test_a_policy_that_emr_would_not_take_is_named(in_environment, monkeypatch):
    settings = load_settings()
    output = f"s3://{settings.s3.lake_bucket}/analyses/scheduled/{'x' * 2_000}"
    with pytest.raises(ConfigurationError, match="characters, and EMR takes 2,048"):
        script_run_policy(settings, "run", output)
    monkeypatch.setenv("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", "{}")
    with pytest.raises(ConfigurationError, match="names no warehouse"):
        script_run_policy(load_settings(), "run", output)


def test_a_run_may_ask_for_more_workers(runs, emr):
    endpoint, _ = emr
    runs["emr-cluster", FAILS]
    serverless = endpoint.asked("StartJobRun")[1]["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    assert serverless.endswith("maxExecutors=5")
    assert endpoint.asked("RunJobFlow")[1]["Instances"]["InstanceGroups"][1]["InstanceCount"] == 5


def test_the_page_of_a_run_links_to_its_logs(runs):
    serverless = runs["emr-serverless", SUCCEEDS]["xcom"]
    link = EmrServerlessS3LogsLink().format_link(**serverless["emr_serverless_s3_logs"])
    assert "/s3/buckets/logs?region=us-east-1&prefix=spark/applications/00f1abcdefgh1j0k/jobs/run0/" in link
    assert serverless["_link_EmrServerlessDashboardLink"].startswith("https://dashboard")
    assert serverless["_link_EmrServerlessLogsLink"].endswith("/logs/SPARK_DRIVER/stdout.gz")
    assert serverless["return_value"] == "run0"
    cluster = runs["emr-cluster", SUCCEEDS]["xcom"]
    assert "clusterDetails/j-3" in EmrClusterLink().format_link(**cluster["emr_cluster"])
    assert "/s3/buckets/logs/spark/?region" in EmrLogsLink().format_link(**cluster["emr_logs"])
    assert cluster["return_value"] == "j-3"


@pytest.mark.parametrize(
    "where, message",
    [
        ("emr-serverless", "jobs.count_pings ended as FAILED: Job failed, please check complete logs"),
        (
            "emr-cluster",
            "ended as FAILED, its cluster j-4 as TERMINATED_WITH_ERRORS: exit status 1; Shut down",
        ),
    ],
)
def test_a_job_that_fails_makes_its_task_fail_with_the_reason(runs, where, message):
    assert runs[where, FAILS]["state"] == "failed"
    assert message in runs[where, FAILS]["output"]


def test_a_job_that_does_not_end_is_ended(runs, emr):
    endpoint, _ = emr
    for where in ("emr-serverless", "emr-cluster"):
        assert runs[where, NEVER_ENDS]["state"] == "failed"
        assert "did not end in time" in runs[where, NEVER_ENDS]["output"]
    assert endpoint.asked("CancelJobRun") == [{"applicationId": "00f1abcdefgh1j0k", "jobRunId": "run2"}]
    assert endpoint.asked("TerminateJobFlows") == [{"JobFlowIds": ["j-5"]}]


def test_a_cluster_that_somebody_ended_by_hand_has_not_succeeded(runs):
    run = runs["emr-cluster", STOPPED_BY_HAND]
    assert run["state"] == "failed"
    assert "ended as CANCELLED, its cluster j-6 as TERMINATED: Terminated by user request" in run["output"]


@pytest.mark.parametrize(
    "trigger, what, operation, asked",
    [
        (
            JobRunEnded,
            {"applicationId": "00f1abcdefgh1j0k", "jobRunId": "run1"},
            "CancelJobRun",
            {"applicationId": "00f1abcdefgh1j0k", "jobRunId": "run1"},
        ),
        (ClusterEnded, {"ClusterId": "j-6"}, "TerminateJobFlows", {"JobFlowIds": ["j-6"]}),
    ],
)
def test_a_task_that_is_stopped_while_it_waits_ends_its_job(
    runs, emr, in_environment, trigger, what, operation, asked
):
    endpoint, _ = emr
    waits = trigger(
        what, waiter_delay=1, waiter_max_attempts=1, aws_conn_id="aws_default", region_name="us-east-1"
    )
    name, arguments = waits.serialize()
    assert name == f"dags.emr.{trigger.__name__}"
    asyncio.run(trigger(**arguments).on_kill())
    assert endpoint.requests[-1] == (operation, asked)


@pytest.mark.parametrize("where, operator", [("emr-serverless", ServerlessJob), ("emr-cluster", ClusterJob)])
def test_nothing_is_started_before_the_package_is_there(
    lake, in_environment, emr, monkeypatch, where, operator
):
    endpoint, _ = emr
    before = list(endpoint.requests)
    monkeypatch.setenv("TELEMETRY_LAKE_SPARK__RUN_ON", where)
    monkeypatch.setenv("TELEMETRY_LAKE_S3__LAKE_BUCKET", lake.settings.s3.lake_bucket)
    job = cast("Any", spark_job("count", "jobs.count_pings", [], execution_timeout=TIME_LIMIT))
    assert isinstance(job, operator)
    with pytest.raises(ConfigurationError, match=r"core\.zip is not there: run `make emr-package`"):
        job.execute({})
    assert endpoint.requests == before


@pytest.fixture
def serverless(in_environment: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TELEMETRY_LAKE_SPARK__RUN_ON", "emr-serverless")
    return spark_job("count", "jobs.count_pings", [], execution_timeout=TIME_LIMIT)


def test_an_application_that_does_not_start_is_named(serverless, emr):
    endpoint, _ = emr
    before = list(endpoint.requests)
    with pytest.raises(AirflowException, match="application 00f1abcdefgh1j0k does not start: max attempts"):
        serverless.execute({}, {"status": "error", "message": "max attempts"})
    assert endpoint.requests == before


def test_a_setting_that_is_too_long_for_emr_serverless_is_named(serverless, monkeypatch):
    long = json.dumps({**CATALOG, "uri": "x" * 1_024})
    monkeypatch.setenv("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", long)
    with pytest.raises(ConfigurationError, match=r"CATALOG__SPARK_PROPERTIES has 1,1[0-9]{2} characters"):
        serverless.execute({})


def test_keys_of_a_local_stack_are_not_sent_to_emr(in_environment, monkeypatch):
    monkeypatch.setenv("TELEMETRY_LAKE_SPARK__RUN_ON", "emr-cluster")
    monkeypatch.setenv("TELEMETRY_LAKE_S3__ACCESS_KEY_ID", os.environ["AWS_ACCESS_KEY_ID"])
    monkeypatch.setenv("TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY", os.environ["AWS_SECRET_ACCESS_KEY"])
    job = cast("Any", spark_job("count", "jobs.count_pings", [], execution_timeout=TIME_LIMIT))
    with pytest.raises(ConfigurationError, match="S3__ACCESS_KEY_ID holds a secret"):
        job.execute({})


def test_the_endpoint_refuses_what_the_service_model_does_not_allow():
    endpoint = EmrEndpoint()
    signed = {
        "Authorization": "/us-east-1/elasticmapreduce/aws4_request",
        "X-Amz-Target": "ElasticMapReduce.RunJobFlow",
    }
    good: Json = {"Name": "a", "Instances": {"InstanceGroups": []}, "LogUri": "s3://logs/"}
    endpoint.answer("POST", "/", signed, json.dumps(good).encode())
    for wrong in (
        {"Name": "a"},
        {**good, "Nmae": "a"},
        {**good, "Name": 1},
        {**good, "Name": "a" * 300},
        {
            **good,
            "Instances": {
                "InstanceGroups": [{"InstanceRole": "SLAVE", "InstanceType": "x", "InstanceCount": 1}]
            },
        },
    ):
        with pytest.raises(Exception, match="RunJobFlowInput"):
            endpoint.answer("POST", "/", signed, json.dumps(wrong).encode())
    with pytest.raises(Exception, match="signed"):
        endpoint.answer("POST", "/", {**signed, "Authorization": ""}, json.dumps(good).encode())
