"""Where a local stack keeps everything: one folder, by default `.local/`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError

SOCKET_PATH_MAX_BYTES: Final = 107
"""The longest path of a Unix socket on Linux."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one stack; `root` is absolute and identifies the stack."""

    root: Path

    @property
    def env_file(self) -> Path:
        """The settings of the running stack, for the commands of its owner: with the keys of all roles."""
        return self.root / "telemetry_lake.env"

    @property
    def secrets(self) -> Path:
        """Generated credentials, one a file."""
        return self.root / "secrets"

    def settings_file(self, program: str) -> Path:
        """Return the settings of one program, with the keys of its roles only."""
        return self.run / "settings" / f"{program}.env"

    @property
    def logs(self) -> Path:
        """One log file for each process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The socket and the configuration of supervisord, which only a running stack needs."""
        return self.root / "run"

    @property
    def configuration_file(self) -> Path:
        """The configuration of the last start (`configuration.StackConfiguration`)."""
        return self.run / "stack.json"

    @property
    def needs_file(self) -> Path:
        """Which program needs which others, as JSON: a stop goes by it."""
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
        """Return the folder that `service` keeps its data in."""
        return self.root / "data" / service

    def log(self, name: str) -> Path:
        """Return the log file of the process `name`."""
        return self.logs / f"{name}.log"

    def spool(self, node: str) -> Path:
        """Return the spool of an ingest node."""
        return self.root / "spool" / node

    def launch_file(self, name: str) -> Path:
        """Return the file from which `local_stack.launch` starts the process `name`."""
        return self.run / "launch" / f"{name}.json"
