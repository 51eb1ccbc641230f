"""The command line of provisioning: plan, deploy, status, destroy, cost. See docs/deploying.md."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import boto3
import typer
from botocore.config import Config
from rich.console import Console

from provisioning import cost, removal
from provisioning.deployment import Deployment
from provisioning.display import Terminal
from provisioning.first_ping import WAIT_MAX_SECONDS, FirstPing, Target, target_of
from provisioning.lake import Place, create_lake_tables, lake_settings, maintenance_settings
from provisioning.parameters import ENVIRONMENT, PARAMETER_FOLDER, Values, read_parameters
from provisioning.rolling import GROUP, Nodes
from provisioning.stacks import Stacks
from provisioning.templates import STACK_ORDER, TEMPLATE_FOLDER, load_templates
from provisioning.uploads import prepare
from telemetry_lake.failures import ConfigurationError, TelemetryLakeError
from telemetry_lake.settings import S3Settings
from telemetry_lake.storage.aws import aws_failures
from telemetry_lake.storage.object_store import ObjectStore

ATTEMPTS_MAX: Final = 5
CODE_BUCKET: Final = "CodeBucket"
"""The output that names the bucket of code."""

app = typer.Typer(
    help="Deploy, change and turn off a whole lake on AWS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cost.register(app)

Environment = Annotated[
    str, typer.Option("--environment", "-e", help="The lake's name in the account, such as small.")
]
Parameters = Annotated[
    str | None,
    typer.Option(
        "--parameters",
        metavar="NAME|FILE",
        help="The values of the templates' parameters; by default those of the environment's name in "
        "cloudformation/parameters/.",
    ),
]
Given = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A value that wins over the file's. Can be repeated."),
]
Templates = Annotated[Path, typer.Option(help="The folder with the templates.")]
Region = Annotated[str, typer.Option(help="The region of AWS.")]
EndpointUrl = Annotated[
    str | None, typer.Option(help="What stands in for AWS, such as an emulator on loopback.")
]


class Aws:
    """The clients of one account and region, with the credentials of boto3's own chain."""

    def __init__(self, place: Place) -> None:
        self.place = place
        # Its own: the default one keeps the credentials that anything before in this process had.
        self._session = boto3.session.Session()

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        # boto3 has an overload for each service, and none for a name that is computed.
        return self._session.client(  # type: ignore[call-overload]
            service,
            region_name=self.place.region,
            endpoint_url=self.place.endpoint_url,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
                s3={"addressing_style": "path" if self.place.endpoint_url else "auto"},
            ),
        )

    def stacks(self, environment: str) -> Stacks:
        """Return the stacks of an environment."""
        with aws_failures("asking AWS whose credentials these are"):
            account = self.client("sts").get_caller_identity()["Account"]
        return Stacks(self.client("cloudformation"), environment, account=account, region=self.place.region)

    def nodes(self) -> Nodes:
        """Return the ingest nodes."""
        return Nodes(self.client("autoscaling"), self.client("elbv2"), self.client("ec2"))

    def store(self) -> ObjectStore:
        """Return the object store."""
        values = {"region": self.place.region, "endpoint_url": self.place.endpoint_url}
        return ObjectStore(S3Settings.model_validate(values), self.client("s3"))


@app.command()
def plan(
    environment: Environment,
    parameters: Parameters = None,
    given: Given = None,
    templates: Templates = TEMPLATE_FOLDER,
    region: Region = "us-east-1",
    endpoint_url: EndpointUrl = None,
) -> None:
    """Show what `deploy` would add, modify, replace and remove. Changes nothing."""
    screen = _terminal()
    aws = Aws(Place(region, endpoint_url))
    stacks, found = aws.stacks(environment), load_templates(templates)
    values = _values(environment, parameters, given)
    uploads = prepare(found, values, aws.store(), _outputs(stacks, "storage").get(CODE_BUCKET))
    if uploads.lacks_environment:
        screen.say("the Python packages are not uploaded yet: `deploy` makes their archive, in some minutes")
    screen.show(Deployment(stacks, found, values.knowing(uploads.known), screen).plan())


@app.command()
def deploy(
    environment: Environment,
    parameters: Parameters = None,
    given: Given = None,
    templates: Templates = TEMPLATE_FOLDER,
    region: Region = "us-east-1",
    endpoint_url: EndpointUrl = None,
    allow_replacement: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOGICAL_ID", help="A resource that may be replaced or removed with the data in it."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the changes are made.")] = False,
    roll: Annotated[
        bool, typer.Option(help="Replace the ingest nodes that run something else, one after another.")
    ] = True,
    first_ping: Annotated[
        bool, typer.Option(help="At the end send a ping, and follow it until it is a row.")
    ] = True,
    first_ping_url: Annotated[
        str | None,
        typer.Option(help="Where clients post; by default the balancer, under the certificate's name."),
    ] = None,
    first_ping_max_seconds: Annotated[
        float, typer.Option(min=0, help="How long the first ping may take until it is a row.")
    ] = WAIT_MAX_SECONDS,
) -> None:
    """Bring the lake to its templates: stacks, code, tables, nodes one by one, and a first ping.

    It can be killed at any moment and started again.
    """
    screen = _terminal()
    aws = Aws(Place(region, endpoint_url))
    stacks, found, store = aws.stacks(environment), load_templates(templates), aws.store()
    values = _values(environment, parameters, given)
    bucket = _outputs(stacks, "storage").get(CODE_BUCKET)
    uploads = prepare(found, values, store, bucket)
    # All mistakes before an archive is made.
    Deployment(stacks, found, values.knowing(uploads.known), screen).check()
    if bucket is not None:
        uploads.check_image(aws.client("ecr"), region, screen.say)
    uploads = uploads.made(screen.say)
    values = values.knowing(uploads.known)
    deployment = Deployment(stacks, found, values, screen)

    def after(stack: str, outputs: Mapping[str, str]) -> None:
        screen.say(f"{stack}: as its template says")
        # Before the stacks whose machines and containers start from it.
        if stack == "storage" and CODE_BUCKET in outputs:
            uploads.send(store, outputs[CODE_BUCKET], screen.say)
            if bucket is None:
                uploads.check_image(aws.client("ecr"), region, screen.say)
        if stack == "spark":
            uploads.send_for_spark(lake_settings(outputs, aws.place), store, screen.say)

    outputs = deployment.deploy(
        frozenset(allow_replacement or ()), lambda: _confirm("Make these changes?", yes=yes), after
    )
    settings = maintenance_settings(outputs, aws.place, aws.client("sts"), screen.say)
    screen.say(f"tables: {', '.join(create_lake_tables(settings))}")
    if roll and (replaced := aws.nodes().roll(_groups(stacks), screen.say)):
        screen.say(f"{replaced} ingest nodes were replaced, one after another")
    if first_ping:
        url = first_ping_url
        target = target_of(outputs, values, aws.client("acm")) if url is None else Target(url)
        _first_ping(screen, aws, outputs, target, first_ping_max_seconds)


@app.command()
def status(environment: Environment, region: Region = "us-east-1", endpoint_url: EndpointUrl = None) -> None:
    """Show the stacks, and the ingest nodes with their machines."""
    aws = Aws(Place(region, endpoint_url))
    stacks = aws.stacks(environment)
    states = {stack: stacks.state(stack) for stack in STACK_ORDER}
    _terminal().show_status(states, aws.nodes().look(_groups(stacks)))


@app.command()
def destroy(
    environment: Environment,
    region: Region = "us-east-1",
    endpoint_url: EndpointUrl = None,
    allow_deletion: Annotated[
        list[str] | None,
        typer.Option(metavar="LOGICAL_ID", help="A resource that can hold data and may go for good."),
    ] = None,
    confirm: Annotated[
        str | None, typer.Option(metavar="ENVIRONMENT", help="The name again, instead of typing it.")
    ] = None,
) -> None:
    """Turn a lake off: delete its stacks, keep what their templates keep, and say what that costs."""
    screen = _terminal()
    aws = Aws(Place(region, endpoint_url))
    stacks = aws.stacks(environment)
    found = removal.parts(stacks)
    if not found and all(stacks.state(stack) is None for stack in STACK_ORDER):
        raise ConfigurationError(f"there is no lake {environment} in {region}")
    s3, ec2 = aws.client("s3"), aws.client("ec2")
    costs = {part.physical_id: removal.cost_of(part, s3, ec2) for part in found if part.stays}
    screen.show_parts(found, costs)
    removal.refuse_losses(found, frozenset(allow_deletion or ()))
    if confirm is None:
        confirm = typer.prompt(f"Type {environment} to turn this lake off")
    if confirm != environment:
        raise ConfigurationError(f"{confirm!r} is not {environment}: nothing was deleted")
    removal.turn_off(stacks, screen)
    kept = [part for part in found if part.stays]
    screen.say(
        f"{environment} is turned off; {len(kept)} resources stay:" if kept else f"{environment} is gone"
    )
    for part in kept:
        screen.say(f"- {part.resource.kind} {part.physical_id}: {costs[part.physical_id]}")


def _groups(stacks: Stacks) -> list[str]:
    """Return the names of the auto-scaling groups of a lake."""
    return [name for stack in STACK_ORDER for _, kind, name in stacks.resources(stack) if kind == GROUP]


def _outputs(stacks: Stacks, stack: str) -> Mapping[str, str]:
    """Return the outputs of a stack, none while it is not there."""
    state = stacks.state(stack)
    return {} if state is None else state.outputs


def _values(environment: str, parameters: str | None, given: list[str] | None) -> Values:
    """Return the values of an environment. Raises ConfigurationError when its file is missing or wrong."""
    named = parameters or environment
    path = Path(named) if named.endswith(".json") else PARAMETER_FOLDER / f"{named}.json"
    values = read_parameters(path)
    for assignment in given or ():
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {assignment}: write NAME=VALUE")
        values[name] = value
    if values.setdefault(ENVIRONMENT, environment) != environment:
        raise ConfigurationError(
            f"{path} is of the environment {values[ENVIRONMENT]}, not of {environment}: give --environment "
            f"{values[ENVIRONMENT]}, or leave {ENVIRONMENT} out of the file"
        )
    return Values(values, {ENVIRONMENT: environment}, str(path))


def _first_ping(
    screen: Terminal, aws: Aws, outputs: Mapping[str, str], target: Target, max_seconds: float
) -> None:
    """Send a ping and follow it to its row. Raises NotArrived."""
    # Not the session of before: nodes may have been replaced for hours since.
    settings = maintenance_settings(outputs, aws.place, aws.client("sts"), screen.say)
    with screen.console.status(f"sending the first ping to {target.url}") as shown:
        FirstPing(
            target,
            settings,
            aws.store(),
            screen.say,
            lambda seconds: shown.update(f"the first ping: {seconds:.0f} of {max_seconds:.0f} s"),
            max_seconds=max_seconds,
        ).deliver()


def _confirm(question: str, *, yes: bool) -> None:
    if not yes and not typer.confirm(question):
        raise ConfigurationError("nothing was changed")


def _terminal() -> Terminal:
    return Terminal(Console(highlight=False))


def run() -> None:
    """Run the command that the arguments name, and exit: 0, 1 for a failure, 2 for wrong usage."""
    try:
        app(prog_name="python -m provisioning")
    except TelemetryLakeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()
