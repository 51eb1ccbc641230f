"""The ingest nodes: `python -m ingest_server`, each with its own port, name and spool."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.program import LOOPBACK, Program, probe

SEGMENT_MAX_AGE_SECONDS: Final = 5
"""On AWS segments are sealed after a minute; here people watch their pings arrive."""


@dataclass(frozen=True, slots=True)
class IngestNode:
    """One ingest node; `node` is its name in object keys."""

    node: str
    port: int
    port_variable: str
    private_port: int
    private_port_variable: str
    spool_directory: Path
    project_root: Path
    log_file: Path

    @property
    def url(self) -> str:
        """Where it takes pings."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def private_url(self) -> str:
        """Where it answers operators."""
        return f"http://{LOOPBACK}:{self.private_port}"

    @property
    def metrics_url(self) -> str:
        """Where it shows its numbers."""
        return f"{self.private_url}/metrics"

    @property
    def name(self) -> str:
        """The name of its process in the stack."""
        return f"ingest-{self.node}"

    def program(self, *, after: tuple[str, ...]) -> Program:
        """Return the process of the node, which starts its workers and its shipper."""
        return Program(
            name=self.name,
            command=(sys.executable, "-m", "ingest_server"),
            directory=self.project_root,
            log_file=self.log_file,
            check_health=self.check_health,
            environment={
                "TELEMETRY_LAKE_INGEST__HOST": LOOPBACK,
                "TELEMETRY_LAKE_INGEST__PORT": str(self.port),
                "TELEMETRY_LAKE_INGEST__PRIVATE_HOST": LOOPBACK,
                "TELEMETRY_LAKE_INGEST__PRIVATE_PORT": str(self.private_port),
                "TELEMETRY_LAKE_INGEST__NODE": self.node,
                "TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY": str(self.spool_directory),
                "TELEMETRY_LAKE_INGEST__SEGMENT_MAX_AGE_SECONDS": str(SEGMENT_MAX_AGE_SECONDS),
            },
            after=after,
            ports={self.port: self.port_variable, self.private_port: self.private_port_variable},
            stop_wait_seconds=30,
        )

    def check_health(self) -> None:
        """Ask what a load balancer asks: whether the process answers. Raises Unhealthy."""
        probe(f"the ingest node {self.node}", f"{self.url}/__lbheartbeat__")
