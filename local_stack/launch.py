"""The start of one process of the stack: `python -m local_stack.launch FILE`, as supervisord calls it.

The file is one that `describe` wrote: command, environment, folder, user. First it ends what is
left of an earlier process of the same program: a scheduler that is killed leaves its workers behind, and two
schedulers must never run.
"""

import json
import os
import pwd
import sys
from pathlib import Path
from typing import Final, TypedDict

from local_stack.layout import Layout
from local_stack.leftovers import end, find
from local_stack.program import LOOPBACK, PROGRAM_MARKER, STACK_MARKER, Program, Step, write_files
from local_stack.secret_files import write_secret_file

LEFTOVERS_GRACE_SECONDS: Final = 5.0


class LaunchDescription(TypedDict):
    """How a process is started."""

    command: list[str]
    directory: str
    user: str | None
    environment: dict[str, str]


def describe(item: Program | Step, layout: Layout) -> tuple[str, ...]:
    """Write down how `item` is started (readable for the owner only), and return the command that does it."""
    write_files(item)
    path = layout.launch_file(item.name)
    description = LaunchDescription(
        command=list(item.command),
        directory=str(item.directory),
        user=item.user,
        environment={
            **item.environment,
            "PYTHONUNBUFFERED": "1",
            # Programs that rename themselves would overwrite the markers below.
            "SPT_NOENV": "1",
            STACK_MARKER: str(layout.root),
            PROGRAM_MARKER: item.name,
        },
    )
    write_secret_file(path, json.dumps(description, indent=2))
    return (sys.executable, "-m", "local_stack.launch", str(path))


def become(description: LaunchDescription) -> None:
    """Replace this process by the one described; it does not return."""
    marks = description["environment"]
    end(find(Path(marks[STACK_MARKER]), marks[PROGRAM_MARKER]), grace_seconds=LEFTOVERS_GRACE_SECONDS)
    environment = {**os.environ, **marks}
    # A proxy of the environment is for other machines; the services are on this one.
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = ",".join(filter(None, (environment.get(name), LOOPBACK, "localhost")))
    os.chdir(description["directory"])
    if description["user"] is not None:
        account = pwd.getpwnam(description["user"])
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    command = description["command"]
    os.execvpe(command[0], command, environment)  # noqa: S606 - without a shell, as it should be


if __name__ == "__main__":
    become(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
