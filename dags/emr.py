"""A Spark job on Amazon EMR: the requests to EMR, and how the task waits without a worker.

Both operators wait deferred, use the artifacts of `telemetry_lake.deploy.spark_package`, and end what they
started when it fails, takes too long or is cancelled. EMR ends it without Airflow, too: the time limit goes
with the request, and a cluster ends with its one step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from airflow.providers.amazon.aws.hooks.emr import EmrHook, EmrServerlessHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.operators.emr import (
    EmrCreateJobFlowOperator,
    EmrServerlessStartJobOperator,
)
from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger
from airflow.sdk.exceptions import AirflowException

from dags.spark_operator import (
    KILL_AFTER_SECONDS,
    SCRIPTED,
    TEMPLATE_FIELDS,
    SparkJob,
    TimeLimitReached,
    limit_seconds,
)
from telemetry_lake.deploy.job_variables import variables_for_jobs
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Role, Settings, SparkSettings, load_settings

ENVIRONMENT: Final = "environment"
"""The folder that Spark unpacks the environment into, beside every driver and executor."""
TRIGGER_SPARE: Final = timedelta(minutes=5)
"""How much later than the trigger itself Airflow stops waiting for it."""
PROPERTY_MAX_LENGTH: Final = 1_024
"""The longest property of a job of EMR Serverless; the settings of a catalog are one property."""
IDLE_SECONDS: Final = 600
"""A cluster that is idle for this long ends itself, should it outlive its step for any reason."""


@dataclass(frozen=True, slots=True)
class Submit:
    """The options of spark-submit besides the job and its arguments."""

    entry_point: str
    options: dict[str, str]
    """Spark's options, which need no quoting."""
    properties: dict[str, str]
    """Options with quotes and blanks in their values: the variables of driver and executors."""


class EmrEnded(AwsBaseWaiterTrigger):
    """Waits until what `what` names has ended, and ends it when the task is stopped meanwhile.

    The provider's own triggers lose which state of a cluster they wait for, and report of a failed job
    nothing by which it could be found.
    """

    aws_hook_class: type[AwsGenericHook[Any]] = AwsGenericHook
    waiter: str
    """The provider's name of the waiter."""
    states: tuple[str, ...]
    """The parts of EMR's answers that are logged."""

    def __init__(
        self, what: dict[str, str], waiter_delay: int, waiter_max_attempts: int, **connection: Any
    ) -> None:
        super().__init__(
            serialized_fields={"what": what},
            waiter_name=self.waiter,
            waiter_args=what,
            failure_message="the job has not succeeded",
            status_message="the job is",
            status_queries=list(self.states),
            return_key="what",
            return_value=what,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **connection,
        )


class JobRunEnded(EmrEnded):
    """Waits for a job run of EMR Serverless."""

    aws_hook_class = EmrServerlessHook
    waiter = "serverless_job_completed"
    states = ("jobRun.state", "jobRun.stateDetails")

    async def on_kill(self) -> None:
        """Cancel the job run."""
        async with await self.hook().get_async_conn() as emr:  # type: ignore[no-untyped-call]
            await emr.cancel_job_run(**self.waiter_args)


class ClusterEnded(EmrEnded):
    """Waits for a cluster."""

    aws_hook_class = EmrHook
    waiter = "job_flow_terminated"
    states = ("Cluster.Status.State", "Cluster.Status.StateChangeReason.Message")

    async def on_kill(self) -> None:
        """End the cluster."""
        async with await self.hook().get_async_conn() as emr:  # type: ignore[no-untyped-call]
            await emr.terminate_job_flows(JobFlowIds=[self.waiter_args["ClusterId"]])


class ServerlessJob(SparkJob, EmrServerlessStartJobOperator):
    """Runs a job in the EMR Serverless application of the settings."""

    template_fields = (*EmrServerlessStartJobOperator.template_fields, *TEMPLATE_FIELDS)

    def __init__(self, *, module: str, **request: Any) -> None:
        settings = load_settings()
        spark = settings.spark
        application, role = spark.application_id, spark.execution_role_arn
        if module == SCRIPTED:
            application, role = spark.scripts_application_id, spark.scripts_execution_role_arn
        # The settings are not valid without them.
        assert application is not None
        assert role is not None
        super().__init__(
            module=module,
            application_id=application,
            execution_role_arn=role,
            job_driver={},
            configuration_overrides={},
            name=module,
            region_name=settings.s3.region,
            # Only for an application that has to be woken; for the job we wait ourselves.
            deferrable=True,
            wait_for_completion=False,
            waiter_delay=spark.poll_seconds,
            waiter_max_attempts=math.ceil(spark.start_max_seconds / spark.poll_seconds),
            enable_application_ui_links=True,
            **request,
        )

    def execute(self, context: Any, event: Any = None) -> Any:
        """Start the job and wait, deferred; Airflow calls this again when the application was woken."""
        if event is not None and event["status"] != "success":
            raise AirflowException(f"application {self.application_id} does not start: {event['message']}")
        settings = load_settings()
        spark = settings.spark
        seconds = limit_seconds(self.time_limit, self.time_limit_minutes)
        for name, value in variables_for_jobs(settings).items():
            if len(value) > PROPERTY_MAX_LENGTH:
                raise ConfigurationError(
                    f"{name} has {len(value):,} characters; EMR Serverless takes {PROPERTY_MAX_LENGTH:,}"
                )
        submit = _submit(settings, "spark.emr-serverless.driverEnv.")
        submit.options["spark.driver.cores"] = str(spark.driver_cores)
        submit.options["spark.driver.memory"] = f"{spark.driver_memory_gib}g"
        submit.options["spark.executor.cores"] = str(spark.executor_cores)
        submit.options["spark.executor.memory"] = f"{spark.executor_memory_gib}g"
        submit.options["spark.dynamicAllocation.maxExecutors"] = str(_workers(spark, self.workers))
        self.job_driver = {
            "sparkSubmit": {
                "entryPoint": submit.entry_point,
                "entryPointArguments": [self.module, *map(str, self.arguments)],
                "sparkSubmitParameters": " ".join(
                    f"--conf {name}={value}" for name, value in submit.options.items()
                ),
            }
        }
        self.configuration_overrides = {
            "applicationConfiguration": [
                {"classification": "spark-defaults", "properties": submit.properties}
            ],
            "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": spark.log_uri}},
        }
        self.config = {"executionTimeoutMinutes": math.ceil(seconds / 60)}
        if self.module == SCRIPTED:
            from telemetry_lake.deploy.script_policy import script_run_policy

            policy = script_run_policy(settings, context["run_id"], _output_of(self.arguments))
            self.config["executionIamPolicy"] = {"policy": policy}
        run = super().execute(context, event)
        assert run is not None
        attempts = _attempts(spark, seconds)
        self.defer(
            trigger=JobRunEnded(
                {"applicationId": self.application_id, "jobRunId": run},
                waiter_delay=spark.poll_seconds,
                waiter_max_attempts=attempts,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=attempts * spark.poll_seconds) + TRIGGER_SPARE,
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """Go on when the job has ended, or when it is not waited for any longer."""
        assert event is not None
        run = event["what"]
        if self.module == SCRIPTED:
            self._keep_log(context["run_id"], run)
        if event["status"] == "success":
            return run["jobRunId"]
        emr: Any = self.hook.conn
        found = emr.get_job_run(**run)["jobRun"]
        if found["state"] not in EmrServerlessHook.JOB_TERMINAL_STATES:
            emr.cancel_job_run(**run)
            raise TimeLimitReached(f"{self.module} did not end in time and was cancelled ({_shown(run)})")
        raise AirflowException(
            f"{self.module} ended as {found['state']}: {found.get('stateDetails') or 'EMR gives no reason'} "
            f"({_shown(run)}). Its log is the link 'S3 Logs' of this task: SPARK_DRIVER/stderr.gz"
        )

    def _keep_log(self, run_id: str, run: dict[str, str]) -> None:
        """Keep what the driver printed as the log of the run."""
        from telemetry_lake.analysis_jobs.emr_log import keep_driver_log
        from telemetry_lake.analysis_jobs.run_log import RunLog
        from telemetry_lake.storage.object_store import ObjectStore

        settings = load_settings(role=Role.ANALYSES)
        assert settings.spark.log_uri is not None
        s3: Any = S3Hook(aws_conn_id=self.aws_conn_id, region_name=self.region_name).get_conn()
        with RunLog(ObjectStore(settings.s3), settings.s3.lake_bucket, run_id) as log:
            keep_driver_log(s3, settings.spark.log_uri, run["applicationId"], run["jobRunId"], log)


class ClusterJob(SparkJob, EmrCreateJobFlowOperator):
    """Runs a job as the only step of an EMR cluster that is made for it and ends with it."""

    template_fields = (*EmrCreateJobFlowOperator.template_fields, *TEMPLATE_FIELDS)

    def __init__(self, **request: Any) -> None:
        settings = load_settings()
        super().__init__(
            emr_conn_id=None,
            region_name=settings.s3.region,
            waiter_delay=settings.spark.poll_seconds,
            **request,
        )

    def execute(self, context: Any) -> Any:
        """Make the cluster and wait, deferred, until it has ended."""
        settings = load_settings()
        spark = settings.spark
        seconds = limit_seconds(self.time_limit, self.time_limit_minutes)
        self.job_flow_overrides = self._cluster(settings, seconds)
        try:
            cluster = super().execute(context)
        except Exception:
            # The cluster may exist although one of the requests after it failed.
            if getattr(self, "_job_flow_id", None):
                self.on_kill()
            raise
        assert cluster is not None
        attempts = _attempts(spark, seconds)
        self.defer(
            trigger=ClusterEnded(
                {"ClusterId": cluster},
                waiter_delay=spark.poll_seconds,
                waiter_max_attempts=attempts,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=attempts * spark.poll_seconds) + TRIGGER_SPARE,
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Go on when the cluster has ended, or when it is not waited for any longer.

        A cluster that was ended by hand looks like one that has done its work: only its step shows which.
        """
        assert event is not None
        cluster = event["what"]["ClusterId"]
        emr: Any = self.hook.conn
        step = emr.list_steps(ClusterId=cluster)["Steps"][0]["Status"]
        if event["status"] == "success" and step["State"] == "COMPLETED":
            return cluster
        status = emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]
        if not status["State"].startswith("TERMINATED"):
            emr.terminate_job_flows(JobFlowIds=[cluster])
            raise TimeLimitReached(
                f"{self.module} did not end in time and its cluster {cluster} was terminated"
            )
        reasons = [
            step.get("FailureDetails", {}).get("Message"),
            status.get("StateChangeReason", {}).get("Message"),
        ]
        raise AirflowException(
            f"{self.module} ended as {step['State']}, its cluster {cluster} as {status['State']}: "
            f"{'; '.join(filter(None, reasons)) or 'EMR gives no reason'}. "
            "Its logs are the link 'EMR Cluster Logs' of this task: steps/ and containers/"
        )

    def _cluster(self, settings: Settings, seconds: int) -> dict[str, Any]:
        """Return the request body of RunJobFlow."""
        spark = settings.spark
        submit = _submit(settings, "spark.yarn.appMasterEnv.")
        options = [part for item in submit.options.items() for part in ("--conf", "=".join(item))]
        limit = ("timeout", f"--kill-after={KILL_AFTER_SECONDS}", str(seconds))
        instances: dict[str, Any] = {
            "InstanceGroups": [
                {
                    "Name": "primary",
                    "InstanceRole": "MASTER",
                    "InstanceType": spark.primary_instance_type,
                    "InstanceCount": 1,
                },
                {
                    "Name": "workers",
                    "InstanceRole": "CORE",
                    "InstanceType": spark.worker_instance_type,
                    "InstanceCount": _workers(spark, self.workers),
                },
            ],
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
        }
        if spark.subnet_id:
            instances["Ec2SubnetId"] = spark.subnet_id
        return {
            "Name": f"telemetry-lake {self.module}",
            "ReleaseLabel": spark.release_label,
            "LogUri": spark.log_uri,
            "Applications": [{"Name": "Spark"}],
            "Instances": instances,
            "ServiceRole": spark.service_role,
            "JobFlowRole": spark.scripts_instance_profile
            if self.module == SCRIPTED
            else spark.instance_profile,
            "AutoTerminationPolicy": {"IdleTimeout": IDLE_SECONDS},
            "Configurations": [{"Classification": "spark-defaults", "Properties": submit.properties}],
            "Steps": [
                {
                    "Name": self.module,
                    "ActionOnFailure": "TERMINATE_CLUSTER",
                    "HadoopJarStep": {
                        "Jar": "command-runner.jar",
                        "Args": [
                            *(*limit, "spark-submit", "--deploy-mode", "cluster", *options),
                            *(submit.entry_point, self.module, *map(str, self.arguments)),
                        ],
                    },
                }
            ],
        }


def _submit(settings: Settings, driver_environment: str) -> Submit:
    """Return how our package is given to Spark; the names of the driver's variables begin with a prefix.

    Raises ConfigurationError when the package of this code was not uploaded, or when the settings hold keys.
    """
    # The client of S3 takes its time to import, and the DAG processor imports none of this module's tasks.
    from telemetry_lake.deploy.spark_package import missing_artifacts, package_of
    from telemetry_lake.storage.object_store import ObjectStore

    interpreter = f"./{ENVIRONMENT}/bin/python"
    variables = {**variables_for_jobs(settings), "PYSPARK_PYTHON": interpreter}
    package = package_of(settings)
    bucket = settings.s3.lake_bucket
    if missing := missing_artifacts(ObjectStore(settings.s3), bucket, package):
        raise ConfigurationError(
            f"s3://{bucket}/{missing[0].key} is not there: run `make emr-package` in this clone"
        )
    return Submit(
        entry_point=f"s3://{bucket}/{package.entry_point.key}",
        options={
            "spark.submit.pyFiles": f"s3://{bucket}/{package.core.key}",
            "spark.archives": f"s3://{bucket}/{package.environment.key}#{ENVIRONMENT}",
            "spark.jars": ",".join(f"s3://{bucket}/{jar.key}" for jar in package.jars),
        },
        properties={
            f"{process}{name}": value
            for process in (driver_environment, "spark.executorEnv.")
            for name, value in variables.items()
        }
        | {f"{driver_environment}PYSPARK_DRIVER_PYTHON": interpreter},
    )


def _output_of(arguments: Sequence[str]) -> str:
    """Return the output among the arguments of a job of map-reduce."""
    return next(each.removeprefix("--output=") for each in arguments if each.startswith("--output="))


def _workers(spark: SparkSettings, asked_for: object) -> int:
    return spark.workers if asked_for in (None, "", "None") else int(str(asked_for))


def _attempts(spark: SparkSettings, seconds: int) -> int:
    """Return how often to poll for the end of a job that may run for this many seconds."""
    return math.ceil((spark.start_max_seconds + seconds + spark.end_max_seconds) / spark.poll_seconds)


def _shown(run: dict[str, str]) -> str:
    return f"application {run['applicationId']}, job run {run['jobRunId']}"
