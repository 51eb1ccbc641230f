"""Everything that one stack runs, and in which order: the one list that all commands work on."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from local_stack.airflow import Airflow, aws_connection
from local_stack.balancer import BalancerProcess, installed_balancer
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.elasticmq import REGION, ElasticMq
from local_stack.fleet import FLEET, fleet_program
from local_stack.ingest_nodes import IngestNode
from local_stack.lake_environment import lake_environment
from local_stack.layout import Layout
from local_stack.postgres import Postgres, choose_database, find_binaries, unprivileged_user
from local_stack.program import Program, Step
from local_stack.seaweedfs import SeaweedFs
from local_stack.secret_files import secret
from local_stack.watch import watcher_program
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ENV_FILE_VARIABLE, PROJECT_ROOT

CREATE_TABLES: Final = "create-tables"
ACCESS_KEY_ID: Final = "telemetry-lake"
AIRFLOW_LOGIN_FILE: Final = "airflow_admin_password"

Item = Program | Step


@dataclass(frozen=True, slots=True)
class Plan:
    """The programs and steps of one stack, everything after what it needs, and where it can be reached."""

    layout: Layout
    configuration: StackConfiguration
    items: tuple[Item, ...]
    lake_environment: Mapping[str, str]
    """The settings of the lake; holds its keys."""
    s3: SeaweedFs
    sqs: ElasticMq
    nodes: tuple[IngestNode, ...]
    ingest_url: str
    airflow_url: str

    @property
    def programs(self) -> list[Program]:
        """The long-running ones."""
        return [item for item in self.items if isinstance(item, Program)]

    @property
    def airflow_password_file(self) -> Path:
        """Where the generated password of Airflow's `admin` is."""
        return self.layout.secrets / AIRFLOW_LOGIN_FILE


def detect(
    layout: Layout,
    variables: StackVariables,
    *,
    fleet: bool,
    foreground: bool,
    only: tuple[str, ...] = (),
) -> StackConfiguration:
    """What a stack started now consists of, given what is asked for and what is installed on this machine.

    Raises ConfigurationError when PostgreSQL is asked for and cannot be run.
    """
    database, reason = choose_database(layout.data("postgres"))
    if variables.database is Database.SQLITE:
        database, reason = Database.SQLITE, "asked for"
    elif variables.database is Database.POSTGRESQL and database is not Database.POSTGRESQL:
        raise ConfigurationError(f"LOCAL_STACK_DATABASE asks for PostgreSQL, and {reason}")
    return StackConfiguration(
        variables=variables,
        database=database,
        database_reason=reason,
        balancer=variables.balancer or installed_balancer(),
        fleet=fleet,
        foreground=foreground,
        only=only,
    )


def plan(layout: Layout, configuration: StackConfiguration) -> Plan:
    """What `configuration` comes down to. Makes missing secrets and writes nothing else.

    Raises ConfigurationError when something that the stack cannot do without is not installed, or when
    `configuration.only` names something that is not there.
    """
    variables = configuration.variables
    s3 = SeaweedFs(
        data_directory=layout.data("seaweedfs"),
        configuration_file=layout.secrets / "seaweedfs.json",
        log_file=layout.log("seaweedfs"),
        s3_port=variables.s3_port,
        catalog_port=variables.catalog_port,
        first_internal_port=variables.seaweedfs_internal_port,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=secret(layout.secrets, "s3_secret_access_key"),
    )
    sqs = ElasticMq(
        data_directory=layout.data("elasticmq"),
        log_file=layout.log("elasticmq"),
        jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
        port=variables.sqs_port,
    )
    # Programs read the settings from the file, as every other command does.
    environment = {ENV_FILE_VARIABLE: str(layout.env_file)}
    compaction = sqs.compaction()
    services: tuple[Item, ...] = (s3.program(), *_some(compaction), sqs.program(after=_names(compaction)))
    tables = Step(
        name=CREATE_TABLES,
        command=(sys.executable, "-m", "telemetry_lake", "create-tables"),
        directory=PROJECT_ROOT,
        log_file=layout.log(CREATE_TABLES),
        environment=environment,
        after=("seaweedfs",),
    )
    nodes = _nodes(layout, variables, two=configuration.balancer is not Balancer.NONE)
    edge: list[Item] = [_with(node.program(after=("seaweedfs", "elasticmq")), environment) for node in nodes]
    ingest_url, entrance = nodes[0].url, nodes[0].name
    if configuration.balancer is not Balancer.NONE:
        balancer = BalancerProcess(
            kind=configuration.balancer,
            port=variables.balancer_port,
            nodes=nodes,
            directory=layout.data("balancer"),
            log_file=layout.log("balancer"),
        )
        ingest_url, entrance = balancer.url, "balancer"
        edge.append(balancer.program(after=tuple(node.name for node in nodes)))
    airflow, airflow_items = _airflow(layout, configuration, s3, sqs, environment)
    items: list[Item] = [*services, tables, *edge, *airflow_items]
    if configuration.fleet:
        items.append(
            fleet_program(
                project_root=PROJECT_ROOT,
                log_file=layout.log(FLEET),
                target_url=ingest_url,
                pings_per_second=variables.fleet_pings_per_second,
                after=(entrance,),
            )
        )
    wanted = _needed_by(items, configuration.only) if configuration.only else items
    return Plan(
        layout=layout,
        configuration=configuration,
        items=(*wanted, watcher_program(layout, project_root=PROJECT_ROOT)),
        lake_environment=lake_environment(s3, sqs),
        s3=s3,
        sqs=sqs,
        nodes=nodes,
        ingest_url=ingest_url,
        airflow_url=airflow.url,
    )


def _nodes(layout: Layout, variables: StackVariables, *, two: bool) -> tuple[IngestNode, ...]:
    # Without a balancer, the one node stands where clients expect the balancer.
    places = (
        [
            ("node-1", variables.node_1_port, "LOCAL_STACK_NODE_1_PORT"),
            ("node-2", variables.node_2_port, "LOCAL_STACK_NODE_2_PORT"),
        ]
        if two
        else [("node-1", variables.balancer_port, "LOCAL_STACK_BALANCER_PORT")]
    )
    return tuple(
        IngestNode(
            node=node,
            port=port,
            port_variable=port_variable,
            spool_directory=layout.spool(node),
            project_root=PROJECT_ROOT,
            log_file=layout.log(f"ingest-{node}"),
        )
        for node, port, port_variable in places
    )


def _airflow(
    layout: Layout,
    configuration: StackConfiguration,
    s3: SeaweedFs,
    sqs: ElasticMq,
    environment: Mapping[str, str],
) -> tuple[Airflow, list[Item]]:
    home = layout.data("airflow")
    items: list[Item] = []
    database: tuple[str, ...] = ()
    database_is_new = not (home / "airflow.db").exists()
    database_url = f"sqlite:///{home / 'airflow.db'}"
    if configuration.database is Database.POSTGRESQL:
        binaries = find_binaries()
        if binaries is None:
            raise ConfigurationError(
                "PostgreSQL was there when the stack was started, and is not any more: "
                "install it again, or stop and start the stack to go on with SQLite"
            )
        postgres = Postgres(
            data_directory=layout.data("postgres"),
            log_file=layout.log("postgres"),
            binaries=binaries,
            port=configuration.variables.postgres_port,
            password=secret(layout.secrets, "postgres_password"),
            user=unprivileged_user(),
        )
        initialisation = postgres.initialisation()
        server = postgres.program(after=_names(initialisation))
        items = [*_some(initialisation), server]
        database_url = f"postgresql+psycopg2://{postgres.address}"
        database = (server.name,)
        database_is_new = initialisation is not None
    airflow = Airflow(
        home=home,
        logs_directory=layout.logs / "airflow",
        log_of=layout.log,
        project_root=PROJECT_ROOT,
        port=configuration.variables.airflow_port,
        database_url=database_url,
        admin_password=secret(layout.secrets, AIRFLOW_LOGIN_FILE),
        secret=secret(layout.secrets, "airflow_secret"),
        environment={
            **environment,
            "AIRFLOW_CONN_AWS_DEFAULT": aws_connection(
                access_key_id=s3.access_key_id,
                secret_access_key=s3.secret_access_key,
                region=REGION,
                s3_url=s3.s3_url,
                sqs_url=sqs.url,
            ),
        },
    )
    migration = airflow.migration(database_is_new=database_is_new, after=database)
    items.extend(_some(migration))
    items.extend(
        airflow.programs(database=(*database, *_names(migration)), after=("elasticmq", CREATE_TABLES))
    )
    return airflow, items


def _needed_by(items: Sequence[Item], names: Iterable[str]) -> list[Item]:
    by_name = {item.name: item for item in items}
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            raise ConfigurationError(f"nothing in the stack is called {name}; there are {', '.join(by_name)}")
        if name not in needed:
            needed.add(name)
            waiting.extend(by_name[name].after)
    return [item for item in items if item.name in needed]


def _with(program: Program, environment: Mapping[str, str]) -> Program:
    return replace(program, environment={**environment, **program.environment})


def _some(step: Step | None) -> tuple[Step, ...]:
    return () if step is None else (step,)


def _names(step: Step | None) -> tuple[str, ...]:
    return () if step is None else (step.name,)
