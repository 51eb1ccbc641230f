"""An environment of the emulator with templates of its own, and the commands of who deploys it."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner, Result

from lake_testing.aws_emulator import AwsEmulator
from provisioning.__main__ import app
from telemetry_lake.failures import TelemetryLakeError


@dataclass
class Environment:
    """One environment in the emulator: its name, templates and values, and the commands of an operator."""

    name: str
    emulator: AwsEmulator
    templates: Path
    values_file: Path
    values: dict[str, str] = field(default_factory=dict)

    def run(self, command: str, *options: str, code: int = 0) -> str:
        """Run `python -m provisioning COMMAND`. Returns what it prints, an error included."""
        result = self.invoke(command, *options)
        said = result.output
        if isinstance(result.exception, TelemetryLakeError):
            said += f"error: {result.exception}"
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, said
        return said

    def invoke(self, command: str, *options: str) -> Result:
        arguments = [command, "--environment", self.name, "--endpoint-url", self.emulator.url]
        if command in {"plan", "deploy"}:
            self.values_file.write_text(json.dumps(self.values))
            arguments += ["--parameters", str(self.values_file), "--templates", str(self.templates)]
        return CliRunner().invoke(app, [*arguments, *options], terminal_width=200)

    def deploy(self, *options: str, code: int = 0) -> str:
        """Deploy without the first ping, unless the options say otherwise."""
        return self.run("deploy", "--yes", "--no-roll", "--no-first-ping", *options, code=code)

    def remove_resource(self, stack: str, name: str) -> None:
        """Take a resource out of a template, up to the next one or the end of the resources."""
        file = self.templates / f"{stack}.yaml"
        text = file.read_text()
        begin = text.index(f"  {name}:\n")
        rest = re.search(r"^ {0,2}\S", text[begin + 2 + len(name) + 2 :], re.MULTILINE)
        assert rest is not None
        file.write_text(text[:begin] + text[begin + 2 + len(name) + 2 + rest.start() :])

    def stack_status(self, stack: str) -> str:
        client = self.emulator.client("cloudformation")
        (found,) = client.describe_stacks(StackName=f"telemetry-lake-{self.name}-{stack}")["Stacks"]
        status: str = found["StackStatus"]
        return status
