"""A lake that is deployed: its settings from the outputs of its stacks, and its tables."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from telemetry_lake.failures import AccessRefused, ConfigurationError
from telemetry_lake.settings import CatalogSettings, S3Settings, Settings, SqsSettings

NEEDED_OUTPUTS: Final = (
    "RawBucket",
    "LakeBucket",
    "IndexQueueName",
    "DeadLetterQueueName",
    "CatalogProperties",
)
MAINTENANCE_ROLE: Final = "MaintenanceRoleArn"
SESSION_SECONDS: Final = 3_600
"""Of the role of maintenance, for tables and first ping: the longest that a role gives by default."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where AWS is: a region, and an endpoint in its place for tests."""

    region: str
    endpoint_url: str | None = None


def lake_settings(
    outputs: Mapping[str, str], place: Place, keys: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of a process that uses the deployed lake, with the credentials of boto3's chain.

    `keys` are those of a role, as STS gives them; the catalog and its files are then used with them. Raises
    ConfigurationError when an output is missing.
    """
    if missing := [name for name in NEEDED_OUTPUTS if name not in outputs]:
        raise ConfigurationError(
            f"the stacks have no output {', '.join(missing)}: deploy the stacks storage, queue and "
            "catalog first"
        )
    catalog: dict[str, str] = json.loads(outputs["CatalogProperties"])
    endpoint = {"region": place.region}
    if place.endpoint_url is not None:
        endpoint["endpoint_url"] = place.endpoint_url
        catalog |= {"glue.endpoint": place.endpoint_url, "s3.endpoint": place.endpoint_url}
    if keys is not None:
        catalog |= {
            "client.access-key-id": keys["AccessKeyId"],
            "client.secret-access-key": keys["SecretAccessKey"],
            "client.session-token": keys["SessionToken"],
        }
    return Settings(
        s3=S3Settings.model_validate(
            {**endpoint, "raw_bucket": outputs["RawBucket"], "lake_bucket": outputs["LakeBucket"]}
        ),
        sqs=SqsSettings.model_validate(
            {
                **endpoint,
                "index_queue_name": outputs["IndexQueueName"],
                "dead_letter_queue_name": outputs["DeadLetterQueueName"],
            }
        ),
        catalog=CatalogSettings(properties=catalog),
        role_keys={},
    )


def maintenance_settings(
    outputs: Mapping[str, str], place: Place, sts: Any, say: Callable[[str], None]
) -> Settings:
    """Return the settings of a process that acts as the role of maintenance, for an hour.

    Where the caller may not assume it, which `say` is told, it acts with the caller's own rights.
    """
    return lake_settings(outputs, place, _keys_of_maintenance(outputs, sts, say))


def create_lake_tables(settings: Settings) -> list[str]:
    """Create the tables that are missing and bring the others up to date. Returns their names."""
    from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

    return create_tables(load_lake_catalog(settings))


def _keys_of_maintenance(
    outputs: Mapping[str, str], sts: Any, say: Callable[[str], None]
) -> dict[str, str] | None:
    from telemetry_lake.storage.aws import aws_failures

    if (role := outputs.get(MAINTENANCE_ROLE)) is None:
        return None
    try:
        with aws_failures(f"acting as {role}"):
            answer = sts.assume_role(
                RoleArn=role, RoleSessionName="provisioning", DurationSeconds=SESSION_SECONDS
            )
    except AccessRefused:
        say(f"you may not act as {role}: your own rights to the tables are used")
        return None
    keys: dict[str, str] = answer["Credentials"]
    return keys
