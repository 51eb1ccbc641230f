"""Everything that one stack runs, and in which order: the one list that all commands work on."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from local_stack.airflow import ADMIN, API_SERVER, CLEANING, DAG_PROCESSOR, SCHEDULER, TRIGGERER, Airflow
from local_stack.balancer import BalancerProcess, installed_balancer
from local_stack.celery_workers import REDIS, CeleryWorkers, Redis
from local_stack.configuration import Balancer, Database, StackConfiguration, StackVariables
from local_stack.elasticmq import ElasticMq
from local_stack.fleet import FLEET, fleet_program
from local_stack.ingest_nodes import IngestNode
from local_stack.lake_environment import AnalysisService, env_file_text, lake_environment
from local_stack.layout import Layout
from local_stack.monitoring import EXPORTER, Monitoring, installed_prometheus
from local_stack.postgres import Postgres, choose_database, find_binaries, unprivileged_user
from local_stack.program import LOOPBACK, Program, Step
from local_stack.seaweedfs import SeaweedFs
from local_stack.secret_files import secret
from local_stack.watch import watcher_program
from local_stack.web_pages import WEB, WebPages
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE, AccessKey, Role

CREATE_TABLES: Final = "create-tables"
AIRFLOW_LOGIN_FILE: Final = "airflow_admin_password"
JOB_NICENESS: Final = 19
"""Of Spark jobs: they give way to the drain."""
ROLES_OF_INGEST: Final = (Role.NODE,)
ROLES: Final[Mapping[str, tuple[Role, ...]]] = {
    CREATE_TABLES: (Role.MAINTENANCE,),
    API_SERVER: (Role.WEB,),
    # It tries scripts that are being written.
    WEB: (Role.WEB, Role.ANALYSES, Role.SCRIPT),
    # These two need settings and no rights: one reads the DAGs, the other cleans Airflow's own database.
    DAG_PROCESSOR: (),
    CLEANING: (),
    TRIGGERER: (Role.DOORBELL,),
    EXPORTER: (Role.MONITOR,),
    # Its tasks are processes of the same user: each acts as what it is.
    SCHEDULER: (
        *(Role.DRAIN, Role.JOBS, Role.MAINTENANCE, Role.ANALYST, Role.SCRIPT),
        *(Role.ANALYSES, Role.ANOMALIES),
    ),
}
"""As what the programs act that use the lake, besides ingest nodes."""

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
    pages: WebPages
    monitoring: Monitoring

    @property
    def programs(self) -> list[Program]:
        """The long-running programs of the items."""
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
    """Choose what a stack consists of, by its variables and by what is installed on this machine.

    Raises ConfigurationError when the variables name PostgreSQL and it cannot be run.
    """
    database, reason = choose_database(layout.data("postgres"))
    if variables.database is Database.SQLITE:
        database, reason = Database.SQLITE, "LOCAL_STACK_DATABASE says so"
    elif variables.database is Database.POSTGRESQL and database is not Database.POSTGRESQL:
        raise ConfigurationError(f"LOCAL_STACK_DATABASE asks for PostgreSQL, and {reason}")
    return StackConfiguration(
        variables=variables,
        database=database,
        database_reason=reason,
        balancer=variables.balancer or installed_balancer(),
        prometheus=installed_prometheus() if variables.prometheus is None else variables.prometheus,
        fleet=fleet,
        foreground=foreground,
        only=only,
    )


def make_plan(layout: Layout, configuration: StackConfiguration) -> Plan:
    """Plan the programs and steps of `configuration`. Makes missing secrets and writes nothing else.

    Raises ConfigurationError when something that the stack cannot do without is not installed, or when
    `configuration.only` names a program that does not exist.
    """
    variables = configuration.variables
    _forget_the_key_of_everything(layout)
    s3, sqs = _seaweedfs(layout, variables), _elasticmq(layout, variables)
    compaction = sqs.compaction()
    services: tuple[Item, ...] = (s3.program(), *_some(compaction), sqs.program(after=_names(compaction)))
    nodes, ingest_url, edge = _edge(layout, configuration)
    airflow, airflow_items = _airflow(layout, configuration)
    monitoring = _monitoring(layout, variables, nodes)
    pages = WebPages(
        port=variables.web_port,
        cubes_directory=layout.data("web"),
        users_file=layout.data("analyses") / "users.json",
        project_root=PROJECT_ROOT,
        log_file=layout.log(WEB),
        node_urls=tuple(node.private_url for node in nodes),
        exporter_url=monitoring.exporter_url.removesuffix("/metrics"),
        prometheus_url=monitoring.prometheus_url if configuration.prometheus else None,
        alertmanager_url=monitoring.alertmanager_url if configuration.prometheus else None,
    )
    users: list[Item] = [
        *(_tables(layout), *edge, pages.program(after=("seaweedfs",)), *airflow_items),
        monitoring.exporter(after=("seaweedfs", "elasticmq")),
    ]
    environment = partial(
        lake_environment,
        s3,
        sqs,
        trusted_proxies=0 if configuration.balancer is Balancer.NONE else 1,
        job_niceness=JOB_NICENESS,
        service=AnalysisService(
            url=pages.url,
            airflow_url=airflow.url,
            airflow_user=ADMIN,
            airflow_password=airflow.admin_password,
        ),
    )
    roles = dict(ROLES)
    if airflow.workers is not None:
        # Its tasks run elsewhere.
        roles |= dict.fromkeys(airflow.workers.names, ROLES[SCHEDULER]) | {SCHEDULER: ()}
    items: list[Item] = [*services, *(_with_keys(item, roles, layout, environment) for item in users)]
    if configuration.prometheus:
        items += monitoring.servers()
    if configuration.fleet:
        items.append(_fleet(layout, variables, target_url=ingest_url, after=(edge[-1].name,)))
    selected = _needed_by(items, configuration.only) if configuration.only else items
    return Plan(
        layout=layout,
        configuration=configuration,
        items=(*selected, watcher_program(layout, project_root=PROJECT_ROOT)),
        lake_environment=environment(),
        s3=s3,
        sqs=sqs,
        nodes=nodes,
        ingest_url=ingest_url,
        airflow_url=airflow.url,
        pages=pages,
        monitoring=monitoring,
    )


def _seaweedfs(layout: Layout, variables: StackVariables) -> SeaweedFs:
    return SeaweedFs(
        data_directory=layout.data("seaweedfs"),
        configuration_file=layout.secrets / "seaweedfs.json",
        log_file=layout.log("seaweedfs"),
        s3_port=variables.s3_port,
        catalog_port=variables.catalog_port,
        first_internal_port=variables.seaweedfs_internal_port,
        role_keys={
            role: AccessKey(
                access_key_id=f"telemetry-lake-{role}",
                secret_access_key=SecretStr(secret(layout.secrets, f"s3_secret_of_{role}")),
            )
            for role in Role
        },
        inner_secret=secret(layout.secrets, "seaweedfs_inner_secret"),
    )


def _elasticmq(layout: Layout, variables: StackVariables) -> ElasticMq:
    return ElasticMq(
        data_directory=layout.data("elasticmq"),
        log_file=layout.log("elasticmq"),
        jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
        port=variables.sqs_port,
    )


def _tables(layout: Layout) -> Step:
    return Step(
        name=CREATE_TABLES,
        command=(sys.executable, "-m", "telemetry_lake", "create-tables"),
        directory=PROJECT_ROOT,
        log_file=layout.log(CREATE_TABLES),
        after=("seaweedfs",),
    )


def _edge(
    layout: Layout, configuration: StackConfiguration
) -> tuple[tuple[IngestNode, ...], str, list[Item]]:
    """Return the ingest nodes, the URL to which clients submit, and all that runs for that."""
    has_balancer = configuration.balancer is not Balancer.NONE
    nodes = _nodes(layout, configuration.variables, two=has_balancer)
    items: list[Item] = [node.program(after=("seaweedfs", "elasticmq")) for node in nodes]
    if not has_balancer:
        return nodes, nodes[0].url, items
    balancer = _balancer(layout, configuration, nodes)
    return nodes, balancer.url, [*items, balancer.program(after=tuple(node.name for node in nodes))]


def _nodes(layout: Layout, variables: StackVariables, *, two: bool) -> tuple[IngestNode, ...]:
    # Without a balancer, the one node stands where clients expect the balancer.
    places = (
        [
            (variables.node_1_port, "LOCAL_STACK_NODE_1_PORT", variables.node_1_private_port),
            (variables.node_2_port, "LOCAL_STACK_NODE_2_PORT", variables.node_2_private_port),
        ]
        if two
        else [(variables.balancer_port, "LOCAL_STACK_BALANCER_PORT", variables.node_1_private_port)]
    )
    return tuple(
        IngestNode(
            node=f"node-{number}",
            port=port,
            port_variable=port_variable,
            private_port=private_port,
            private_port_variable=f"LOCAL_STACK_NODE_{number}_PRIVATE_PORT",
            spool_directory=layout.spool(f"node-{number}"),
            project_root=PROJECT_ROOT,
            log_file=layout.log(f"ingest-node-{number}"),
        )
        for number, (port, port_variable, private_port) in enumerate(places, start=1)
    )


def _balancer(
    layout: Layout, configuration: StackConfiguration, nodes: tuple[IngestNode, ...]
) -> BalancerProcess:
    return BalancerProcess(
        kind=configuration.balancer,
        port=configuration.variables.balancer_port,
        nodes=nodes,
        directory=layout.data("balancer"),
        log_file=layout.log("balancer"),
    )


def _airflow(
    layout: Layout,
    configuration: StackConfiguration,
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
                "PostgreSQL was installed when the stack was started, and is not any more: "
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
        workers=_workers(layout, configuration, database_url),
    )
    if airflow.workers is not None:
        items.append(airflow.workers.redis.program())
    migration = airflow.migration(database_is_new=database_is_new, after=database)
    items.extend(_some(migration))
    items.extend(
        airflow.programs(database=(*database, *_names(migration)), after=("elasticmq", CREATE_TABLES))
    )
    return airflow, items


def _monitoring(layout: Layout, variables: StackVariables, nodes: tuple[IngestNode, ...]) -> Monitoring:
    return Monitoring(
        exporter_port=variables.exporter_port,
        prometheus_port=variables.prometheus_port,
        alertmanager_port=variables.alertmanager_port,
        nodes=nodes,
        web_url=f"http://{LOOPBACK}:{variables.web_port}",
        layout=layout,
        project_root=PROJECT_ROOT,
    )


def _workers(layout: Layout, configuration: StackConfiguration, database_url: str) -> CeleryWorkers | None:
    variables = configuration.variables
    if not variables.workers:
        return None
    if configuration.database is not Database.POSTGRESQL:
        raise ConfigurationError(
            f"Celery workers need PostgreSQL for Airflow's database, and this stack has SQLite "
            f"({configuration.database_reason}): install postgresql, or start it without workers"
        )
    redis = Redis(
        data_directory=layout.data(REDIS),
        log_file=layout.log(REDIS),
        port=variables.redis_port,
        password=secret(layout.secrets, "redis_password"),
    )
    return CeleryWorkers(count=variables.workers, redis=redis, result_backend=database_url)


def _fleet(layout: Layout, variables: StackVariables, *, target_url: str, after: tuple[str, ...]) -> Program:
    return fleet_program(
        project_root=PROJECT_ROOT,
        log_file=layout.log(FLEET),
        target_url=target_url,
        pings_per_second=variables.fleet_pings_per_second,
        after=after,
    )


def _needed_by(items: Sequence[Item], names: Iterable[str]) -> list[Item]:
    by_name = {item.name: item for item in items}
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            raise ConfigurationError(
                f"--only names {name}, which is not in the stack: it has {', '.join(by_name)}"
            )
        if name not in needed:
            needed.add(name)
            waiting.extend(by_name[name].after)
    return [item for item in items if item.name in needed]


def _with_keys(
    item: Item,
    roles_of: Mapping[str, tuple[Role, ...]],
    layout: Layout,
    environment: Callable[[Iterable[Role]], Mapping[str, str]],
) -> Item:
    """Return `item` with a settings file that holds the keys of its roles, if it uses the lake.

    `environment` gives the settings of processes that act in some roles.
    """
    roles = ROLES_OF_INGEST if item.name.startswith("ingest-") else roles_of.get(item.name)
    if roles is None:
        return item
    file = layout.settings_file(item.name)
    return replace(
        item,
        environment={ENV_FILE_VARIABLE: str(file), **item.environment},
        files={**item.files, file: env_file_text(environment(roles))},
    )


def _forget_the_key_of_everything(layout: Layout) -> None:
    """Remove the secret of the one key that earlier versions had for all programs."""
    (layout.secrets / "s3_secret_access_key").unlink(missing_ok=True)


def _some(step: Step | None) -> tuple[Step, ...]:
    return () if step is None else (step,)


def _names(step: Step | None) -> tuple[str, ...]:
    return () if step is None else (step.name,)
