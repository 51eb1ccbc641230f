"""Run a command that gives way to the other programs of this machine: `giving_way.py NICENESS COMMAND …`.

`nice` alone is not enough: where Linux groups processes by session (`autogroup`, see sched(7)), the niceness
of a process counts within its own session only, and Airflow starts the process of a task in a new session.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

OF_THIS_SESSION: Final = Path("/proc/self/autogroup")


def main() -> None:
    """Lower the priority of this process and of its session, and become the command."""
    niceness, *command = sys.argv[1:]
    os.nice(int(niceness))
    # Only kernels that group processes have the file.
    with contextlib.suppress(OSError):
        OF_THIS_SESSION.write_text(niceness)
    os.execvp(command[0], command)  # noqa: S606 (a shell is what it must not be)


if __name__ == "__main__":
    main()
