"""The settings of a lake whose services run here, as the variables that `telemetry_lake.settings` reads."""

import json
from collections.abc import Mapping

from local_stack.elasticmq import REGION, ElasticMq
from local_stack.seaweedfs import SeaweedFs


def lake_environment(s3: SeaweedFs, sqs: ElasticMq) -> dict[str, str]:
    """`TELEMETRY_LAKE_…` for the object store, the queue and the catalog. Holds the keys: never log it."""
    keys = {"ACCESS_KEY_ID": s3.access_key_id, "SECRET_ACCESS_KEY": s3.secret_access_key, "REGION": REGION}
    s3_properties = {
        "s3.endpoint": s3.s3_url,
        "s3.access-key-id": s3.access_key_id,
        "s3.secret-access-key": s3.secret_access_key,
        "s3.path-style-access": "true",
    }
    # SeaweedFS takes OAuth's client credentials; it refuses SigV4 on POST.
    catalog = {
        "type": "rest",
        "uri": s3.catalog_url,
        "oauth2-server-uri": f"{s3.catalog_url}/v1/oauth/tokens",
        "credential": f"{s3.access_key_id}:{s3.secret_access_key}",
        "warehouse": f"s3://{s3.table_bucket}/",
    }
    raw_bucket, lake_bucket = s3.buckets
    index_queue, dead_letter_queue = sqs.queues
    return {
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": s3.s3_url,
        **{f"TELEMETRY_LAKE_S3__{name}": value for name, value in keys.items()},
        "TELEMETRY_LAKE_S3__RAW_BUCKET": raw_bucket,
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": lake_bucket,
        "TELEMETRY_LAKE_SQS__ENDPOINT_URL": sqs.url,
        # ElasticMQ takes any keys, and boto3 insists on having some.
        **{f"TELEMETRY_LAKE_SQS__{name}": value for name, value in keys.items()},
        "TELEMETRY_LAKE_SQS__INDEX_QUEUE_NAME": index_queue,
        "TELEMETRY_LAKE_SQS__DEAD_LETTER_QUEUE_NAME": dead_letter_queue,
        "TELEMETRY_LAKE_SQS__VISIBILITY_TIMEOUT_SECONDS": str(sqs.visibility_timeout_seconds),
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


def env_file_text(variables: Mapping[str, str]) -> str:
    """`variables` as an env file that pydantic-settings and a shell read alike; no value may hold a quote."""
    for name, value in variables.items():
        if "'" in value or "\n" in value:
            raise ValueError(f"{name} holds a character that an env file cannot carry")
    return "".join(f"{name}='{value}'\n" for name, value in variables.items())
