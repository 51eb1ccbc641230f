"""`python -m web`: the web pages. Settings come from the environment; options win over it."""

import argparse
import sys
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings, load_settings
from telemetry_lake.units import MIB

HEAD_MAX_BYTES: Final = 2 * MIB
"""A request whose first line is longer than `url_max_bytes` is answered with a sentence up to this size."""
CONNECTIONS_MAX_COUNT: Final = 512
STOP_ANSWER_SECONDS: Final = 5


def main() -> int:
    """Serve until SIGTERM, and return the exit status."""
    arguments = _parser().parse_args()
    try:
        settings = _with_options(load_settings(arguments.env_file), arguments)
        import uvicorn

        from web.application import create_app

        application = create_app(settings)
    except ConfigurationError as error:
        print(f"web: {error}", file=sys.stderr)
        return 1
    uvicorn.run(
        application,
        host=settings.web.host,
        port=settings.web.port,
        http="h11",
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        limit_concurrency=CONNECTIONS_MAX_COUNT,
        timeout_graceful_shutdown=STOP_ANSWER_SECONDS,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m web",
        description="The web pages: distributions and evolutions of metrics, the analysis service, and the "
        "operations page. Every setting is TELEMETRY_LAKE_WEB__<NAME>; see docs/dashboard.md, "
        "docs/analyses.md and docs/operations.md.",
    )
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--env-file", type=Path, help="a file with settings, one NAME=value a line")
    return parser


def _with_options(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """Return the settings with the options of the command line in them; raises ConfigurationError."""
    from pydantic import ValidationError

    given = {name: value for name in ("host", "port") if (value := getattr(arguments, name)) is not None}
    try:
        # Without defaults: what was set on purpose stays told from what was not.
        web = type(settings.web).model_validate({**settings.web.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(f"--{'-'.join(map(str, first['loc']))}: {first['msg']}") from error
    return settings.model_copy(update={"web": web})


if __name__ == "__main__":
    sys.exit(main())
