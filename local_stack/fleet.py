"""The client fleet that `run` keeps sending at a small rate."""

import sys
from pathlib import Path
from typing import Final

from local_stack.program import Program

FLEET: Final = "client-fleet"
MALFORMED_SHARE: Final = 0.02
"""So that there is something to see in the table of rejected pings."""


def fleet_program(
    *, project_root: Path, log_file: Path, target_url: str, pings_per_second: float, after: tuple[str, ...]
) -> Program:
    """`python -m client_fleet`, sending until it is stopped; it is as healthy as its process."""
    rate = f"{pings_per_second:g}"
    return Program(
        name=FLEET,
        command=(
            *(
                sys.executable,
                "-m",
                "client_fleet",
                "--target",
                target_url,
                "--rate",
                rate,
                "--duration",
                "0",
            ),
            *("--malformed", str(MALFORMED_SHARE)),
        ),
        directory=project_root,
        log_file=log_file,
        check_health=lambda: None,
        after=after,
    )
