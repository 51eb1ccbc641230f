"""What a machine of EC2 does for itself: claim its volume, ask for settings, end when it is told to.

`cloudformation/user_data/` calls this while a machine starts; see docs/provisioning.md. Credentials and
region are boto3's own: the role of the machine, and `AWS_DEFAULT_REGION`.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from telemetry_lake.failures import ConfigurationError, FatalError, TelemetryLakeError

ENVIRONMENT_TAG: Final = "telemetry-lake:environment"
NODE_TAG: Final = "telemetry-lake:node"
DEVICE: Final = "/dev/sdf"
"""As EC2 calls it; the system calls it by the volume's id."""
CLAIM_MAX_SECONDS: Final = 4_000
"""Longer than the termination hook of the machine before, which may ship its spool for an hour."""
POLL_SECONDS: Final = 5.0
METADATA_URL: Final = "http://169.254.169.254"
TERMINATION_HOOK: Final = "ship-spool"
METADATA_TIMEOUT_SECONDS: Final = 5


def claim_volume(
    ec2: Any,
    *,
    environment: str,
    node: str,
    instance: str,
    limit_seconds: float = CLAIM_MAX_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Attach the volume of a node to this machine, when the machine before has let go of it.

    Returns its id. Raises ConfigurationError when there is not exactly one volume with the node's tags, and
    FatalError when another machine keeps it for longer than `limit_seconds`.
    """
    filters = [
        {"Name": f"tag:{ENVIRONMENT_TAG}", "Values": [environment]},
        {"Name": f"tag:{NODE_TAG}", "Values": [node]},
    ]
    deadline = time.monotonic() + limit_seconds
    while True:
        volumes = ec2.describe_volumes(Filters=filters)["Volumes"]
        if len(volumes) != 1:
            raise ConfigurationError(
                f"{len(volumes)} volumes have the tags {ENVIRONMENT_TAG}={environment}, {NODE_TAG}={node}: "
                "there has to be one, so change the tags of others, or restore it from a snapshot"
            )
        (volume,) = volumes
        holders = [held["InstanceId"] for held in volume["Attachments"] if held["State"] != "detached"]
        if holders == [instance]:
            return str(volume["VolumeId"])
        if volume["State"] == "available" and not holders:
            ec2.attach_volume(VolumeId=volume["VolumeId"], InstanceId=instance, Device=DEVICE)
        elif time.monotonic() > deadline:
            raise FatalError(
                f"{volume['VolumeId']} of {node} is still attached to {', '.join(holders)} "
                f"after {limit_seconds:,.0f} s: end that machine, or detach the volume"
            )
        sleep(POLL_SECONDS)


def wait_for_end(metadata_url: str = METADATA_URL, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return when the auto-scaling group has begun to end this machine."""
    while _metadata(metadata_url, "autoscaling/target-lifecycle-state") != "Terminated":
        sleep(POLL_SECONDS)


def _metadata(metadata_url: str, path: str) -> str | None:
    """Return what the metadata of this machine say, None when they do not answer or know it."""
    try:
        asked = urllib.request.Request(  # noqa: S310  a fixed address of http
            f"{metadata_url}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        with urllib.request.urlopen(asked, timeout=METADATA_TIMEOUT_SECONDS) as answer:  # noqa: S310
            token = answer.read().decode()
        asked = urllib.request.Request(  # noqa: S310
            f"{metadata_url}/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token}
        )
        with urllib.request.urlopen(asked, timeout=METADATA_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return str(answer.read().decode())
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("claim-volume")
def claim_volume_command(
    environment: Annotated[str, typer.Option()],
    node: Annotated[str, typer.Option()],
    instance: Annotated[str, typer.Option()],
) -> None:
    """Attach the volume of a node to this machine, and print its id."""
    import boto3

    typer.echo(claim_volume(boto3.client("ec2"), environment=environment, node=node, instance=instance))


@app.command("ship-before-end")
def ship_before_end(
    instance: Annotated[str, typer.Option()],
    group: Annotated[str, typer.Option()],
    unit: Annotated[str, typer.Option()],
    spool: Annotated[Path, typer.Option()],
    volume: Annotated[str, typer.Option()],
    metadata_url: Annotated[str, typer.Option()] = METADATA_URL,
) -> None:
    """Wait until this machine is to end; then stop the node, let go of its volume, and let the machine end.

    To stop the node is to ship its spool. What is not shipped by then stays on the volume.
    """
    import boto3

    wait_for_end(metadata_url)
    subprocess.run(["systemctl", "stop", unit], check=False)
    subprocess.run(["umount", str(spool)], check=False)
    try:
        boto3.client("ec2").detach_volume(VolumeId=volume, InstanceId=instance)
    finally:
        boto3.client("autoscaling").complete_lifecycle_action(
            LifecycleHookName=TERMINATION_HOOK,
            AutoScalingGroupName=group,
            InstanceId=instance,
            LifecycleActionResult="CONTINUE",
        )


@app.command()
def settings(parameter: Annotated[str, typer.Argument()]) -> None:
    """Print the settings of the lake, a parameter of Systems Manager with lines of NAME=value."""
    import boto3

    typer.echo(boto3.client("ssm").get_parameter(Name=parameter)["Parameter"].get("Value", ""))


@app.command()
def secret(
    name: Annotated[str, typer.Argument(help="The name or ARN of a secret.")],
    key: Annotated[str, typer.Argument(help="Which value of the JSON in it.")],
) -> None:
    """Print a value of a secret of Secrets Manager. Raises ConfigurationError when it is not in it."""
    import boto3

    content = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
    if key not in content:
        raise ConfigurationError(f"the secret {name} has no value {key!r}: put it in as JSON, and try again")
    typer.echo(content[key])


if __name__ == "__main__":
    try:
        app()
    except TelemetryLakeError as error:
        print(f"machine: {error}", file=sys.stderr)
        sys.exit(1)
