"""ElasticMQ: SQS with messages that survive kill -9."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.program import LOOPBACK, Program, Step, Unhealthy, probe, required
from telemetry_lake.failures import ConfigurationError

JAVA_MAX_HEAP: Final = "256m"
COMPACT_ABOVE_BYTES: Final = 64 * 1024 * 1024
"""A start makes a larger file small. A waiting message takes 9 KB of the file, which shrinks as messages are
deleted: 4,000 of them took 35 MB, and 5 MB when they were gone."""
REGION: Final = "us-east-1"
_STARTING: Final = "Starting ElasticMQ server"
_LOG_TAIL_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ElasticMq:
    """Where one ElasticMQ listens and keeps its messages, and its queues."""

    data_directory: Path
    log_file: Path
    jars_directory: Path
    port: int
    visibility_timeout_seconds: int = 300
    queues: tuple[str, ...] = ("raw-index", "raw-index-dlq")
    listen_host: str = LOOPBACK

    @property
    def url(self) -> str:
        """Endpoint of SQS."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def message_file(self) -> Path:
        """The database that the messages are in."""
        return self.data_directory / "messages.mv.db"

    def program(self, *, after: tuple[str, ...] = (), name: str = "elasticmq") -> Program:
        """Return the process; raises ConfigurationError when Java or its jars are not installed."""
        configuration_file = self.data_directory / "elasticmq.conf"
        return Program(
            name=name,
            command=(
                *self._java(),
                f"-Dconfig.file={configuration_file}",
                "-cp",
                self._class_path(),
                "org.elasticmq.server.Main",
            ),
            directory=self.data_directory,
            log_file=self.log_file,
            check_health=self.check_health,
            check_ready=self.check_messages_restored,
            after=after,
            files={configuration_file: self.configuration()},
            ports={self.port: "LOCAL_STACK_SQS_PORT"},
        )

    def compaction(self, name: str = "compact-queue-file") -> Step | None:
        """Return the step that shrinks a large message file before the start, None when it is small."""
        if not self.message_file.is_file() or self.message_file.stat().st_size < COMPACT_ABOVE_BYTES:
            return None
        return Step(
            name=name,
            command=(
                *self._java(),
                "-cp",
                self._class_path(),
                "org.h2.tools.Shell",
                "-url",
                f"jdbc:h2:file:{self._database}",
                "-user",
                "sa",
                "-password",
                "",
                "-sql",
                "SHUTDOWN COMPACT",
            ),
            directory=self.data_directory,
            log_file=self.log_file.with_name(f"{name}.log"),
        )

    def configuration(self) -> str:
        """Return the configuration file, in HOCON."""
        queues = "\n".join(
            f'  "{queue}" {{ defaultVisibilityTimeout = {self.visibility_timeout_seconds} seconds }}'
            for queue in self.queues
        )
        # No redrive policy: a receive that moves a message to the dead-letter queue leaves it in both, and
        # the next insert then stops persistence silently. The drain moves poison messages itself.
        # StoppingSupervisorStrategy makes an internal failure visible as 503s, which a health check can see.
        # host = "*": a queue URL names the host of its request, inside a container or outside.
        # RETENTION_TIME=0: with the default of 45 s the file grows by 50 KB with each message.
        # WRITE_DELAY=0: with the default, up to 201 acknowledged messages were lost by one kill -9.
        return textwrap.dedent("""\
            include classpath("application.conf")
            pekko.actor.guardian-supervisor-strategy = "org.apache.pekko.actor.StoppingSupervisorStrategy"
            node-address {{ protocol = http, host = "*", port = {port}, context-path = "" }}
            rest-sqs {{ enabled = true, bind-hostname = "{host}", bind-port = {port}, sqs-limits = strict }}
            rest-stats {{ enabled = false }}
            aws {{ region = "{region}", accountId = "000000000000" }}
            queues {{
            {queues}
            }}
            queues-storage {{ enabled = false, path = "" }}
            messages-storage {{
              enabled = true
              driver-class = "org.h2.Driver"
              uri = "jdbc:h2:file:{database};WRITE_DELAY=0;RETENTION_TIME=0"
              username = "sa"
              password = ""
              prune-data-on-init = false
            }}
            """).format(
            host=self.listen_host, port=self.port, region=REGION, queues=queues, database=self._database
        )

    def check_health(self) -> None:
        """Ask every queue for its length; raises Unhealthy."""
        for queue in self.queues:
            probe(
                f"the queue {queue}",
                f"{self.url}/000000000000/{queue}",
                form={
                    "Action": "GetQueueAttributes",
                    "AttributeName.1": "ApproximateNumberOfMessages",
                    "Version": "2012-11-05",
                },
            )

    def check_messages_restored(self) -> None:
        """Look for its messages in its log, because it answers before they are restored; raises Unhealthy."""
        missing = queues_not_restored(self.queues, _tail(self.log_file))
        if missing:
            raise Unhealthy(f"the messages of {', '.join(missing)} are not restored yet")

    @property
    def _database(self) -> Path:
        return self.data_directory / "messages"

    def _java(self) -> tuple[str, ...]:
        java = required("java", package="openjdk-17-jre-headless")
        # Without the second compiler a start and 2,000 sends take 7 seconds of processor time, not 12.6.
        return (java, f"-Xmx{JAVA_MAX_HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

    def _class_path(self) -> str:
        if not any(self.jars_directory.glob("elasticmq-server_*.jar")):
            raise ConfigurationError(f"ElasticMQ's jars are not in {self.jars_directory}: run `make install`")
        return f"{self.jars_directory}/*"


def queues_not_restored(queues: Iterable[str], log: str) -> list[str]:
    """Return which of `queues` the last start recorded in `log` has not yet restored the messages of."""
    start = log.rfind(_STARTING)
    if start < 0:
        # The start is further back than the part of the log that was read.
        return []
    restored = {line.rsplit(" ", 1)[-1] for line in log[start:].splitlines() if " - Restored " in line}
    return [queue for queue in queues if queue not in restored]


def _tail(log_file: Path) -> str:
    if not log_file.is_file():
        return ""
    with log_file.open("rb") as file:
        file.seek(max(0, log_file.stat().st_size - _LOG_TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
