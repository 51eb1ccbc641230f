"""SeaweedFS and ElasticMQ in a container: the local stack's definitions, with the container's settings.

`embedded_service.py seaweedfs` (or `elasticmq`) becomes the service; with `--check` it is the container's
health check. Ports, keys, buckets and queues are those that `TELEMETRY_LAKE_…` tells the clients to use, so
that both sides agree by construction. SeaweedFS gets the keys of all roles, and the secret that only its own
parts know.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from local_stack.elasticmq import ElasticMq
from local_stack.program import Unhealthy, write_files
from local_stack.seaweedfs import SeaweedFs
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings, load_settings

ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - of the container; compose decides what is published where
FIRST_INTERNAL_PORT: Final = 9_330
DATA_DIRECTORY: Final = Path("/var/lib/telemetry_lake")
STATE_DIRECTORY: Final = Path("/tmp/telemetry_lake")  # noqa: S108 - a container's /tmp is its own
MAX_FAILED_CHECKS: Final = 3
"""After this many in a row a service that had been healthy is ended, for Docker to start it again."""
INNER_SECRET_VARIABLE: Final = "SEAWEEDFS_INNER_SECRET"
_PROCESS_ID: Final = "process_id"
_FAILED_CHECKS: Final = "failed_checks"


def seaweedfs(settings: Settings) -> SeaweedFs:
    """Return S3 and the Iceberg catalog as `settings` expects them, or raise ConfigurationError."""
    inner_secret = os.environ.get(INNER_SECRET_VARIABLE)  # noqa: TID251 - no setting of the lake
    if not settings.role_keys or not inner_secret:
        raise ConfigurationError(f"TELEMETRY_LAKE_ROLE_KEYS and {INNER_SECRET_VARIABLE} are needed")
    return SeaweedFs(
        data_directory=DATA_DIRECTORY / "seaweedfs",
        configuration_file=STATE_DIRECTORY / "s3.json",
        log_file=Path(os.devnull),
        s3_port=_port("TELEMETRY_LAKE_S3__ENDPOINT_URL", settings.s3.endpoint_url),
        catalog_port=_port(
            "uri in TELEMETRY_LAKE_CATALOG__PROPERTIES", settings.catalog.properties.get("uri")
        ),
        first_internal_port=FIRST_INTERNAL_PORT,
        role_keys=settings.role_keys,
        inner_secret=inner_secret,
        buckets=(settings.s3.raw_bucket, settings.s3.lake_bucket),
        table_bucket=urlsplit(settings.catalog.properties["warehouse"]).netloc,
        listen_host=ALL_ADDRESSES,
    )


def elasticmq(settings: Settings) -> ElasticMq:
    """Return the queues as `settings` expects them, or raise ConfigurationError."""
    return ElasticMq(
        data_directory=DATA_DIRECTORY / "elasticmq",
        log_file=Path(os.devnull),
        jars_directory=PROJECT_ROOT / "java" / "lib" / "elasticmq",
        port=_port("TELEMETRY_LAKE_SQS__ENDPOINT_URL", settings.sqs.endpoint_url),
        visibility_timeout_seconds=settings.sqs.visibility_timeout_seconds,
        queues=(settings.sqs.index_queue_name, settings.sqs.dead_letter_queue_name),
        listen_host=ALL_ADDRESSES,
    )


def run(service: SeaweedFs | ElasticMq) -> None:
    """Prepare the service, then become it."""
    if isinstance(service, ElasticMq) and (compaction := service.compaction()):
        subprocess.run(compaction.command, cwd=compaction.directory, check=True)
    program = service.program()
    write_files(program)
    # A container that is started again keeps its files, and the new process has not been healthy yet.
    STATE_DIRECTORY.mkdir(parents=True, exist_ok=True)
    (STATE_DIRECTORY / _FAILED_CHECKS).unlink(missing_ok=True)
    (STATE_DIRECTORY / _PROCESS_ID).write_text(str(os.getpid()), encoding="ascii")
    os.chdir(program.directory)
    environment = {**os.environ, **program.environment}  # noqa: TID251 - handed on, not read
    os.execvpe(program.command[0], program.command, environment)  # noqa: S606


def check(service: SeaweedFs | ElasticMq) -> None:
    """Raise Unhealthy; and end a service that was healthy once and has now failed several checks in a row.

    Docker starts a container again that ends, but not one that is merely unhealthy, as ElasticMQ stays
    once its storage has failed. SIGTERM comes first, SIGKILL with the next failed check.
    """
    failed_checks = STATE_DIRECTORY / _FAILED_CHECKS
    try:
        service.check_health()
        if isinstance(service, SeaweedFs):
            service.check_buckets()
    except Unhealthy:
        if failed_checks.is_file():
            failed = int(failed_checks.read_text(encoding="ascii")) + 1
            failed_checks.write_text(str(failed), encoding="ascii")
            if failed >= MAX_FAILED_CHECKS:
                process_id = int((STATE_DIRECTORY / _PROCESS_ID).read_text(encoding="ascii"))
                os.kill(process_id, signal.SIGTERM if failed == MAX_FAILED_CHECKS else signal.SIGKILL)
        raise
    failed_checks.write_text("0", encoding="ascii")


def _port(variable: str, url: str | None) -> int:
    port = urlsplit(url or "").port
    if port is None:
        raise ConfigurationError(f"{variable} must be a URL with a port, and is {url!r}")
    return port


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("service", choices=("seaweedfs", "elasticmq"))
    parser.add_argument("--check", action="store_true", help="ask the running service whether it is healthy")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        service = seaweedfs(settings) if arguments.service == "seaweedfs" else elasticmq(settings)
        if arguments.check:
            check(service)
        else:
            run(service)
    except (ConfigurationError, Unhealthy) as failure:
        sys.exit(f"{arguments.service}: {failure}")


if __name__ == "__main__":
    main()
