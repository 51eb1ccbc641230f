"""A lake whose S3 and catalog know the roles, each with its own key, as the local stack has them.

Besides the roles there is an identity for each of their rights that lacks just that right.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import boto3
import pytest
from pydantic import SecretStr
from pyiceberg.table import ALWAYS_TRUE

from lake_testing.shipping import SAMPLE_MESSAGE
from lake_testing.stack import (
    ADMINISTRATOR,
    EmbeddedS3,
    EmbeddedSqs,
    administrator_variables,
    free_ports,
)
from local_stack.elasticmq import ElasticMq
from local_stack.lake_environment import env_file_text, lake_environment
from local_stack.seaweedfs import INTERNAL_PORTS, SeaweedFs
from local_stack.secret_files import write_secret_file
from telemetry_lake.deploy.roles import RIGHTS, Right
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import AccessKey, Role, Settings, load_settings
from telemetry_lake.storage.aws import client_arguments
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS

ROLE_KEYS: Final = {
    role: AccessKey(access_key_id=f"key-of-{role}", secret_access_key=SecretStr(f"secret-of-{role}"))
    for role in Role
}


@dataclass(frozen=True, slots=True)
class LakeOfRoles:
    """The lake: `settings` of an administrator, and those of every role."""

    s3: SeaweedFs
    sqs: ElasticMq
    settings: Settings
    environment: dict[str, str]
    """The same as variables, without any key."""

    def bury(self) -> None:
        """Put an index message that no raw object has on the dead-letter queue."""
        IndexQueue(self.settings.sqs).dead_letters().send(SAMPLE_MESSAGE)

    def of(self, role: Role) -> Settings:
        """Return the settings of a process that acts as `role`."""
        return self.settings.model_copy(update={"role_keys": ROLE_KEYS}).acting_as(role)

    def without(self, role: Role, right: Right) -> Settings:
        """Return the settings of a process that has the rights of `role` except `right`."""
        number = RIGHTS[role].index(right)
        return self.settings.model_copy(update={"role_keys": {role: _lacking(role, number)}}).acting_as(role)


def _lacking(role: Role, number: int) -> AccessKey:
    name = f"{role}-lacks-{number}"
    return AccessKey(access_key_id=name, secret_access_key=SecretStr(f"secret-of-{name}"))


@pytest.fixture(scope="session")
def s3_of_roles(embedded_sqs: EmbeddedSqs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """Run a SeaweedFS with an identity for each role, and for each role and right that it may lack."""
    directory = tmp_path_factory.mktemp("s3-of-roles")
    first_port = free_ports(2 + INTERNAL_PORTS)
    service = SeaweedFs(
        data_directory=directory / "data",
        configuration_file=directory / "s3.json",
        log_file=directory / "seaweedfs.log",
        s3_port=first_port,
        catalog_port=first_port + 1,
        first_internal_port=first_port + 2,
        role_keys=ROLE_KEYS,
        inner_secret="inner-secret",
        administrator=ADMINISTRATOR,
    )
    configuration = service.configuration()
    for role, rights in RIGHTS.items():
        for number in range(len(rights)):
            key = _lacking(role, number)
            others = rights[:number] + rights[number + 1 :]
            service.add_identity(configuration, key.access_key_id, key, others)
    server = EmbeddedS3(service)
    server.program = replace(server.program, files={service.configuration_file: json.dumps(configuration)})
    try:
        server.start()
        # SeaweedFS takes a folder that an object made for a broken namespace: tables come first.
        settings = _settings(service, embedded_sqs.service, directory)
        maintenance = settings.model_copy(update={"role_keys": ROLE_KEYS}).acting_as(Role.MAINTENANCE)
        create_tables(load_lake_catalog(maintenance))
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def lake_of_roles(s3_of_roles: EmbeddedS3, embedded_sqs: EmbeddedSqs, tmp_path: Path) -> LakeOfRoles:
    """Return the lake, with its tables, with queues of this test's own, and without a ping."""
    embedded_sqs.start()
    unique = uuid.uuid4().hex[:12]
    sqs = replace(embedded_sqs.service, queues=(f"raw-index-{unique}", f"raw-index-dlq-{unique}"))
    settings = _settings(s3_of_roles.service, sqs, tmp_path)
    client = boto3.client("sqs", **client_arguments(settings.sqs))  # type: ignore[call-overload]
    for queue in sqs.queues:
        client.create_queue(QueueName=queue)
    client.close()
    _forget_pings(settings)
    environment = lake_environment(s3_of_roles.service, sqs, roles=())
    return LakeOfRoles(s3_of_roles.service, sqs, settings, environment)


def _forget_pings(settings: Settings) -> None:
    """Delete the raw objects and live rows of the tests before."""
    store = ObjectStore(settings.s3)
    raw = settings.s3.raw_bucket
    store.delete(raw, [entry.key for entry in store.list_objects(raw, "")])
    catalog = load_lake_catalog(settings)
    for name in (LIVE_PINGS, LIVE_REJECTED_PINGS):
        table = catalog.load_table(name)
        snapshot = table.current_snapshot()
        if snapshot is not None and snapshot.summary is not None and snapshot.summary["total-records"] != "0":
            table.delete(ALWAYS_TRUE)


def _settings(s3: SeaweedFs, sqs: ElasticMq, directory: Path) -> Settings:
    """Return the settings of an administrator, by way of a file in `directory`."""
    file = directory / "administrator.env"
    variables = {**lake_environment(s3, sqs, roles=()), **administrator_variables()}
    write_secret_file(file, env_file_text(variables))
    return load_settings(file)
