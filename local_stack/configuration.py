"""What a stack is started with: the user's `LOCAL_STACK_…` variables, and what was found on the machine."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from local_stack.celery_workers import WORKERS_MAX
from local_stack.layout import Layout
from local_stack.secret_files import write_secret_file
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Port

_PREFIX = "LOCAL_STACK_"


class Database(StrEnum):
    """What keeps Airflow's metadata."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


class Balancer(StrEnum):
    """What stands before the ingest nodes; without one there is a single node, on the balancer's port."""

    HAPROXY = "haproxy"
    NGINX = "nginx"
    NONE = "none"


class StackVariables(BaseSettings):
    """Ports (all on the loopback interface), the fleet's rate, and choices that are detected when not set."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    s3_port: Port = 8333
    catalog_port: Port = 8181
    seaweedfs_internal_port: Port = 9330
    """The first of nine ports in a row."""
    sqs_port: Port = 9324
    postgres_port: Port = 5433
    airflow_port: Port = 8080
    web_port: Port = 8050
    exporter_port: Port = 9108
    prometheus_port: Port = 9090
    alertmanager_port: Port = 9093
    balancer_port: Port = 8000
    node_1_port: Port = 8001
    node_2_port: Port = 8002
    node_1_private_port: Port = 8011
    node_2_private_port: Port = 8012
    """Where the nodes show their numbers."""
    redis_port: Port = 6380
    """Only where there are workers."""
    workers: Annotated[int, Field(ge=0, le=WORKERS_MAX)] = 0
    """Celery workers that run Airflow's tasks; without any, the scheduler runs them."""
    fleet_pings_per_second: Annotated[float, Field(gt=0)] = 5
    balancer: Balancer | None = None
    """Without a value, whichever is installed."""
    prometheus: bool | None = None
    """Whether Prometheus and Alertmanager run; without a value, where both are installed."""
    database: Database | None = None
    """Without a value, PostgreSQL where it is installed and can be run."""

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Return the default of every variable, by its full name."""
        return {_PREFIX + name.upper(): field.default for name, field in cls.model_fields.items()}

    @classmethod
    def load(cls, *, port_offset: int = 0, workers: int | None = None) -> Self:
        """Return the variables of the environment, with `port_offset` added to every port.

        A number of `workers` wins over that of the environment.

        Raises ConfigurationError when one is not valid.
        """
        try:
            given = cls() if workers is None else cls(workers=workers)
            return cls(
                **{
                    name: value + port_offset if name.endswith("_port") else value
                    for name, value in given.model_dump().items()
                }
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            variable = _PREFIX + str(first["loc"][0]).upper()
            raise ConfigurationError(
                f"{variable} (with --port-offset {port_offset}): {first['msg']}, got {first['input']!r}"
            ) from error


class StackConfiguration(BaseModel):
    """Everything that decides what a stack consists of; kept for `status` and the watcher."""

    model_config = ConfigDict(frozen=True)

    variables: StackVariables
    database: Database
    database_reason: str
    """Why it is this one, for `status`."""
    balancer: Balancer
    prometheus: bool = False
    """Whether Prometheus and Alertmanager run."""
    fleet: bool
    foreground: bool
    """Started by `run`, and meant to end with it."""
    only: tuple[str, ...] = ()
    """The programs to start, with what they need; empty for all."""

    def save(self, layout: Layout) -> None:
        """Remember it for the other commands."""
        write_secret_file(layout.configuration_file, self.model_dump_json(indent=2))

    @classmethod
    def of_last_start(cls, layout: Layout) -> Self | None:
        """Return what the stack in this folder was last started with, or None when it never was."""
        try:
            return cls.model_validate_json(layout.configuration_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError):
            return None
