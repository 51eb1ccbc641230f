"""A lake that is deployed: its settings from the outputs of its stacks, its tables, and its first ping."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from telemetry_lake.failures import AccessRefused, ConfigurationError, FatalError, RetriableError
from telemetry_lake.settings import CatalogSettings, S3Settings, Settings, SqsSettings

NEEDED_OUTPUTS: Final = (
    "RawBucket",
    "LakeBucket",
    "IndexQueueName",
    "DeadLetterQueueName",
    "CatalogProperties",
)
MAINTENANCE_ROLE: Final = "MaintenanceRoleArn"
FIRST_PING_PATH: Final = "/submit/lake-demo/greeting/1/"
FIRST_PING_MAX_SECONDS: Final = 900.0
"""A segment is sealed after 60 s, and a batch of Airflow's first run compiles for minutes."""
LOOK_SECONDS: Final = 5.0
POST_TIMEOUT_SECONDS: Final = 10.0


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


def create_lake_tables(
    outputs: Mapping[str, str], place: Place, sts: Any, say: Callable[[str], None]
) -> list[str]:
    """Create the tables that are missing and bring the others up to date. Returns their names.

    It acts as the role of maintenance, where the caller may assume it, otherwise with the caller's own
    rights.
    """
    from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

    settings = lake_settings(outputs, place, _keys_of_maintenance(outputs, sts, say))
    return create_tables(load_lake_catalog(settings))


def _keys_of_maintenance(
    outputs: Mapping[str, str], sts: Any, say: Callable[[str], None]
) -> dict[str, str] | None:
    from telemetry_lake.storage.aws import aws_failures

    if (role := outputs.get(MAINTENANCE_ROLE)) is None:
        return None
    try:
        with aws_failures(f"acting as {role}"):
            answer = sts.assume_role(RoleArn=role, RoleSessionName="provisioning", DurationSeconds=900)
    except AccessRefused:
        say(f"you may not act as {role}: the tables are created with your own rights")
        return None
    keys: dict[str, str] = answer["Credentials"]
    return keys


def send_first_ping(url: str) -> str:
    """Post a greeting to the lake's endpoint. Returns its document id.

    Raises RetriableError when nothing answers, and FatalError when the answer is not 200.
    """
    document_id = str(uuid.uuid4())
    address = f"{url.rstrip('/')}{FIRST_PING_PATH}{document_id}"
    body = json.dumps({"text": "the first ping of a deployment", "client_id": "provisioning"})
    try:
        answer = httpx.post(address, content=body, timeout=POST_TIMEOUT_SECONDS)
    except httpx.TransportError as error:
        raise RetriableError(
            f"{address} does not answer ({error!r}): has the name an address, is a node healthy in the "
            "target group?"
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise FatalError(f"{address} answers {answer.status_code}, and a ping that is stored is answered 200")
    return document_id


def wait_for_row(
    settings: Settings,
    document_id: str,
    observe: Callable[[float], None],
    *,
    max_seconds: float = FIRST_PING_MAX_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until a ping is a row of live.pings. Returns after how many seconds it was found.

    `observe` is called with the seconds so far at each look. Raises FatalError after `max_seconds`.
    """
    from telemetry_lake.query.lake import open_lake

    started = time.monotonic()
    while (waited := time.monotonic() - started) < max_seconds:
        observe(waited)
        with open_lake(settings) as lake:
            rows = lake.query(
                f"SELECT count(*) FROM live.pings WHERE document_id = '{uuid.UUID(document_id)}'"  # noqa: S608
            ).fetchone()
        if rows is not None and rows[0]:
            return time.monotonic() - started
        sleep(LOOK_SECONDS)
    raise FatalError(
        f"the ping {document_id} was accepted and is not in live.pings after {max_seconds:.0f} s. "
        "Nothing is lost: it is in the node's spool, in the raw bucket or on the queue. Is the DAG "
        "drain running? Look at its runs, then at the dead letters: python -m telemetry_lake dead-letters"
    )
