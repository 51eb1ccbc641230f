"""SeaweedFS: S3 and the Iceberg REST catalog in one process."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local_stack.program import LOOPBACK, Program, Unhealthy, probe
from telemetry_lake.deploy.roles import (
    RIGHTS,
    Listing,
    Objects,
    Places,
    Right,
    TableAction,
    Tables,
    policy_document,
)
from telemetry_lake.failures import ConfigurationError, TelemetryLakeError
from telemetry_lake.settings import AccessKey, Role, S3Settings
from telemetry_lake.storage.object_store import ObjectStore

INTERNAL_PORTS: Final = 9
"""Besides S3 and catalog: master, volume, filer and admin with their gRPC ports, and S3's gRPC port."""
MEMORY_LIMIT: Final = "400MiB"
"""What Go's collector aims at; without it the process was seen at 919 MB under load, with it at 398 MB."""
VOLUME_SIZE_MB: Final = 1_024
VOLUMES_MAX: Final = 1_000
"""Each bucket takes one or more. By default their number is what would fit the free disk when full, and
then writes fail: the tests, each with buckets of its own, were stopped at 64."""

INNER_KEYS: Final = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
"""Without these keys anybody who reaches the ports of master, volume server and filer reads and deletes there
whatever S3 refuses."""
_OPERATIONS: Final[Mapping[TableAction, tuple[str, ...]]] = {
    TableAction.LIST: ("ListNamespaces", "ListTables"),
    TableAction.READ: ("GetNamespace", "GetTable"),
    TableAction.COMMIT: ("UpdateTable",),
    TableAction.CREATE: ("CreateNamespace", "CreateTable"),
}
"""What SeaweedFS calls the operations of its catalog that an action needs."""


@dataclass(frozen=True, slots=True)
class SeaweedFs:
    """Where one SeaweedFS listens, keeps its data, and which keys open it: one for each role.

    `first_internal_port` and the `INTERNAL_PORTS - 1` ports after it are used besides `s3_port` and
    `catalog_port`. Buckets and the table bucket are created at the first start.
    """

    data_directory: Path
    configuration_file: Path
    log_file: Path
    s3_port: int
    catalog_port: int
    first_internal_port: int
    role_keys: Mapping[Role, AccessKey]
    inner_secret: str
    """What the keys are derived from with which its own parts open each other's doors."""
    administrator: AccessKey | None = None
    """A key that may do everything, for tests, which make buckets of their own."""
    buckets: tuple[str, ...] = ("raw", "lake")
    table_bucket: str = "warehouse"
    listen_host: str = LOOPBACK
    """A container listens on all of its addresses: compose decides which ports are reachable from outside."""

    @property
    def s3_url(self) -> str:
        """Endpoint of S3."""
        return f"http://{LOOPBACK}:{self.s3_port}"

    @property
    def catalog_url(self) -> str:
        """Endpoint of the Iceberg REST catalog."""
        return f"http://{LOOPBACK}:{self.catalog_port}"

    def program(self, *, name: str = "seaweedfs") -> Program:
        """Return the process; raises ConfigurationError when the `weed` binary is not installed."""
        return Program(
            name=name,
            command=self._command(),
            directory=self.data_directory,
            log_file=self.log_file,
            environment={"GOMEMLIMIT": MEMORY_LIMIT, **self._inner_keys()},
            files={self.configuration_file: json.dumps(self.configuration(), indent=1)},
            ports=self._ports(),
            check_health=self.check_health,
            check_ready=self.check_buckets,
            stop_wait_seconds=15,
        )

    def configuration(self) -> dict[str, list[dict[str, Any]]]:
        """Return the configuration of S3 and the catalog: an identity for each role, with its policy."""
        whole: dict[str, list[dict[str, Any]]] = {"accounts": [], "policies": [], "identities": []}
        for role, key in self.role_keys.items():
            self.add_identity(whole, role, key, RIGHTS[role])
        if self.administrator is not None:
            whole["identities"].append(
                {
                    "name": "administrator",
                    "credentials": [_credential(self.administrator)],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            )
        return whole

    def add_identity(
        self, whole: dict[str, list[dict[str, Any]]], name: str, key: AccessKey, rights: Iterable[Right]
    ) -> None:
        """Add an identity with these rights to the `whole` configuration.

        Rights to tables are actions of the identity, and hold for all tables: SeaweedFS cannot tell them
        apart. The policies of S3 do, by the folders that the tables are in.
        """
        rights = tuple(rights)
        raw_bucket, lake_bucket = self.buckets
        places = Places(raw_bucket, lake_bucket, self.table_bucket, index_queue="", dead_letter_queue="")
        of_s3 = [right for right in rights if isinstance(right, Objects | Listing)]
        allowed = {action for right in rights if isinstance(right, Tables) for action in right.actions}
        # An account of its own: an identity without one counts as the administrator of all tables.
        whole["accounts"].append({"id": name, "displayName": name})
        # A policy without statements is not valid, and keeps others from being loaded.
        if of_s3:
            content = json.dumps(policy_document(of_s3, places))
            whole["policies"].append({"name": name, "content": content})
        whole["identities"].append(
            {
                "name": name,
                "account": whole["accounts"][-1],
                "credentials": [_credential(key)],
                "actions": [
                    f"{operation}:{self.table_bucket}"
                    for action in TableAction
                    if action in allowed
                    for operation in _OPERATIONS[action]
                ],
                "policyNames": [name] if of_s3 else [],
            }
        )

    def _inner_keys(self) -> dict[str, str]:
        """Return the variables that make its parts refuse whatever they have not signed themselves."""
        return {
            variable: hashlib.sha256(f"{variable}:{self.inner_secret}".encode()).hexdigest()
            for variable in INNER_KEYS
        }

    def check_health(self) -> None:
        """Ask S3 and the catalog; raises Unhealthy."""
        probe("S3", f"{self.s3_url}/healthz")
        probe("the Iceberg catalog", f"{self.catalog_url}/v1/config?warehouse=s3://{self.table_bucket}/")

    def check_buckets(self) -> None:
        """Look for the buckets, which are made when S3 answers already; until then keys are refused.

        Raises Unhealthy.
        """
        raw_bucket, lake_bucket = self.buckets
        lookers = {
            raw_bucket: self.role_keys.get(Role.NODE),
            lake_bucket: self.role_keys.get(Role.DRAIN),
            self.table_bucket: self.role_keys.get(Role.MAINTENANCE),
        }
        for bucket, key in lookers.items():
            if (looker := self.administrator or key) is None:
                continue
            settings = S3Settings(
                endpoint_url=self.s3_url,
                access_key_id=looker.access_key_id,
                secret_access_key=looker.secret_access_key,
                max_attempts=1,
            )
            try:
                ObjectStore(settings).look_for(bucket)
            except TelemetryLakeError as error:
                raise Unhealthy(f"the bucket {bucket} is not ready: {error}") from error

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
            # By default it reports its usage to its makers.
            "-master.telemetry=false",
            f"-bucket={','.join(self.buckets)}",
            f"-tableBucket={self.table_bucket}",
        )


def _credential(key: AccessKey) -> dict[str, str]:
    return {"accessKey": key.access_key_id, "secretKey": key.secret_access_key.get_secret_value()}


def _weed() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.is_file() else shutil.which("weed")
    if found is None:
        raise ConfigurationError(f"SeaweedFS's binary is not at {beside_python}: run `make install`")
    return found
