"""The settings of a lake whose services run here, as the variables that `telemetry_lake.settings` reads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from local_stack.elasticmq import REGION, ElasticMq
from local_stack.seaweedfs import SeaweedFs
from telemetry_lake.settings import AccessKey, Role


@dataclass(frozen=True, slots=True)
class AnalysisService:
    """Where the analysis service is, and the Airflow that runs its jobs."""

    url: str
    airflow_url: str
    airflow_user: str
    airflow_password: str


def lake_environment(
    s3: SeaweedFs,
    sqs: ElasticMq,
    roles: Iterable[Role] = Role,
    *,
    trusted_proxies: int = 0,
    job_niceness: int = 0,
    service: AnalysisService | None = None,
) -> dict[str, str]:
    """`TELEMETRY_LAKE_…` for the object store, the queue and the catalog, with the keys of `roles`.

    `trusted_proxies` balancers stand before the ingest nodes, and Spark jobs run with `job_niceness`. Only
    who acts as the analysis service or the monitor gets the password of Airflow. Never log it.
    """
    roles = tuple(roles)
    s3_properties = {"s3.endpoint": s3.s3_url, "s3.path-style-access": "true"}
    # SeaweedFS takes OAuth's client credentials; it refuses SigV4 on POST.
    catalog = {
        "type": "rest",
        "uri": s3.catalog_url,
        "oauth2-server-uri": f"{s3.catalog_url}/v1/oauth/tokens",
        "warehouse": f"s3://{s3.table_bucket}/",
    }
    raw_bucket, lake_bucket = s3.buckets
    index_queue, dead_letter_queue = sqs.queues
    keys = {role: s3.role_keys[role] for role in roles}
    analyses: dict[str, str] = {}
    if service is not None:
        analyses["TELEMETRY_LAKE_ANALYSIS__SERVICE_URL"] = service.url
    if service is not None and not {Role.ANALYSES, Role.MONITOR}.isdisjoint(roles):
        analyses |= {
            "TELEMETRY_LAKE_AIRFLOW__URL": service.airflow_url,
            "TELEMETRY_LAKE_AIRFLOW__USER": service.airflow_user,
            "TELEMETRY_LAKE_AIRFLOW__PASSWORD": service.airflow_password,
        }
    return {
        **analyses,
        **({"TELEMETRY_LAKE_ROLE_KEYS": role_keys_text(keys)} if keys else {}),
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": s3.s3_url,
        "TELEMETRY_LAKE_S3__REGION": REGION,
        "TELEMETRY_LAKE_S3__RAW_BUCKET": raw_bucket,
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": lake_bucket,
        # ElasticMQ takes any keys.
        "TELEMETRY_LAKE_SQS__ENDPOINT_URL": sqs.url,
        "TELEMETRY_LAKE_SQS__REGION": REGION,
        "TELEMETRY_LAKE_SQS__INDEX_QUEUE_NAME": index_queue,
        "TELEMETRY_LAKE_SQS__DEAD_LETTER_QUEUE_NAME": dead_letter_queue,
        "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": str(sqs.visibility_timeout_seconds),
        "TELEMETRY_LAKE_CATALOG__TAKES_S3_KEY": "true",
        "TELEMETRY_LAKE_CONVERSION__TRUSTED_PROXIES": str(trusted_proxies),
        "TELEMETRY_LAKE_SPARK__LOCAL_NICENESS": str(job_niceness),
        "TELEMETRY_LAKE_CATALOG__PROPERTIES": json.dumps({**catalog, **s3_properties, "s3.region": REGION}),
        "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES": json.dumps(
            {
                **catalog,
                **s3_properties,
                "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
                "client.region": REGION,
            }
        ),
    }


def role_keys_text(keys: Mapping[Role, AccessKey]) -> str:
    """Return keys of roles as `TELEMETRY_LAKE_ROLE_KEYS` holds them."""
    return json.dumps(
        {
            role: {
                "access_key_id": key.access_key_id,
                "secret_access_key": key.secret_access_key.get_secret_value(),
            }
            for role, key in keys.items()
        }
    )


def env_file_text(variables: Mapping[str, str]) -> str:
    """`variables` as an env file that pydantic-settings and a shell read alike; no value may hold a quote."""
    for name, value in variables.items():
        if "'" in value or "\n" in value:
            raise ValueError(f"{name} holds a character that an env file cannot carry")
    return "".join(f"{name}='{value}'\n" for name, value in variables.items())
