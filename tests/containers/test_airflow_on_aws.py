"""What a container on AWS is given becomes the variables that Airflow and the lake read."""

import base64
import os
import subprocess

from build_tools.template_joins import contents
from telemetry_lake.project_files import PROJECT_ROOT

SCRIPT = PROJECT_ROOT / "docker" / "airflow_on_aws.sh"
SETTINGS = {
    "LAKE_SETTINGS": 'TELEMETRY_LAKE_S3__REGION=a\nTELEMETRY_LAKE_CATALOG__PROPERTIES={"type": "glue"}\n',
    "AIRFLOW_SETTINGS": "DATABASE_HOST=db.example\nBROKER_HOST=broker.example\nAIRFLOW_HOME=/a b$c\n",
}


def environment_of(**secrets: str) -> dict[str, str]:
    """The variables of a command that the script starts."""
    run = subprocess.run(
        [SCRIPT, "env", "-0"],
        env={"PATH": os.environ["PATH"], **SETTINGS, **secrets},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in run.stdout.split("\0") if line)


def test_settings_are_taken_line_by_line_and_secrets_are_put_in_their_places():
    found = environment_of(DATABASE_PASSWORD="d", BROKER_PASSWORD="b", AIRFLOW_KEYS="k")
    assert found["TELEMETRY_LAKE_CATALOG__PROPERTIES"] == '{"type": "glue"}'
    assert found["AIRFLOW_HOME"] == "/a b$c"
    place = "airflow:d@db.example:5432/airflow"
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"postgresql+psycopg2://{place}?sslmode=require"
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == f"postgresql+asyncpg://{place}?ssl=require"
    assert found["AIRFLOW__CELERY__RESULT_BACKEND"] == f"db+postgresql+psycopg2://{place}?sslmode=require"
    assert found["AIRFLOW__CELERY__BROKER_URL"] == "rediss://:b@broker.example:6379/0"
    assert found["AIRFLOW__CELERY__SSL_ACTIVE"] == "True"
    keys = [
        found[f"AIRFLOW__{name}"] for name in ("CORE__FERNET_KEY", "API__SECRET_KEY", "API_AUTH__JWT_SECRET")
    ]
    assert len(set(keys)) == 3
    assert len(base64.urlsafe_b64decode(keys[0])) == 32
    assert not {"DATABASE_PASSWORD", "BROKER_PASSWORD", "AIRFLOW_KEYS", "LAKE_SETTINGS"} & set(found)


def test_a_container_gets_only_what_its_secrets_allow():
    found = environment_of()
    assert not [
        name for name in found if name.startswith(("AIRFLOW__DATABASE", "AIRFLOW__CELERY__", "AIRFLOW__A"))
    ]
    worker = environment_of(DATABASE_PASSWORD="d", BROKER_PASSWORD="b")
    assert "AIRFLOW__CORE__FERNET_KEY" not in worker
    assert "AIRFLOW__API_AUTH__JWT_SECRET" not in worker


def test_workers_have_no_key_of_airflow_and_the_others_no_password_of_the_broker():
    resources = contents()["orchestration"]["Resources"]
    secrets = {
        name.removesuffix("Task"): {
            secret["Name"]
            for container in resource["Properties"]["ContainerDefinitions"]
            for secret in container.get("Secrets", ())
        }
        for name, resource in resources.items()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
    }
    assert {name for name, has in secrets.items() if "AIRFLOW_KEYS" in has} == {
        *("ApiServer", "DagProcessor", "Scheduler", "Triggerer")
    }
    assert {name for name, has in secrets.items() if "BROKER_PASSWORD" in has} == {"Scheduler", "Worker"}
    assert secrets["Maintenance"] == set()
