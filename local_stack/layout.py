"""Where a local stack keeps everything: one folder, `.local/` unless told otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError

SOCKET_PATH_MAX_BYTES: Final = 107
"""What Linux takes for the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one stack; `root` is absolute and identifies the stack."""

    root: Path

    @property
    def env_file(self) -> Path:
        """The settings of the running stack, as `telemetry_lake.settings` reads them."""
        return self.root / "telemetry_lake.env"

    @property
    def secrets(self) -> Path:
        """Generated credentials, one a file."""
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        """One log file for each process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What only a running stack needs: its supervisor's socket and configuration."""
        return self.root / "run"

    @property
    def configuration_file(self) -> Path:
        """What the stack was last started with (`configuration.StackConfiguration`)."""
        return self.run / "stack.json"

    @property
    def needs_file(self) -> Path:
        """Which program needs which others, as JSON: what a stop goes by."""
        return self.run / "needs.json"

    @property
    def lock_file(self) -> Path:
        """Held while a `run`, `start`, `stop` or `clean` is at work."""
        return self.root / "lock"

    @property
    def supervisor_configuration(self) -> Path:
        """supervisord's configuration file."""
        return self.run / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisord listens; ConfigurationError when the folder's path is too long for a socket."""
        path = self.run / "supervisor.sock"
        if len(bytes(path)) > SOCKET_PATH_MAX_BYTES:
            raise ConfigurationError(
                f"{path} is too long for a Unix socket ({SOCKET_PATH_MAX_BYTES} bytes): "
                "move the repository, or give a shorter --directory"
            )
        return path

    def data(self, service: str) -> Path:
        """The folder that `service` keeps its data in."""
        return self.root / "data" / service

    def log(self, name: str) -> Path:
        """The log file of the process `name`."""
        return self.logs / f"{name}.log"

    def spool(self, node: str) -> Path:
        """The spool of an ingest node."""
        return self.root / "spool" / node

    def launch_file(self, name: str) -> Path:
        """What `local_stack.launch` is told about the process `name`."""
        return self.run / "launch" / f"{name}.json"
