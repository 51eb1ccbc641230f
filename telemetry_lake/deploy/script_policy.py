"""The policy that narrows the role of analysts' jobs on EMR to the files of one run.

EMR gives a job what both allow: its role, and the policy that the request brings along. So the code of one
analyst cannot read another's private results, nor write over them.
"""

import json
from typing import Final
from urllib.parse import urlsplit

from telemetry_lake.deploy.roles import Places, policy_document, rights_of_script_run
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import analysis_run_key

POLICY_MAX_CHARACTERS: Final = 2_048
"""The longest that EMR Serverless takes."""


def script_run_policy(settings: Settings, run: str, output: str) -> str:
    """Return the policy for a run and the URI of its output, as JSON.

    Raises ConfigurationError when the settings do not say where the tables are, or when names in it are so
    long that EMR would not take it.
    """
    warehouse = settings.catalog.spark_properties.get("warehouse") or settings.catalog.properties.get(
        "warehouse"
    )
    if not warehouse:
        raise ConfigurationError(
            "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES names no warehouse, so that the rights of a script to "
            "the tables' files cannot be limited: add `warehouse`"
        )
    place = urlsplit(output)
    own = place.path.lstrip("/") if place.netloc == settings.s3.lake_bucket else analysis_run_key(run, "")
    rights = rights_of_script_run(analysis_run_key(run, ""), own)
    document = policy_document(rights, Places.of(settings, urlsplit(warehouse).netloc), glue=True)
    logs = urlsplit(settings.spark.log_uri or "")
    document["Statement"].append(
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{logs.netloc}{logs.path}*",
        }
    )
    text = json.dumps(document, separators=(",", ":"))
    if len(text) > POLICY_MAX_CHARACTERS:
        raise ConfigurationError(
            f"the policy of the run {run} has {len(text):,} characters, and EMR takes "
            f"{POLICY_MAX_CHARACTERS:,}: use shorter names of buckets and of the output"
        )
    return text
