"""A server that speaks the protocols of Amazon EMR and holds every request against boto3's service models.

It is not EMR and starts nothing. It refuses what the models do not allow: names, types, required members,
lengths, patterns, enumerations, and a body that boto3's own serializer would not make. It remembers what it
was asked, and answers in shapes that it validates as well. What becomes of a job is decided by its last
argument.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from botocore.model import OperationModel, Shape
from botocore.serialize import create_serializer
from botocore.session import Session
from botocore.validate import ParamValidator

Json = dict[str, Any]
TARGET: Final = "X-Amz-Target"
ARN: Final = "arn:aws:emr-serverless:us-east-1:123456789012:/applications/"
EPOCH: Final = datetime(2026, 11, 23, tzinfo=UTC)
NAMES: Final = {"emr": "elasticmapreduce", "emr-serverless": "emr-serverless"}
"""The names of the services, and those that their requests are signed for."""

SUCCEEDS, FAILS, NEVER_ENDS, STOPPED_BY_HAND = "2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"
"""The dates that a job is asked to count, and what becomes of it."""


class BadRequest(Exception):
    """The service model does not allow a request."""


@dataclass
class Job:
    """A job run, or a cluster with its step."""

    request: Json
    polls: int = 0
    cancelled: bool = False

    @property
    def fate(self) -> str:
        if "jobDriver" in self.request:
            return str(self.request["jobDriver"]["sparkSubmit"]["entryPointArguments"][-1])
        return str(self.request["Steps"][0]["HadoopJarStep"]["Args"][-1])


@dataclass
class EmrEndpoint:
    """What was asked so far; thread safe enough for one client."""

    requests: list[tuple[str, Json]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    application_state: str = "STOPPED"

    def asked(self, operation: str) -> list[Json]:
        """The parameters of all requests of this kind."""
        return [parameters for name, parameters in self.requests if name == operation]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Json:
        """The answer to a request; BadRequest when the service model does not allow it."""
        content = json.loads(body) if body else {}
        operation, parameters = _operation(method, path, headers.get(TARGET), content)
        service = operation.service_model.service_name
        if f"/us-east-1/{NAMES[service]}/aws4_request" not in headers.get("Authorization", ""):
            raise BadRequest(f"not signed for {service}")
        validate(parameters, operation.input_shape)
        protocol = operation.service_model.protocol
        again = create_serializer(protocol).serialize_to_request(parameters, operation)["body"]
        if (json.loads(again) if again else {}) != content:
            raise BadRequest(f"{operation.name}: boto3 would not send {content}")
        self.requests.append((operation.name, parameters))
        answer: Json = getattr(self, f"_{operation.name}")(parameters)
        validate(answer, operation.output_shape)
        return answer

    def _GetApplication(self, asked: Json) -> Json:  # noqa: N802 (named as the operation)
        return {
            "application": {
                "applicationId": asked["applicationId"],
                "arn": f"{ARN}{asked['applicationId']}",
                "releaseLabel": "emr-spark-8.1.0",
                "type": "Spark",
                "state": self.application_state,
                "createdAt": EPOCH,
                "updatedAt": EPOCH,
            }
        }

    def _StartApplication(self, asked: Json) -> Json:  # noqa: N802
        self.application_state = "STARTED"
        return {}

    def _StartJobRun(self, asked: Json) -> Json:  # noqa: N802
        run = f"run{len(self.jobs)}"
        self.jobs[run] = Job(asked)
        return {
            "applicationId": asked["applicationId"],
            "jobRunId": run,
            "arn": f"{ARN}{asked['applicationId']}/jobruns/{run}",
        }

    def _GetJobRun(self, asked: Json) -> Json:  # noqa: N802
        job = self.jobs[asked["jobRunId"]]
        job.polls += 1
        state, details = (
            ("SUBMITTED", "Job is submitted") if job.polls == 1 else ("RUNNING", "Job is running")
        )
        if job.cancelled:
            state, details = "CANCELLED", "Cancelled by the user"
        elif job.polls > 1 and job.fate != NEVER_ENDS:
            state, details = {
                SUCCEEDS: ("SUCCESS", "Job is done"),
                FAILS: ("FAILED", "Job failed, please check complete logs"),
            }[job.fate]
        return {
            "jobRun": {
                "applicationId": asked["applicationId"],
                "jobRunId": asked["jobRunId"],
                "arn": f"{ARN}{asked['applicationId']}/jobruns/{asked['jobRunId']}",
                "createdBy": "arn:aws:iam::123456789012:role/airflow",
                "createdAt": EPOCH,
                "updatedAt": EPOCH,
                "executionRole": job.request["executionRoleArn"],
                "state": state,
                "stateDetails": details,
                "releaseLabel": "emr-spark-8.1.0",
                "jobDriver": job.request["jobDriver"],
            }
        }

    def _GetDashboardForJobRun(self, asked: Json) -> Json:  # noqa: N802
        return {"url": f"https://dashboard/{asked['jobRunId']}"}

    def _CancelJobRun(self, asked: Json) -> Json:  # noqa: N802
        self.jobs[asked["jobRunId"]].cancelled = True
        return {"applicationId": asked["applicationId"], "jobRunId": asked["jobRunId"]}

    def _RunJobFlow(self, asked: Json) -> Json:  # noqa: N802
        cluster = f"j-{len(self.jobs)}"
        self.jobs[cluster] = Job(asked)
        return {"JobFlowId": cluster, "ClusterArn": f"arn:aws:elasticmapreduce:us-east-1:1:cluster/{cluster}"}

    def _states(self, cluster: str) -> tuple[str, Json, Json]:
        """The cluster's state and why, and its step's."""
        job = self.jobs[cluster]
        if job.cancelled or (job.polls > 2 and job.fate == STOPPED_BY_HAND):
            reason = {"Code": "USER_REQUEST", "Message": "Terminated by user request"}
            return "TERMINATED", reason, {"State": "CANCELLED"}
        if job.polls <= 2 or job.fate == NEVER_ENDS:
            return "RUNNING", {}, {"State": "RUNNING"}
        if job.fate == SUCCEEDS:
            reason = {"Code": "ALL_STEPS_COMPLETED", "Message": "Steps completed"}
            return "TERMINATED", reason, {"State": "COMPLETED"}
        reason = {"Code": "STEP_FAILURE", "Message": "Shut down as step failed"}
        why = {"Reason": "Unknown Error.", "Message": "exit status 1", "LogFile": "s3://logs/stderr.gz"}
        return "TERMINATED_WITH_ERRORS", reason, {"State": "FAILED", "FailureDetails": why}

    def _DescribeCluster(self, asked: Json) -> Json:  # noqa: N802
        cluster = asked["ClusterId"]
        self.jobs[cluster].polls += 1
        state, reason, _ = self._states(cluster)
        return {
            "Cluster": {
                "Id": cluster,
                "LogUri": self.jobs[cluster].request["LogUri"].replace("s3://", "s3n://"),
                "Status": {"State": state, "StateChangeReason": reason},
            }
        }

    def _ListSteps(self, asked: Json) -> Json:  # noqa: N802
        return {"Steps": [{"Id": "s-1", "Status": self._states(asked["ClusterId"])[2]}]}

    def _TerminateJobFlows(self, asked: Json) -> Json:  # noqa: N802
        for cluster in asked["JobFlowIds"]:
            self.jobs[cluster].cancelled = True
        return {}


def serve(endpoint: EmrEndpoint, port: int) -> ThreadingHTTPServer:
    """Serve `endpoint` on this loopback port, in a thread; `shutdown()` ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, answer = 200, endpoint.answer(self.command, self.path, dict(self.headers), body)
            except (BadRequest, KeyError) as error:
                endpoint.refused.append(str(error))
                status, answer = 400, {"__type": "ValidationException", "message": str(error)}
            content = json.dumps(answer, default=lambda moment: moment.timestamp()).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 (the names that the base class calls)

        def log_message(self, *arguments: object) -> None:
            """Nothing: the tests look at `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def validate(value: Json, shape: Shape | None) -> None:
    """BadRequest when the value is not of this shape."""
    if shape is None:
        return
    report = ParamValidator().validate(value, shape)
    problems = (
        [report.generate_report()] if report.has_errors() else list(_violations(value, shape, shape.name))
    )
    if problems:
        raise BadRequest(f"{shape.name}: {'; '.join(problems)}")


def _violations(value: Any, shape: Any, where: str) -> Iterator[str]:
    """What boto3 leaves to the service: lengths, patterns, enumerations."""
    match shape.type_name:
        case "structure":
            for name, item in value.items():
                yield from _violations(item, shape.members[name], f"{where}.{name}")
        case "list":
            for item in value:
                yield from _violations(item, shape.member, f"{where}[]")
        case "map":
            for name, item in value.items():
                yield from _violations(name, shape.key, f"{where} key")
                yield from _violations(item, shape.value, f"{where}.{name}")
        case "string":
            if shape.enum and value not in shape.enum:
                yield f"{where} is {value!r}, not one of {shape.enum}"
            pattern = _compiled(shape.metadata.get("pattern", ".*"))
            if value and not pattern.fullmatch(value):
                yield f"{where} is {value!r}, which does not match {pattern.pattern}"
    longest = shape.metadata.get("max")
    size = value if isinstance(value, int) else len(value) if hasattr(value, "__len__") else 0
    if longest is not None and size > longest:
        yield f"{where} is larger than {longest}"


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:  # ranges of surrogate pairs, which mean any text
        return re.compile(".*", re.DOTALL)


def _operation(method: str, path: str, target: str | None, content: Json) -> tuple[OperationModel, Json]:
    """Which operation is meant, and its parameters by the names of boto3."""
    session = Session()
    if target is not None:
        return session.get_service_model("emr").operation_model(
            target.removeprefix("ElasticMapReduce.")
        ), content
    model = session.get_service_model("emr-serverless")
    for name in model.operation_names:
        operation = model.operation_model(name)
        template = operation.http["requestUri"]
        uri = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", template), path.partition("?")[0])
        if operation.http["method"] == method and uri is not None:
            return operation, {**uri.groupdict(), **content}
    raise BadRequest(f"{method} {path} is not an operation of EMR")
