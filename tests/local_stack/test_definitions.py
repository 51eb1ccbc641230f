"""What the stack is made of, before anything is started."""

import json
import re
import socket
import stat
import subprocess
from configparser import RawConfigParser
from dataclasses import replace
from pathlib import Path

import pytest

from lake_testing.stack import free_ports
from local_stack.balancer import BalancerProcess, installed_balancer
from local_stack.bring_up import needs_of
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.display import places_to_go
from local_stack.elasticmq import ElasticMq, queues_not_restored
from local_stack.ingest_nodes import IngestNode
from local_stack.lake_environment import env_file_text
from local_stack.launch import describe
from local_stack.layout import SOCKET_PATH_MAX_BYTES, Layout
from local_stack.monitoring import ALERTMANAGER, PROMETHEUS, installed_prometheus
from local_stack.plan import Plan, make_plan
from local_stack.ports import check_ports_are_free
from local_stack.program import LOOPBACK, Program, find_server, write_files
from local_stack.secret_files import secret
from local_stack.supervision import ProcessState, supervisor_configuration
from local_stack.watch import FAILURES_BEFORE_RESTART, FailureCounts
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE, Role, load_settings


def configuration(
    *, balancer: Balancer = Balancer.NONE, prometheus: bool = False, only: tuple[str, ...] = ()
) -> StackConfiguration:
    return StackConfiguration(
        variables=StackVariables(),
        database=Database.SQLITE,
        database_reason="a test says so",
        balancer=balancer,
        prometheus=prometheus,
        fleet=True,
        foreground=True,
        only=only,
    )


with_prometheus = pytest.mark.skipif(
    not installed_prometheus(), reason="Debian's prometheus and prometheus-alertmanager are not installed"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "stack")


@pytest.fixture
def whole(layout: Layout) -> Plan:
    return make_plan(layout, configuration())


def test_everything_comes_after_what_it_needs(whole: Plan) -> None:
    seen: set[str] = set()
    for item in whole.items:
        assert seen.issuperset(item.after), item.name
        seen.add(item.name)


def test_a_stop_ends_clients_before_ingest_before_storage(whole: Plan) -> None:
    needs = needs_of(whole)
    assert "ingest-node-1" in needs["client-fleet"]
    assert {"seaweedfs", "elasticmq"} <= set(needs["ingest-node-1"])
    assert {"seaweedfs", "elasticmq"} <= set(needs["airflow-scheduler"]), (
        "through the step that creates tables"
    )
    assert needs["seaweedfs"] == []


def test_only_brings_what_it_needs_and_nothing_else(layout: Layout) -> None:
    names = [program.name for program in make_plan(layout, configuration(only=("ingest-node-1",))).programs]
    assert names == ["seaweedfs", "elasticmq", "ingest-node-1", "watcher"]
    with pytest.raises(
        ConfigurationError, match=r"--only names s3, which is not in the stack: it has .*seaweedfs"
    ):
        make_plan(layout, configuration(only=("s3",)))


def test_two_nodes_stand_behind_a_balancer_and_one_stands_in_its_place(layout: Layout) -> None:
    alone = make_plan(layout, configuration())
    assert [node.port for node in alone.nodes] == [StackVariables().balancer_port]
    both = make_plan(layout, configuration(balancer=installed_balancer()))
    if installed_balancer() is not Balancer.NONE:
        assert [node.port for node in both.nodes] == [
            StackVariables().node_1_port,
            StackVariables().node_2_port,
        ]
    assert both.ingest_url == alone.ingest_url


def test_the_lake_believes_its_own_balancer_and_nobody_else(layout: Layout) -> None:
    trusted = "TELEMETRY_LAKE_CONVERSION__TRUSTED_PROXIES"
    assert make_plan(layout, configuration()).lake_environment[trusted] == "0"
    if installed_balancer() is not Balancer.NONE:
        behind = make_plan(layout, configuration(balancer=installed_balancer()))
        assert behind.lake_environment[trusted] == "1"


def test_no_secret_is_readable_for_others(whole: Plan, layout: Layout) -> None:
    commands = {item.name: describe(item, layout) for item in whole.items}
    keys = [path.read_text() for path in layout.secrets.iterdir() if path.suffix != ".json"]
    assert len(keys) >= 3
    for path in layout.root.rglob("*"):
        if path.is_file() and any(key in path.read_text() for key in keys):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o700
    shown = supervisor_configuration(layout, whole.programs, commands)
    assert not any(key in shown for key in keys)
    assert not any(key in " ".join(item.command) for key in keys for item in whole.items), (
        "`ps` shows commands"
    )


def test_a_program_gets_the_keys_of_its_roles_only(whole: Plan, layout: Layout) -> None:
    secrets = {role: key.secret_access_key.get_secret_value() for role, key in whole.s3.role_keys.items()}
    seen = {
        item.name: {
            role
            for role, value in secrets.items()
            if any(value in text for text in (*item.files.values(), *item.environment.values()))
        }
        for item in whole.items
        if item.name != "seaweedfs"
    }
    assert {name: roles for name, roles in seen.items() if roles} == {
        "create-tables": {Role.MAINTENANCE},
        **{node.name: {Role.NODE} for node in whole.nodes},
        "airflow-api-server": {Role.WEB},
        "airflow-triggerer": {Role.DOORBELL},
        "metrics-exporter": {Role.MONITOR},
        "web": {Role.WEB, Role.ANALYSES, Role.SCRIPT},
        "airflow-scheduler": {
            *(Role.DRAIN, Role.JOBS, Role.MAINTENANCE, Role.ANALYST, Role.SCRIPT),
            *(Role.ANALYSES, Role.ANOMALIES),
        },
    }
    # Without a file of its own a program would find that of the stack's owner.
    [parser] = [item for item in whole.items if item.name == "airflow-dag-processor"]
    assert parser.environment[ENV_FILE_VARIABLE] == str(layout.settings_file("airflow-dag-processor"))


def test_the_key_of_everything_of_an_earlier_version_is_removed(layout: Layout) -> None:
    old = secret(layout.secrets, "s3_secret_access_key")
    plan = make_plan(layout, configuration())
    assert not (layout.secrets / "s3_secret_access_key").exists()
    assert all(key.secret_access_key.get_secret_value() != old for key in plan.s3.role_keys.values())
    again = make_plan(layout, configuration())
    assert again.s3.role_keys == plan.s3.role_keys


def test_a_secret_is_made_once(layout: Layout) -> None:
    first = secret(layout.secrets, "one")
    assert secret(layout.secrets, "one") == first
    assert secret(layout.secrets, "other") != first


@with_prometheus
def test_prometheus_and_alertmanager_understand_their_configuration(layout: Layout) -> None:
    plan = make_plan(layout, configuration(prometheus=True))
    for name, check in (
        (PROMETHEUS, ("promtool", "check", "config")),
        (ALERTMANAGER, ("amtool", "check-config")),
    ):
        [program] = [program for program in plan.programs if program.name == name]
        write_files(program)
        [file] = [flag.partition("=")[2] for flag in program.command if flag.startswith("--config.file=")]
        checked = subprocess.run([*check, file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    targets = [
        target
        for job in plan.monitoring.prometheus_configuration()["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    assert sorted(targets) == sorted(
        f"{LOOPBACK}:{port}"
        for port in (
            *(plan.monitoring.exporter_port, plan.monitoring.alertmanager_port),
            *(node.private_port for node in plan.nodes),
        )
    )


@with_prometheus
def test_the_status_says_where_prometheus_is_or_how_to_get_it(layout: Layout) -> None:
    with_it, without = (
        dict(places_to_go(make_plan(layout, configuration(prometheus=prometheus))))
        for prometheus in (True, False)
    )
    assert with_it["Prometheus"] == "http://127.0.0.1:9090"
    assert with_it["Alertmanager"] == "http://127.0.0.1:9093"
    assert with_it["metrics"] == without["metrics"] == "http://127.0.0.1:9108/metrics"
    assert without["Prometheus"].endswith("apt-get install prometheus prometheus-alertmanager")
    assert "Alertmanager" not in without


@pytest.mark.parametrize("prometheus", [False, pytest.param(True, marks=with_prometheus)])
def test_every_program_listens_on_loopback(prometheus: bool, layout: Layout) -> None:
    whole = make_plan(layout, configuration(prometheus=prometheus))
    text = json.dumps(
        [(program.command, dict(program.environment)) for program in whole.programs], default=str
    )
    for program in whole.programs:
        text += "".join(program.files.values())
    assert not re.search(r"0\.0\.0\.0|\[::\]", text)
    assert "-master.telemetry=false" in text


def test_supervisord_reads_a_folder_with_a_percent_sign(layout: Layout) -> None:
    odd = Layout(layout.root / "50%s")
    odd_plan = make_plan(odd, configuration(only=("seaweedfs",)))
    commands = {item.name: ("python", "-m", str(odd.launch_file(item.name))) for item in odd_plan.items}
    parser = RawConfigParser()
    parser.read_string(supervisor_configuration(odd, odd_plan.programs, commands))
    assert parser["program:seaweedfs"]["stdout_logfile"] == str(odd.log("seaweedfs")).replace("%", "%%")
    assert parser["program:seaweedfs"]["autostart"] == "false"


def test_a_folder_too_deep_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * SOCKET_PATH_MAX_BYTES))
    with pytest.raises(ConfigurationError, match="too long for a Unix socket"):
        _ = deep.supervisor_socket


def test_the_settings_file_says_what_the_services_are(whole: Plan, tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text(env_file_text(whole.lake_environment))
    settings = load_settings(file)
    assert settings.s3.endpoint_url == whole.s3.s3_url
    assert settings.role_keys == whole.s3.role_keys
    assert settings.sqs.endpoint_url == whole.sqs.url
    assert (
        settings.catalog.properties["uri"] == settings.catalog.spark_properties["uri"] == whole.s3.catalog_url
    )
    with pytest.raises(ValueError, match="NAME"):
        env_file_text({"NAME": "it's"})


def test_ports_move_together_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_STACK_AIRFLOW_PORT", "9000")
    moved = StackVariables.load(port_offset=1_000)
    assert (moved.airflow_port, moved.s3_port) == (10_000, 9_333)
    assert moved.fleet_pings_per_second == StackVariables().fleet_pings_per_second
    with pytest.raises(ConfigurationError, match=r"LOCAL_STACK_S3_PORT .*--port-offset 60000"):
        StackVariables.load(port_offset=60_000)
    monkeypatch.setenv("LOCAL_STACK_AIRFLOW_PORT", "many")
    with pytest.raises(ConfigurationError, match=r"LOCAL_STACK_AIRFLOW_PORT.*'many'"):
        StackVariables.load()


def test_a_port_in_use_is_named_with_its_owner_and_the_way_out(whole: Plan) -> None:
    port = free_ports(1)
    wants_it = replace(whole.programs[0], ports={port: "LOCAL_STACK_S3_PORT"})
    check_ports_are_free([wants_it])
    with socket.create_server((LOOPBACK, port)), pytest.raises(ConfigurationError) as failure:
        check_ports_are_free([wants_it])
    message = str(failure.value)
    assert f"port {port} for seaweedfs is in use by process " in message
    assert "pytest" in message
    assert "set LOCAL_STACK_S3_PORT" in message
    assert "--port-offset" in message


def test_no_two_programs_want_the_same_port(layout: Layout) -> None:
    for balancer in (Balancer.NONE, installed_balancer()):
        ports = [
            port
            for program in make_plan(
                layout, configuration(balancer=balancer, prometheus=installed_prometheus())
            ).programs
            for port in program.ports
        ]
        assert len(ports) == len(set(ports))


@pytest.mark.parametrize(
    "kind, check",
    [(Balancer.HAPROXY, ("-c", "-f")), (Balancer.NGINX, ("-t", "-q", "-e", "stderr", "-c"))],
)
def test_the_balancer_understands_its_configuration(
    kind: Balancer, check: tuple[str, ...], tmp_path: Path
) -> None:
    binary = find_server(kind)
    if binary is None:
        pytest.skip(f"{kind} is not installed")
    nodes = [
        IngestNode(
            node=f"node-{number}",
            port=free_ports(1),
            port_variable="",
            private_port=free_ports(1),
            private_port_variable="",
            spool_directory=tmp_path / str(number),
            project_root=PROJECT_ROOT,
            log_file=tmp_path / "log",
        )
        for number in (1, 2)
    ]
    balancer = BalancerProcess(kind, free_ports(1), nodes, tmp_path / "balancer", tmp_path / "balancer.log")
    program = balancer.program(after=())
    write_files(program)
    (configuration_file,) = program.files
    result = subprocess.run(
        (binary, *check, str(configuration_file)), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_elasticmq_persists_at_once_and_moves_no_poison_messages_itself(whole: Plan) -> None:
    text = whole.sqs.configuration()
    assert "WRITE_DELAY=0" in text
    assert "redrive" not in text.lower()
    assert "deadLettersQueue" not in text


def test_the_queue_file_is_compacted_only_when_it_has_grown(tmp_path: Path) -> None:
    sqs = ElasticMq(tmp_path, tmp_path / "log", PROJECT_ROOT / "java" / "lib" / "elasticmq", 9324)
    assert sqs.compaction() is None
    sqs.message_file.touch()
    assert sqs.compaction() is None
    with sqs.message_file.open("r+b") as file:
        file.truncate(65 * 1024 * 1024)
    assert sqs.compaction() is not None


def test_messages_count_as_restored_only_when_the_last_start_says_so() -> None:
    life = "x - Starting ElasticMQ server (1.7.1) ...\n"
    restored = "x - Restored 2000 messages in queue raw-index\n"
    assert queues_not_restored(["raw-index"], life) == ["raw-index"]
    assert queues_not_restored(["raw-index"], life + restored) == []
    assert queues_not_restored(["raw-index"], life + restored + life) == ["raw-index"]
    assert queues_not_restored(["raw-index", "raw-index-dlq"], life + restored) == ["raw-index-dlq"]


def _state(program: Program, *, pid: int, uptime_seconds: int) -> dict[str, ProcessState]:
    return {program.name: ProcessState(program.name, "RUNNING", pid, uptime_seconds)}


def test_a_program_is_restarted_after_failures_in_a_row_and_not_while_it_starts(whole: Plan) -> None:
    program = whole.programs[0]
    counts = FailureCounts([program])
    sick = {program.name: "answers 503"}
    well: dict[str, str | None] = {program.name: None}
    starting = _state(program, pid=1, uptime_seconds=1)
    for _ in range(FAILURES_BEFORE_RESTART + 1):
        assert counts.due(starting, sick) == []
    assert counts.due(starting, well) == []
    for _ in range(FAILURES_BEFORE_RESTART - 1):
        assert counts.due(starting, sick) == [], "once healthy, it is not starting any more"
    assert counts.due(starting, well) == []
    for _ in range(FAILURES_BEFORE_RESTART - 1):
        assert counts.due(starting, sick) == []
    assert counts.due(starting, sick) == [program.name]
    never_healthy = _state(program, pid=2, uptime_seconds=int(program.ready_deadline_seconds))
    assert [counts.due(never_healthy, sick) for _ in range(FAILURES_BEFORE_RESTART)][-1] == [program.name]
