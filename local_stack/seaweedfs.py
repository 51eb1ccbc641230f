"""SeaweedFS: S3 and the Iceberg REST catalog in one process."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.program import LOOPBACK, Program, probe
from telemetry_lake.failures import ConfigurationError

INTERNAL_PORTS: Final = 9
"""Besides S3 and catalog: master, volume, filer and admin with their gRPC ports, and S3's gRPC port."""
MEMORY_LIMIT: Final = "400MiB"
"""What Go's collector aims at; without it the process was seen at 919 MB under load, with it at 398 MB."""
VOLUME_SIZE_MB: Final = 1_024
VOLUMES_MAX: Final = 1_000
"""Each bucket takes one or more. By default only so many are made as would fit the free disk when full, and
then writes fail: the tests, each with buckets of its own, were stopped at 64."""


@dataclass(frozen=True, slots=True)
class SeaweedFs:
    """Where one SeaweedFS listens, keeps its data, and which keys open it.

    `first_internal_port` and the `INTERNAL_PORTS - 1` ports after it are used besides `s3_port` and
    `catalog_port`. Buckets and the table bucket are created at the first start.
    """

    data_directory: Path
    configuration_file: Path
    log_file: Path
    s3_port: int
    catalog_port: int
    first_internal_port: int
    access_key_id: str
    secret_access_key: str
    buckets: tuple[str, ...] = ("raw", "lake")
    table_bucket: str = "warehouse"
    listen_host: str = LOOPBACK
    """A container, whose addresses nothing outside reaches unasked, listens on all of them."""

    @property
    def s3_url(self) -> str:
        """Endpoint of S3."""
        return f"http://{LOOPBACK}:{self.s3_port}"

    @property
    def catalog_url(self) -> str:
        """Endpoint of the Iceberg REST catalog."""
        return f"http://{LOOPBACK}:{self.catalog_port}"

    def program(self, *, name: str = "seaweedfs") -> Program:
        """The process; raises ConfigurationError when the `weed` binary is not installed."""
        identity = {
            "name": "lake",
            "credentials": [{"accessKey": self.access_key_id, "secretKey": self.secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        return Program(
            name=name,
            command=self._command(),
            directory=self.data_directory,
            log_file=self.log_file,
            environment={"GOMEMLIMIT": MEMORY_LIMIT},
            files={self.configuration_file: json.dumps({"identities": [identity]})},
            ports=self._ports(),
            check_health=self.check_health,
            stop_wait_seconds=15,
        )

    def check_health(self) -> None:
        """Ask S3 and the catalog; raises Unhealthy."""
        probe("S3", f"{self.s3_url}/healthz")
        probe("the Iceberg catalog", f"{self.catalog_url}/v1/config?warehouse=s3://{self.table_bucket}/")

    def _ports(self) -> dict[int, str]:
        return {
            self.s3_port: "LOCAL_STACK_S3_PORT",
            self.catalog_port: "LOCAL_STACK_CATALOG_PORT",
            **{
                self.first_internal_port + offset: "LOCAL_STACK_SEAWEEDFS_INTERNAL_PORT"
                for offset in range(INTERNAL_PORTS)
            },
        }

    def _command(self) -> tuple[str, ...]:
        internal = iter(range(self.first_internal_port, self.first_internal_port + INTERNAL_PORTS))
        return (
            _weed(),
            "-logtostderr",
            "mini",
            f"-dir={self.data_directory}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={self.listen_host}",
            f"-s3.config={self.configuration_file}",
            f"-s3.port={self.s3_port}",
            f"-s3.port.iceberg={self.catalog_port}",
            "-s3.port.lance=0",
            f"-master.port={next(internal)}",
            f"-master.port.grpc={next(internal)}",
            f"-volume.port={next(internal)}",
            f"-volume.port.grpc={next(internal)}",
            f"-filer.port={next(internal)}",
            f"-filer.port.grpc={next(internal)}",
            f"-s3.port.grpc={next(internal)}",
            f"-admin.port={next(internal)}",
            f"-admin.port.grpc={next(internal)}",
            f"-master.volumeSizeLimitMB={VOLUME_SIZE_MB}",
            f"-volume.max={VOLUMES_MAX}",
            "-admin.ui=false",
            "-webdav=false",
            # It reports its usage to its makers unless told not to.
            "-master.telemetry=false",
            f"-bucket={','.join(self.buckets)}",
            f"-tableBucket={self.table_bucket}",
        )


def _weed() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.is_file() else shutil.which("weed")
    if found is None:
        raise ConfigurationError(f"SeaweedFS's binary is not at {beside_python}: run `make install`")
    return found
