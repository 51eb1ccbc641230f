"""The last step of a deployment: a ping to the deployed lake, and in a sentence how far it came.

That it becomes a row, by programs that act in their roles, is in test_programs.py.
"""

import http.server
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import provisioning.first_ping
from lake_testing.aws_emulator import REGION
from lake_testing.emulated_environment import Environment
from lake_testing.stack import free_ports
from provisioning.first_ping import FirstPing, NotArrived, Reached, Target, target_of
from provisioning.lake import Place, lake_settings
from provisioning.parameters import Values
from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.settings import ENV_FILE_VARIABLE, Settings
from telemetry_lake.storage.object_store import ObjectStore
from tests.ingest.running_node import WITHOUT_SERVICES, RunningNode, running

NAME = "incoming.example.org"


class Followed:
    """A first ping, and what was said of it. It is not waited for once it has `come_so_far`."""

    def __init__(
        self, target: Target, settings: Settings, max_seconds: float, come_so_far: Reached | None = None
    ) -> None:
        self.lines: list[str] = []
        self.seconds: list[float] = []
        self.ping = FirstPing(
            target,
            settings,
            ObjectStore(settings.s3),
            self.lines.append,
            self.seconds.append,
            max_seconds=max_seconds,
            sleep=self._sleep,
        )
        self._come_so_far = come_so_far

    def _sleep(self, seconds: float) -> None:
        if self.ping.reached is self._come_so_far:
            self.ping.max_seconds = 0
        time.sleep(seconds)

    def fails(self) -> NotArrived:
        with pytest.raises(NotArrived) as raised:
            self.ping.deliver()
        return raised.value


@pytest.fixture
def deployed(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a lake that is deployed, with its tables."""
    environment.deploy()
    monkeypatch.setattr(provisioning.first_ping, "LOOK_SECONDS", 0.2)
    cloudformation = environment.emulator.client("cloudformation")
    outputs: dict[str, str] = {}
    for stack in ("storage", "queue", "catalog"):
        (found,) = cloudformation.describe_stacks(StackName=f"telemetry-lake-{environment.name}-{stack}")[
            "Stacks"
        ]
        outputs |= {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}
    return lake_settings(outputs, Place(REGION, environment.emulator.url))


@pytest.fixture
def balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of what ends TLS with a certificate for NAME, and the hosts that it was asked for."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "1",
                "-subj",
                f"/CN={NAME}",
            ),
            *("-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    hosts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    yield f"127.0.0.1:{server.server_port}", hosts
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_said_how_far_the_ping_came(deployed, environment, balancer, tmp_path):
    nowhere = f"http://127.0.0.1:{free_ports(1)}"
    said = environment.deploy(
        "--first-ping", "--first-ping-url", nowhere, "--first-ping-max-seconds", "0.5", code=1
    )
    assert "tables: " in said
    assert f"the first ping was not acknowledged by {nowhere}: the last answer was ConnectError" in said
    assert "deploy again" in said
    _refused_or_kept_by_the_node(deployed, tmp_path / "cut")
    _shipped(deployed, environment, tmp_path / "spool")
    _asked_under_the_name_of_the_certificate(deployed, environment, *balancer)


def _refused_or_kept_by_the_node(deployed, spool):
    with running(RunningNode(spool, WITHOUT_SERVICES, segment_max_age_seconds=1)) as node:
        refused = Followed(Target(f"http://127.0.0.1:{node.port}/nowhere"), deployed, max_seconds=60)
        failure = refused.fails()
        assert failure.reached is Reached.NOWHERE
        assert "the last answer was 404" in str(failure)
        assert len(refused.seconds) == 1  # it was not sent again
        kept = Followed(Target(f"http://127.0.0.1:{node.port}"), deployed, max_seconds=2)
        failure = kept.fails()
    assert failure.reached is Reached.ACKNOWLEDGED
    assert "it is in the node's spool" in str(failure)
    assert max(kept.seconds) >= 2


def _shipped(deployed, environment, spool):
    # Else the node would read the settings of a local stack that was started in this clone.
    no_settings = spool.with_suffix(".env")
    no_settings.touch()
    variables = {
        **environment.emulator.root(),
        ENV_FILE_VARIABLE: str(no_settings),
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": environment.emulator.url,
        "TELEMETRY_LAKE_S3__RAW_BUCKET": deployed.s3.raw_bucket,
        "TELEMETRY_LAKE_SQS__ENDPOINT_URL": environment.emulator.url,
        "TELEMETRY_LAKE_SQS__INDEX_QUEUE_NAME": deployed.sqs.index_queue_name,
    }
    with running(RunningNode(spool, variables, segment_max_age_seconds=1)) as node:
        url = f"http://127.0.0.1:{node.port}"
        shipped = Followed(Target(url), deployed, max_seconds=120, come_so_far=Reached.SHIPPED)
        failure = shipped.fails()
    assert failure.reached is Reached.SHIPPED
    assert "is in the raw bucket and in no table after" in str(failure)
    acknowledged, found = shipped.lines
    assert f"the ping {shipped.ping.document_id} is acknowledged by {url}" in acknowledged
    assert f"it is shipped: s3://{deployed.s3.raw_bucket}/raw/v1/" in found


def _asked_under_the_name_of_the_certificate(deployed, environment, address, hosts):
    acm = environment.emulator.client("acm")
    certificate = acm.request_certificate(DomainName=NAME)["CertificateArn"]
    target = target_of({"PingAddress": address}, Values({"CertificateArn": certificate}, {}), acm)
    assert target == Target(f"https://{address}", NAME)
    assert Followed(target, deployed, max_seconds=1).fails().reached is Reached.ACKNOWLEDGED
    assert hosts == [NAME]
    other = Followed(Target(f"https://{address}", "other.example.org"), deployed, max_seconds=0.5).fails()
    assert "not valid for 'other.example.org'" in str(other)
    assert hosts == [NAME]


def test_a_certificate_for_many_names_and_a_lake_without_one(environment):
    acm = environment.emulator.client("acm")
    certificate = acm.request_certificate(DomainName="*.example.org")["CertificateArn"]
    outputs = {"PingAddress": "nodes.elb.amazonaws.com"}
    target = target_of(outputs, Values({"CertificateArn": certificate}, {}), acm)
    assert target == Target("https://nodes.elb.amazonaws.com", "first-ping.example.org")
    with pytest.raises(ConfigurationError, match="no value of CertificateArn"):
        target_of(outputs, Values({}, {}), acm)
    with pytest.raises(ConfigurationError, match=r"no output PingAddress, .*--no-first-ping"):
        target_of({}, Values({"CertificateArn": certificate}, {}), acm)
    missing = certificate.replace(certificate[-12:], "0" * 12)
    with pytest.raises(FatalError, match="asking ACM for the name of"):
        target_of(outputs, Values({"CertificateArn": missing}, {}), acm)
