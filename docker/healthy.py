"""Health check of a container: is the answer of a URL 200, and does it call the component healthy?

`healthy.py URL` or `healthy.py URL --component scheduler`, for Airflow's `/api/v2/monitor/health`. Uses the
standard library alone, as it runs every few seconds in every container.
"""

import argparse
import json
import sys
import urllib.request
from typing import Final

TIMEOUT_SECONDS: Final = 5.0


def main() -> None:
    """Exit with 0 when the service is healthy, else with what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--component", help="a key of the answer, whose `status` must be `healthy`")
    arguments = parser.parse_args()
    # A proxy of the environment is for other networks; these services are in the same one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(arguments.url, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read()
    except OSError as error:
        sys.exit(f"{arguments.url}: {error}")
    if arguments.component is not None:
        status = (json.loads(body).get(arguments.component) or {}).get("status")
        if status != "healthy":
            sys.exit(f"{arguments.component} is {status}")


if __name__ == "__main__":
    main()
