"""The one place that makes a Spark session, and that says in one line what Spark says in two hundred.

Started as a plain program, Spark runs on this machine with the jars of `java/lib/spark`: nothing is looked
up or downloaded. Started by `spark-submit`, on EMR for example, master, memory and jars are what that was
told; only the catalog, its SQL extensions and UTC are set here. From a clone, spark-submit needs the jars:
`spark-submit --driver-class-path 'java/lib/spark/*' jobs/count_pings.py`.

Catalog properties hold credentials. They are set when the JVM already runs, because before they would be
arguments of its command line, which every user of the machine can read.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from jobs import python_workers
from telemetry_lake.failures import AccessRefused, ConfigurationError, FatalError, RetriableError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import key_properties

JARS_DIRECTORY: Final = PROJECT_ROOT / "java" / "lib" / "spark"
LOG_CONFIGURATION: Final = Path(__file__).with_name("log4j2.properties")
LOCAL_DRIVER_MEMORY: Final = "2g"
LOCAL_SHUFFLE_PARTITIONS: Final = 8
"""Spark's default of 200 is for clusters; on one machine a partition costs more than it carries."""
SHORT_JOB_JAVA_OPTIONS: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Leave out the JVM's optimising compiler, which takes most of the time of a short job."""

_EXTENSIONS: Final = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
_AWAY: Final = (
    "Connection refused",
    "ServiceFailureException",
    "ServiceUnavailableException",
    "SocketTimeoutException",
    "Unable to execute HTTP request",
)
"""What the causes of a failure contain when the catalog or the object store is unavailable."""
_REFUSED: Final = ("ForbiddenException", "NotAuthorizedException", "AccessDenied", "Status Code: 403")
"""What they contain when the catalog or the object store refuses the job's key."""
_CONFLICT: Final = (
    "CommitFailedException",
    "ValidationException: Found conflicting",
    "ValidationException: Found new conflicting",
    "ValidationException: Missing required files to delete",
    "ValidationException: Cannot determine history between",
    "CommitStateUnknownException",
)


def open_session(
    settings: Settings,
    name: str,
    *,
    short: bool = False,
    debug: bool = False,
    worker_imports: Sequence[str] = (),
) -> SparkSession:
    """Return a session in which `SELECT … FROM live.pings` finds the lake's tables.

    `name` is shown in Spark's and EMR's user interfaces. `short` is for jobs that take seconds: on this
    machine they need half the CPU time to start, at the price of slower long loops. `debug` leaves Spark's
    own logs as they are. `worker_imports` are modules that Python workers will need; on this machine they are
    imported once for all of them. Raises ConfigurationError when the jars, Java or the catalog's properties
    are missing.
    """
    if not settings.catalog.spark_properties:
        raise ConfigurationError(
            "no Iceberg catalog is configured for Spark: start the local stack (make run), or set "
            "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES to the JSON of its properties"
        )
    builder = SparkSession.builder.appName(name)
    local = {} if _started_by_spark_submit() else _local(worker_imports, short=short, debug=debug)
    for key, value in (_common() | local).items():
        builder = builder.config(key, value)
    # Python workers run this interpreter; Spark would take the `python3` of the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # noqa: TID251 (pyspark reads it there only)
    with spark_failures():
        session = builder.getOrCreate()
    catalog = f"spark.sql.catalog.{settings.catalog.name}"
    session.conf.set(catalog, "org.apache.iceberg.spark.SparkCatalog")
    for key, value in (key_properties(settings) | settings.catalog.spark_properties).items():
        session.conf.set(f"{catalog}.{key}", value)
    session.conf.set("spark.sql.defaultCatalog", settings.catalog.name)
    # pyspark logs every refused query as JSON with the whole trace, besides raising it.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.DEBUG if debug else logging.CRITICAL + 1)
    return session


@contextmanager
def spark_failures() -> Iterator[None]:
    """Turn what Spark raises into a FatalError or a RetriableError of one line."""
    try:
        yield
    except AnalysisException as error:
        message = str(error).splitlines()[0]
        hint = ". `python -m telemetry_lake create-tables` makes the tables" if "NOT_FOUND" in message else ""
        raise FatalError(f"Spark refuses a query: {message}{hint}") from error
    except (PySparkException, Py4JError) as error:
        causes = _causes(error)
        if "JAVA_GATEWAY_EXITED" in causes[0]:
            raise ConfigurationError(
                "Spark's JVM does not start: is Java 17 installed (java -version)?"
            ) from error
        if refused := next((cause for cause in causes for sign in _REFUSED if sign in cause), None):
            raise AccessRefused.to(
                "reading or writing a table", "this job lacks a right, or its key is wrong", refused
            ) from error
        if any(sign in cause for cause in causes for sign in _AWAY):
            raise RetriableError(
                f"the Iceberg catalog or the object store does not answer ({causes[-1]}). `make run` starts "
                "the local stack, `make status` shows what runs"
            ) from error
        if any(sign in cause for cause in causes for sign in _CONFLICT):
            raise RetriableError(
                f"the table was changed meanwhile; run the job again ({causes[-1]})"
            ) from error
        raise FatalError(f"Spark failed: {causes[-1]}") from error


def _common() -> dict[str, str]:
    return {"spark.sql.extensions": _EXTENSIONS, "spark.sql.session.timeZone": "UTC"}


def _local(worker_imports: Sequence[str], *, short: bool, debug: bool) -> dict[str, str]:
    if not any(JARS_DIRECTORY.glob("iceberg-spark-runtime-*.jar")):
        raise ConfigurationError(f"Spark's jars are not in {JARS_DIRECTORY}: run `make install`")
    java_options = [] if debug else [f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}"]
    if short:
        java_options += SHORT_JOB_JAVA_OPTIONS
    return {
        "spark.master": "local[*]",
        # spark.jars would do as well, but copies its 115 MB at every start.
        "spark.driver.extraClassPath": f"{JARS_DIRECTORY}/*",
        "spark.driver.memory": LOCAL_DRIVER_MEMORY,
        "spark.sql.shuffle.partitions": str(LOCAL_SHUFFLE_PARTITIONS),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        # Python workers find our modules although the program was started as a file, from any folder.
        "spark.executorEnv.PYTHONPATH": str(PROJECT_ROOT),
        "spark.python.daemon.module": python_workers.DAEMON_MODULE,
        f"spark.executorEnv.{python_workers.IMPORTS}": ",".join(worker_imports),
        # The bar redraws its line, which only a terminal can show.
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
        "spark.driver.extraJavaOptions": " ".join(java_options),
    }


def _started_by_spark_submit() -> bool:
    return "PYSPARK_GATEWAY_PORT" in os.environ  # noqa: TID251 (set by spark-submit, no setting of ours)


def _causes(error: PySparkException | Py4JError) -> list[str]:
    """Return the first line of the error and of each of its causes in Java, outermost first."""
    java = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    lines = [] if java is not None else [str(error)]
    while java is not None:
        lines.append(str(java.toString()))
        java = java.getCause()
    return [line.strip().splitlines()[0] for line in lines if line.strip()] or [type(error).__name__]
