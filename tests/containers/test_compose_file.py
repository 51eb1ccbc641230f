"""docker-compose.yaml says what the local stack does, keeps secrets out of itself, and can be started."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml

from local_stack.airflow import CLEANING
from local_stack.airflow_cleaning import FAILED
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.layout import Layout
from local_stack.monitoring import ALERTMANAGER, EXPORTER, PROMETHEUS, PROMETHEUS_PACKAGES
from local_stack.plan import Plan, make_plan
from local_stack.program import LOOPBACK, Program
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from tests.containers import compose_file

MAKE_ENV: Final = PROJECT_ROOT / "docker" / "make_env.sh"
WITHOUT_A_SERVICE: Final = {
    "postgres-init": "the image makes its cluster by itself",
    "compact-queue-file": "docker/embedded_service.py does it before it starts ElasticMQ",
    "watcher": "Docker restarts what ends",
}
"""What the local stack runs and the containers need no service for."""
MERELY_ALIVE: Final = {"client-fleet"}
"""Services that nothing depends on and that are as healthy as their process."""
AIRFLOW: Final = ("airflow-api-server", "airflow-dag-processor", "airflow-scheduler", "airflow-triggerer")
AIRFLOW_DIFFERS: Final = {
    # Paths and addresses of the container.
    "AIRFLOW_HOME",
    "PYTHONPATH",
    "PYSPARK_PYTHON",
    "AIRFLOW__API__HOST",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    # Secrets of this installation.
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
}
FOLDERS: Final = {
    # Folders in commands of the local stack, by their last part, and what they are in the container.
    "airflow": "/var/lib/telemetry_lake/airflow/logs",
    "cleaning": "/var/lib/telemetry_lake/airflow/cleaning",
}
FOLDERS_OF_THE_CONTAINER: Final = {"TELEMETRY_LAKE_CONVERSION__HISTOGRAM_DEFINITIONS_DIRECTORY"}
OF_SOME: Final = ("_INGEST__", "_WEB__", "_AIRFLOW__", "_ANALYSIS__", "_MONITORING__")
"""Groups of settings that only some services are given."""
SETTINGS_FILE_VARIABLE: Final = "TELEMETRY_LAKE_ENV_FILE"
SECRET_NAMES: Final = re.compile(r"PASSWORD|SECRET|_KEY|CREDENTIAL|TOKEN|CONN|PROPERTIES")
ROLE_KEYS: Final = "TELEMETRY_LAKE_ROLE_KEYS"
NOT_PUBLISHED: Final = "LOCAL_STACK_SQS_PORT"
"""ElasticMQ takes any key: only the services on its network reach it."""
USERS_OF_A_NETWORK: Final = {
    "edge": {"balancer", "ingest-node-1", "ingest-node-2", "client-fleet", PROMETHEUS},
    "storage": {
        *("seaweedfs", "create-tables", "ingest-node-1", "ingest-node-2"),
        *("airflow-api-server", "airflow-scheduler", "airflow-triggerer", "web", EXPORTER),
    },
    "queue": {
        *("elasticmq", "ingest-node-1", "ingest-node-2", "airflow-triggerer", "airflow-scheduler", EXPORTER),
    },
    "airflow": {"postgres", "airflow-migrate", "airflow-cleaning", EXPORTER, *AIRFLOW},
    "monitoring": {EXPORTER, PROMETHEUS, ALERTMANAGER, "web"},
}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The local stack with everything there is: PostgreSQL, HAProxy, two nodes and the fleet."""
    # Nothing is started; the programs only have to be found.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("haproxy", "initdb", "postgres", "java", *PROMETHEUS_PACKAGES):
        (programs / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return make_plan(
        Layout(tmp_path / "stack"),
        StackConfiguration(
            variables=StackVariables.model_construct(),
            database=Database.POSTGRESQL,
            database_reason="",
            balancer=Balancer.HAPROXY,
            prometheus=True,
            fleet=True,
            foreground=False,
        ),
    )


@pytest.fixture
def variables(stack: Plan, tmp_path: Path) -> dict[str, str]:
    """What `make compose-env` writes, with the local stack's keys of S3 in place of new ones."""
    env_file = tmp_path / "compose.env"
    subprocess.run([MAKE_ENV, env_file], check=True, capture_output=True)
    generated = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    secrets = {
        f"LAKE_SECRET_OF_{role.upper()}": key.secret_access_key.get_secret_value()
        for role, key in stack.s3.role_keys.items()
    }
    assert secrets.keys() <= generated.keys()
    return {**generated, **secrets, "SEAWEEDFS_INNER_SECRET": stack.s3.inner_secret}


@pytest.fixture
def services(variables: dict[str, str]) -> dict[str, Any]:
    found = compose_file.filled_in(variables)["services"]
    assert isinstance(found, dict)
    return found


def as_seen_from_this_machine(text: str) -> str:
    """Addresses between containers, written as the local stack writes them."""
    return re.sub(r"http://[a-z0-9-]+:(\d+)", rf"http://{LOOPBACK}:\1", text)


def lake_environment(service: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value for name, value in service["environment"].items() if name.startswith("TELEMETRY_LAKE_")
    }


def ours(services: Mapping[str, Any]) -> dict[str, Any]:
    """The services that run our image and reach the lake, which its clients and the cleaning do not."""
    return {
        name: service
        for name, service in services.items()
        if "telemetry-lake" in service["image"] and name not in {"client-fleet", CLEANING}
    }


def test_services_are_what_the_local_stack_runs(stack: Plan, services: dict[str, Any]) -> None:
    assert set(services) == {item.name for item in stack.items} - set(WITHOUT_A_SERVICE)


def test_services_start_after_the_same_others(stack: Plan, services: dict[str, Any]) -> None:
    programs = {item.name for item in stack.items if isinstance(item, Program)}
    for item in stack.items:
        if item.name in WITHOUT_A_SERVICE:
            continue
        expected = {
            name: {"condition": "service_healthy" if name in programs else "service_completed_successfully"}
            for name in item.after
            if name not in WITHOUT_A_SERVICE
        }
        assert services[item.name].get("depends_on", {}) == expected, item.name


def test_the_same_ports_are_published_and_on_loopback_only(stack: Plan, services: dict[str, Any]) -> None:
    for item in stack.programs:
        if item.name in WITHOUT_A_SERVICE:
            continue
        expected = {
            port
            for port, variable in item.ports.items()
            if "INTERNAL" not in variable and variable != NOT_PUBLISHED
        }
        published = services[item.name].get("ports", [])
        assert all(entry.startswith(f"{LOOPBACK}:") for entry in published), item.name
        assert {int(entry.split(":")[1]) for entry in published} == expected, item.name
    assert all("ports" not in services[name] for name in ("create-tables", "airflow-migrate"))


def test_the_same_commands_are_run(stack: Plan, services: dict[str, Any]) -> None:
    api_server_script = (PROJECT_ROOT / "docker" / "airflow_api_server.sh").read_text()
    for item in stack.items:
        # The exporter gives way to the start of the others, which Docker does not start at once.
        arguments = item.command[3:] if item.command[0] == "nice" else item.command
        if item.name not in services or arguments[0] != sys.executable:
            continue
        expected = ["python", *arguments[1:]]
        if item.name == "airflow-api-server":
            assert services[item.name]["command"] == ["docker/airflow_api_server.sh"]
            assert api_server_script.endswith(f"exec {' '.join(expected)}\n")
        else:
            command = [as_seen_from_this_machine(part) for part in services[item.name]["command"]]
            expected = [
                FOLDERS.get(Path(part).name, part) if part.startswith("/") else part for part in expected
            ]
            assert command == expected, item.name
    # The local stack notes that the database is up to date; a container only asks again.
    [migration] = [item for item in stack.items if item.name == "airflow-migrate"]
    assert any("-m telemetry_lake.deploy.airflow_database" in part for part in migration.command)
    assert services["airflow-migrate"]["command"] == [
        *("python", "-m", "telemetry_lake.deploy.airflow_database")
    ]


def test_every_service_of_ours_gets_the_settings_of_the_local_stack(
    stack: Plan, services: dict[str, Any]
) -> None:
    def comparable(environment: Mapping[str, str]) -> dict[str, Any]:
        return {
            name: json.loads(value) if value.startswith("{") else value
            for name, value in (
                (name, as_seen_from_this_machine(value)) for name, value in environment.items()
            )
            if not any(group in name for group in OF_SOME)
            and name not in FOLDERS_OF_THE_CONTAINER | {ROLE_KEYS}
        }

    for name, service in ours(services).items():
        assert comparable(lake_environment(service)) == comparable(stack.lake_environment), name


def test_every_service_gets_the_keys_of_its_roles_and_no_others(
    stack: Plan, services: dict[str, Any]
) -> None:
    all_keys = json.loads(stack.lake_environment[ROLE_KEYS])
    for item in stack.items:
        if item.name not in ours(services) or item.name in ("seaweedfs", "elasticmq"):
            continue
        file = stack.layout.settings_file(item.name)
        variables = dict(line.split("=", 1) for line in item.files.get(file, "").splitlines())
        expected = json.loads(variables.get(ROLE_KEYS, "'{}'").strip("'"))
        given = json.loads(services[item.name]["environment"].get(ROLE_KEYS, "{}"))
        assert given == expected == {role: all_keys[role] for role in expected}, item.name
    assert json.loads(services["seaweedfs"]["environment"][ROLE_KEYS]) == all_keys
    assert "node" not in json.loads(services["airflow-scheduler"]["environment"][ROLE_KEYS])


def test_a_service_reaches_only_what_it_uses(services: dict[str, Any]) -> None:
    networks = compose_file.as_written()["networks"]
    found = {
        network: {name for name, service in services.items() if network in service["networks"]}
        for network in networks
    }
    assert found == USERS_OF_A_NETWORK


def test_ingest_nodes_are_set_up_as_in_the_local_stack(stack: Plan, services: dict[str, Any]) -> None:
    for node in stack.nodes:
        [local] = [item for item in stack.programs if item.name == node.name]
        expected = {
            name: value for name, value in local.environment.items() if name != SETTINGS_FILE_VARIABLE
        } | {
            "TELEMETRY_LAKE_INGEST__HOST": "0.0.0.0",
            "TELEMETRY_LAKE_INGEST__PRIVATE_HOST": "0.0.0.0",
            "TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY": "/var/lib/telemetry_lake/spool",
        }
        given = lake_environment(services[node.name])
        assert {name: value for name, value in given.items() if "_INGEST__" in name} == expected


def test_the_web_pages_listen_outside_and_keep_their_copy_on_a_volume(
    stack: Plan, services: dict[str, Any]
) -> None:
    [local] = [item for item in stack.programs if item.name == "web"]
    given = lake_environment(services["web"])
    assert {name: value for name, value in given.items() if "_WEB__" in name} == {
        "TELEMETRY_LAKE_WEB__HOST": "0.0.0.0",
        "TELEMETRY_LAKE_WEB__PORT": local.environment["TELEMETRY_LAKE_WEB__PORT"],
        "TELEMETRY_LAKE_WEB__CUBES_DIRECTORY": "/var/lib/telemetry_lake/dashboard",
        "TELEMETRY_LAKE_WEB__MINIMUM_CLIENTS_ELSEWHERE": "0",
        "TELEMETRY_LAKE_WEB__ANALYSES": local.environment["TELEMETRY_LAKE_WEB__ANALYSES"],
        "TELEMETRY_LAKE_WEB__OPERATIONS": local.environment["TELEMETRY_LAKE_WEB__OPERATIONS"],
        "TELEMETRY_LAKE_WEB__EXPORTER_URL": f"http://{EXPORTER}:9108",
        "TELEMETRY_LAKE_WEB__PROMETHEUS_URL": f"http://{PROMETHEUS}:9090",
        "TELEMETRY_LAKE_WEB__PROMETHEUS_PUBLIC_URL": "http://127.0.0.1:9090",
        "TELEMETRY_LAKE_WEB__ALERTMANAGER_PUBLIC_URL": "http://127.0.0.1:9093",
        "TELEMETRY_LAKE_WEB__NODE_URLS": json.dumps(
            [f"http://{node.name}:{node.private_port}" for node in stack.nodes]
        ),
        "TELEMETRY_LAKE_WEB__USERS_FILE": "/var/lib/telemetry_lake/analyses/users.json",
    }
    assert services["web"]["volumes"] == [
        "dashboard:/var/lib/telemetry_lake/dashboard",
        "analyses:/var/lib/telemetry_lake/analyses",
    ]


def test_monitoring_is_set_up_as_in_the_local_stack(stack: Plan, services: dict[str, Any]) -> None:
    programs = {program.name: program for program in stack.programs}
    given = lake_environment(services[EXPORTER])
    assert {name: value for name, value in given.items() if "_MONITORING__" in name} == {
        **{name: value for name, value in programs[EXPORTER].environment.items() if "_MONITORING__" in name},
        "TELEMETRY_LAKE_MONITORING__HOST": "0.0.0.0",
        "TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY": "/var/lib/telemetry_lake/monitoring",
        "TELEMETRY_LAKE_MONITORING__WEB_URL": "http://web:8050",
    }
    for name in (PROMETHEUS, ALERTMANAGER):
        flags = dict(flag.split("=", 1) for flag in services[name]["command"])
        local = dict(flag.split("=", 1) for flag in programs[name].command[1:])
        assert flags.keys() == local.keys()
        differing = {flag for flag in flags if flags[flag] != local[flag].replace(LOOPBACK, "")}
        assert differing <= {"--config.file", "--storage.tsdb.path", "--storage.path"}, name
        [folder] = {value for flag, value in flags.items() if flag.startswith("--storage") and "/" in value}
        assert f"{name}:{folder}" in services[name]["volumes"]


def test_prometheus_asks_the_same_programs_as_in_the_local_stack(stack: Plan) -> None:
    found = yaml.safe_load((PROJECT_ROOT / "docker" / "prometheus.yaml").read_text())
    as_local = json.loads(re.sub(r"\b[a-z0-9-]+:(\d{4})\b", rf"{LOOPBACK}:\1", json.dumps(found)))
    expected = dict(stack.monitoring.prometheus_configuration())
    del expected["rule_files"], as_local["rule_files"]
    assert as_local == expected


def test_spools_and_databases_are_on_volumes_of_their_own(services: dict[str, Any]) -> None:
    volumes = compose_file.as_written()["volumes"]
    for name in ("postgres", "seaweedfs", "elasticmq", "ingest-node-1", "ingest-node-2"):
        [mount] = services[name]["volumes"]
        volume = mount.split(":")[0]
        assert volume in volumes
        users = [
            user
            for user, service in services.items()
            if any(entry.startswith(f"{volume}:") for entry in service.get("volumes", []))
        ]
        assert users == [name]


@pytest.mark.parametrize("component", AIRFLOW)
def test_airflow_is_set_up_as_in_the_local_stack(
    component: str, stack: Plan, services: dict[str, Any]
) -> None:
    [local] = [item for item in stack.programs if item.name == component]
    expected = {name: value for name, value in local.environment.items() if name != SETTINGS_FILE_VARIABLE}
    lake = lake_environment(services[component])
    given = {name: value for name, value in services[component]["environment"].items() if name not in lake}
    # The api-server's start script puts this one where the local stack puts it.
    given.pop("AIRFLOW_ADMIN_PASSWORD", None)
    assert set(given) == set(expected)
    assert {name for name in given if given[name] != expected[name]} <= AIRFLOW_DIFFERS


def test_the_cleaning_has_the_database_of_airflow_and_no_key(stack: Plan, services: dict[str, Any]) -> None:
    [local] = [item for item in stack.programs if item.name == CLEANING]
    given = services[CLEANING]["environment"]
    assert set(given) == set(local.environment) - {SETTINGS_FILE_VARIABLE}
    assert {name for name in given if given[name] != local.environment[name]} <= AIRFLOW_DIFFERS
    scheduler = services["airflow-scheduler"]["environment"]
    assert all(scheduler[name] == value for name, value in given.items())
    assert [name for name in given if SECRET_NAMES.search(name)] == ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    check = services[CLEANING]["healthcheck"]["test"]
    assert check == ["CMD", "test", "!", "-e", f"{services[CLEANING]['command'][-1]}/{FAILED}"]


def test_every_setting_given_is_a_real_one(services: dict[str, Any]) -> None:
    for name, service in ours(services).items():
        for variable in lake_environment(service):
            group, _, field = variable.removeprefix("TELEMETRY_LAKE_").lower().partition("__")
            assert group in Settings.model_fields, f"{name}: {variable}"
            if not field:
                continue
            group_class = Settings.model_fields[group].annotation
            assert group_class is not None
            assert field in group_class.model_fields, f"{name}: {variable}"


def test_the_settings_given_are_accepted(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lake_environment(services["ingest-node-2"]).items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.ingest.port == 8002
    assert settings.ingest.node == "node-2"
    assert settings.catalog.properties["uri"] == "http://seaweedfs:8181"


@pytest.fixture
def container_settings(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in services["seaweedfs"]["environment"].items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def test_seaweedfs_gets_the_flags_of_the_local_stack(
    embedded_service: ModuleType, container_settings: Settings, stack: Plan
) -> None:
    def flags(program: Program) -> dict[str, str]:
        return dict(part.partition("=")[::2] for part in program.command[1:])

    container, local = embedded_service.seaweedfs(container_settings).program(), stack.s3.program()
    differing = {flag for flag, value in flags(local).items() if flags(container).get(flag) != value}
    assert flags(container).keys() == flags(local).keys()
    assert differing == {"-dir", "-s3.config", "-ip.bind"}
    assert container.environment == local.environment
    assert list(container.files.values()) == list(local.files.values())


def test_elasticmq_gets_the_configuration_of_the_local_stack(
    embedded_service: ModuleType, container_settings: Settings, stack: Plan
) -> None:
    container = embedded_service.elasticmq(container_settings)
    text = container.configuration()
    text = text.replace(str(container.data_directory), str(stack.sqs.data_directory))
    assert (
        text.replace('bind-hostname = "0.0.0.0"', f'bind-hostname = "{LOOPBACK}"')
        == stack.sqs.configuration()
    )


def test_the_balancer_is_configured_as_in_the_local_stack(stack: Plan) -> None:
    [balancer] = [item for item in stack.programs if item.name == "balancer"]
    [local] = balancer.files.values()
    ports = {str(node.port): node.name for node in stack.nodes}
    expected = re.sub(rf"{LOOPBACK}:(\d+) check", lambda match: f"{ports[match[1]]}:{match[1]} check", local)
    expected = expected.replace(f"bind {LOOPBACK}:", "bind *:")
    # Docker's own name server, because a container that is created again gets another address.
    found = (PROJECT_ROOT / "docker" / "haproxy.cfg").read_text()
    found = "".join(line for line in found.splitlines(keepends=True) if not line.startswith("#"))
    found = re.sub(r"resolvers docker\n(    .*\n)+", "", found)
    found = found.replace(" resolvers docker init-addr libc,none", "")
    assert found == expected


def test_programs_are_watched_and_restarted_and_steps_run_once(stack: Plan, services: dict[str, Any]) -> None:
    for item in stack.items:
        if item.name in WITHOUT_A_SERVICE:
            continue
        service = services[item.name]
        if isinstance(item, Program):
            assert service["restart"] == "unless-stopped", item.name
            assert ("healthcheck" in service) == (item.name not in MERELY_ALIVE), item.name
        else:
            assert service["restart"] == "no", item.name
            assert "healthcheck" not in service, item.name


def test_services_are_given_the_time_to_stop_that_the_local_stack_gives(
    stack: Plan, services: dict[str, Any]
) -> None:
    docker_default_seconds = 10
    for item in stack.programs:
        if item.name in ours(services):
            given = services[item.name].get("stop_grace_period", f"{docker_default_seconds}s")
            assert int(given.removesuffix("s")) >= item.stop_wait_seconds, item.name


def test_nothing_runs_with_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys(), name
        # Ours and HAProxy's images name a user of their own; PostgreSQL's starts as root without one.
        assert service.get("user") == ("postgres" if name == "postgres" else None), name


def test_no_secret_is_written_down() -> None:
    for name, service in compose_file.as_written()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if not SECRET_NAMES.search(variable) or variable.endswith(("_FILE", "TAKES_S3_KEY")):
                continue
            if value.startswith("{"):
                secrets = secret_values(json.loads(value))
                assert secrets or variable.endswith("PROPERTIES"), f"{name}: {variable}"
            elif "://" in value:
                secrets = re.findall(r"//[^:]+:([^@]+)@", value)
                assert secrets, f"{name}: {variable}"
            else:
                secrets = [value]
            for secret in secrets:
                assert compose_file.without_variables(secret) in ("", ":"), f"{name}: {variable}"


def secret_values(document: Mapping[str, Any]) -> list[str]:
    """What is secret in a JSON value: the secrets of roles, and nothing of catalogs."""
    assert not {"credential", "s3.access-key-id", "s3.secret-access-key"} & document.keys()
    return [key["secret_access_key"] for key in document.values() if isinstance(key, dict)]


def test_every_secret_is_generated_once_and_kept_private(tmp_path: Path) -> None:
    env_file = tmp_path / "compose.env"
    subprocess.run([MAKE_ENV, env_file], check=True, capture_output=True)
    first = env_file.read_text()
    generated = dict(line.split("=", 1) for line in first.splitlines())
    assert compose_file.required_variables() <= generated.keys()
    # A variable without a message of its own has one elsewhere, or a default.
    optional = compose_file.used_variables() - compose_file.required_variables()
    assert optional == {
        *("LAKE_IMAGE", "POSTGRES_IMAGE", "HAPROXY_IMAGE", "BASE_IMAGE"),
        *("PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE"),
    }
    assert env_file.stat().st_mode & 0o777 == 0o600
    subprocess.run([MAKE_ENV, env_file], check=True, capture_output=True)
    assert env_file.read_text() == first
    other = tmp_path / "other.env"
    subprocess.run([MAKE_ENV, other], check=True, capture_output=True)
    assert not set(first.splitlines()[1:]) & set(other.read_text().splitlines())


def test_the_file_with_the_secrets_stays_out_of_git_and_out_of_the_image() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=PROJECT_ROOT, check=False)
    assert ignored.returncode == 0
    rules = [
        line
        for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    copied = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    missing = {path for path in copied if not (PROJECT_ROOT / path).exists()}
    assert not missing
    assert not {path for path in copied if path.startswith(".")}


def test_images_are_pinned_and_the_dockerfile_agrees() -> None:
    written = compose_file.as_written()["services"]
    for name, service in written.items():
        image, _, tag = compose_file.default_of(service["image"]).rpartition(":")
        if image == "telemetry-lake/telemetry-lake":
            continue
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {image}:{tag}"
    [build] = [service["build"] for service in written.values() if "build" in service]
    dockerfile = compose_file.DOCKERFILE.read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, flags=re.MULTILINE))
    assert compose_file.default_of(build["args"]["BASE_IMAGE"]) == arguments["BASE_IMAGE"]
    assert re.search(r":3\.11\.\d+-slim-bookworm$", arguments["BASE_IMAGE"])
    assert build["target"] in re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, flags=re.MULTILINE)


def test_the_dockerfile_installs_what_is_locked_and_nothing_else() -> None:
    dockerfile = compose_file.DOCKERFILE.read_text()
    install = (PROJECT_ROOT / "build_tools" / "install.sh").read_text()
    assert "&& build_tools/install.sh" in dockerfile
    assert re.search(r"uv pip sync(.|\\\n)*--require-hashes(.|\\\n)* requirements\.txt", install)
    assert "--require-hashes" in install.split("uv pip sync")[0]
    assert "fetch_jars.sh" in install
    assert not re.search(r"pip3? install|curl |wget |^ADD ", dockerfile, flags=re.MULTILINE)


def test_the_image_runs_as_an_ordinary_user_and_bakes_in_no_network() -> None:
    dockerfile = compose_file.DOCKERFILE.read_text()
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    users = {stage.split()[2]: re.findall(r"^USER (\w+)$", stage, flags=re.MULTILINE) for stage in stages}
    assert users["telemetry-lake"] == ["lake"]
    assert users["postgres-local"] == ["postgres"]
    assert users["haproxy-local"] == ["haproxy"]
    assert users["prometheus-local"] == users["alertmanager-local"] == ["prometheus"]
    assert not re.search(
        r"^(ARG|ENV).*(PROXY|INDEX_URL|PASSWORD|SECRET)", dockerfile, flags=re.MULTILINE | re.IGNORECASE
    )


def test_both_generations_of_compose_read_the_file() -> None:
    # Compose 1.29 knows no top-level `name`, Compose 2 calls `version` obsolete.
    top = {key for key in compose_file.as_written() if not key.startswith("x-")}
    assert top == {"services", "networks", "volumes"}
