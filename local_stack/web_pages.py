"""The web pages: `python -m web`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.program import LOOPBACK, Program, probe

WEB: Final = "web"
CUBES_POLL_SECONDS: Final = 5
"""On AWS the pages look for new data less often; here people watch their pings arrive."""


@dataclass(frozen=True, slots=True)
class WebPages:
    """The server of the web pages."""

    port: int
    cubes_directory: Path
    users_file: Path
    project_root: Path
    log_file: Path
    node_urls: tuple[str, ...] = ()
    """Where ingest nodes show their figures."""
    exporter_url: str | None = None
    prometheus_url: str | None = None
    alertmanager_url: str | None = None

    @property
    def url(self) -> str:
        """Where the pages are."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def password_file(self) -> Path:
        """Where the server leaves the password of `admin` when it creates the users file."""
        return self.users_file.with_name("admin_password")

    def program(self, *, after: tuple[str, ...]) -> Program:
        """Return the server's process."""
        return Program(
            name=WEB,
            command=(sys.executable, "-m", "web"),
            directory=self.project_root,
            log_file=self.log_file,
            check_health=self.check_health,
            environment={
                "TELEMETRY_LAKE_WEB__HOST": LOOPBACK,
                "TELEMETRY_LAKE_WEB__PORT": str(self.port),
                "TELEMETRY_LAKE_WEB__CUBES_DIRECTORY": str(self.cubes_directory),
                "TELEMETRY_LAKE_WEB__CUBES_POLL_SECONDS": str(CUBES_POLL_SECONDS),
                "TELEMETRY_LAKE_WEB__ANALYSES": "true",
                "TELEMETRY_LAKE_WEB__USERS_FILE": str(self.users_file),
                "TELEMETRY_LAKE_WEB__OPERATIONS": "true",
                "TELEMETRY_LAKE_WEB__NODE_URLS": json.dumps(self.node_urls),
                **{name: url for name, url in self._watched().items() if url is not None},
            },
            after=after,
            ports={self.port: "LOCAL_STACK_WEB_PORT"},
        )

    def _watched(self) -> dict[str, str | None]:
        return {
            "TELEMETRY_LAKE_WEB__EXPORTER_URL": self.exporter_url,
            "TELEMETRY_LAKE_WEB__PROMETHEUS_URL": self.prometheus_url,
            "TELEMETRY_LAKE_WEB__ALERTMANAGER_PUBLIC_URL": self.alertmanager_url,
        }

    def check_health(self) -> None:
        """Ask whether the process answers; before the first data it has nothing to show. Raises Unhealthy."""
        probe("the web pages", f"{self.url}/__lbheartbeat__")
