"""`python -m ingest_server`: one ingest node. Settings come from the environment; options win over it."""

import argparse
import resource
import sys
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Role, Settings, load_settings

FILES_BESIDES: Final = 64
"""Open files of a worker that are no connections, generously."""


def main() -> int:
    """Run one node until SIGTERM, and return the exit status."""
    arguments = _parser().parse_args()
    try:
        settings = _with_options(load_settings(arguments.env_file, role=Role.NODE), arguments)
        settings = with_possible_connections(settings)
        from ingest_server.logs import log_as
        from ingest_server.node import Node

        log_as("node")
        Node(settings).run()
    except ConfigurationError as error:
        print(f"ingest_server: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ingest_server",
        description="One ingest node: takes pings over HTTP, stores them durably, ships them to S3. "
        "Every setting is TELEMETRY_LAKE_INGEST__<NAME>; see docs/ingest_spec.md.",
    )
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--workers", type=int, help="accept workers, one core each")
    parser.add_argument(
        "--node", help="this node's name in object keys; unique, and the same after a restart"
    )
    parser.add_argument("--spool-directory", type=Path, help="where pings wait to be shipped")
    parser.add_argument("--env-file", type=Path, help="a file with settings, one NAME=value a line")
    return parser


def _with_options(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """Return the settings with the options of the command line in them; raises ConfigurationError."""
    from pydantic import ValidationError

    given = {
        name: getattr(arguments, name)
        for name in ("host", "port", "workers", "node", "spool_directory")
        if getattr(arguments, name) is not None
    }
    try:
        ingest = type(settings.ingest).model_validate({**settings.ingest.model_dump(), **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + "-".join(map(str, first["loc"])).replace("_", "-")
        raise ConfigurationError(f"{option}: {first['msg']}") from error
    return settings.model_copy(update={"ingest": ingest})


def with_possible_connections(settings: Settings) -> Settings:
    """Allow as many open descriptors as the system does, and return settings with no more connections.

    Raises ConfigurationError when there are too few for any.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    possible = most - FILES_BESIDES
    if possible >= settings.ingest.connections_max:
        return settings
    if possible <= 0:
        raise ConfigurationError(
            f"this system lets a process open {most} files, and the node needs more than {FILES_BESIDES}: "
            "raise the limit with `ulimit -n`"
        )
    ingest = settings.ingest.model_copy(update={"connections_max": possible})
    return settings.model_copy(update={"ingest": ingest})


if __name__ == "__main__":
    sys.exit(main())
