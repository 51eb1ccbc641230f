"""The web pages as a process of a test, over cubes that a test makes."""

from dataclasses import replace
from pathlib import Path

from lake_testing.stack import Lake, RunningProgram, free_ports
from local_stack.web_pages import WebPages
from telemetry_lake.project_files import PROJECT_ROOT


class RunningPages(RunningProgram):
    """`python -m web` of a lake, in a folder and on a port of its own; `url` says where.

    `settings` are variables without `TELEMETRY_LAKE_WEB__`.
    """

    def __init__(self, lake: Lake, folder: Path, **settings: str) -> None:
        pages = WebPages(
            port=free_ports(1),
            cubes_directory=folder / "cubes",
            users_file=folder / "users.json",
            project_root=PROJECT_ROOT,
            log_file=folder / "web.log",
        )
        program = pages.program(after=())
        super().__init__(replace(program, environment={**lake.environment, **program.environment}))
        self.url = pages.url
        self.add_settings(**settings)

    def add_settings(self, **settings: str) -> None:
        """Let the next start take further `settings`, which may name the server's own address."""
        given = {f"TELEMETRY_LAKE_WEB__{name}": value for name, value in settings.items()}
        self.program = replace(self.program, environment={**self.program.environment, **given})
