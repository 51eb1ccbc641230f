"""One command at a time works on a stack, and `run` holds it for as long as it runs."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from local_stack.layout import Layout


class Occupied(Exception):
    """Another command holds the stack: `command`, in the process `pid`."""

    def __init__(self, pid: int, command: str) -> None:
        super().__init__(f"`{command}` (process {pid}) holds the stack")
        self.pid = pid
        self.command = command


@contextmanager
def occupied(layout: Layout, command: str) -> Iterator[None]:
    """Hold the stack for `command`; raises Occupied. The kernel lets go when a holder ends in any way."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with layout.lock_file.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid, _, holder = file.read().partition(" ")
            raise Occupied(int(pid) if pid.isdigit() else 0, holder or "another command") from error
        file.truncate(0)
        file.write(f"{os.getpid()} {command}")
        file.flush()
        yield
