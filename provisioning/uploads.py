"""What a lake runs, made and uploaded where it is missing, each under the SHA-256 of its content.

- the package: this clone's code, which machines start from (`package`);
- the environment: the Python packages of machines, so that these start in seconds and without PyPI;
- what EMR runs (`telemetry_lake.deploy.spark_package`), in the lake bucket;
- the image of the containers, which is not made here: it is looked for in its repository.

What is in a bucket already is neither made nor sent again. The hash of an environment is known once it is
made, so a record says which one was made of which file of requirements.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from provisioning import package
from provisioning.package import MACHINE_REQUIREMENTS, REQUIREMENTS, Package, machine_requirements
from provisioning.parameters import Values
from provisioning.templates import Template
from telemetry_lake.deploy import spark_package
from telemetry_lake.deploy.python_environment import PLATFORM, PYTHON_VERSION, environment_archive
from telemetry_lake.failures import AccessRefused, ConfigurationError, FatalError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.storage.aws import aws_failures
from telemetry_lake.storage.object_keys import environment_key, environment_record_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import MIB

PACKAGE_KEY: Final = "PackageKey"
ENVIRONMENT_KEY: Final = "EnvironmentKey"
IMAGE_URI: Final = "ImageUri"
MACHINE_PYTHON: Final = "/usr/bin/python3.11"
"""That of Debian 12, which machines run."""
NOT_MADE_KEY: Final = environment_key("0" * 64)
"""Stands in a plan for an environment that a deployment would make."""
_IMAGE: Final = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<name>[^@:]+)"
    r"(:[^@]+)?@(?P<digest>sha256:[0-9a-f]{64})"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """The archive of Python packages that machines unpack. `body` is set when it was just made."""

    inputs_sha256: str
    key: str
    body: bytes | None = None


def inputs_of(root: Path) -> str:
    """Return the SHA-256 of what the environment of a clone is made of."""
    place = f"{MACHINE_PYTHON} {PYTHON_VERSION} {PLATFORM}\n"
    return hashlib.sha256(place.encode() + machine_requirements(root)).hexdigest()


def find_environment(store: ObjectStore, bucket: str, root: Path) -> Environment | None:
    """Return the environment of a clone that is in the bucket, None where there is none."""
    inputs = inputs_of(root)
    record = store.get_or_none(bucket, environment_record_key(inputs))
    if record is None or store.head(bucket, key := record.decode()) is None:
        return None
    return Environment(inputs, key)


def make_environment(root: Path) -> Environment:
    """Make the environment of a clone. Raises FatalError when a requirement cannot be installed."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / MACHINE_REQUIREMENTS
        requirements.write_bytes(machine_requirements(root))
        body = environment_archive(MACHINE_PYTHON, requirements)
    return Environment(inputs_of(root), environment_key(hashlib.sha256(body).hexdigest()), body)


def upload_environment(store: ObjectStore, bucket: str, environment: Environment) -> bool:
    """Put an environment that was just made into the bucket of code. Returns whether it was sent."""
    if environment.body is None:
        return False
    sent = store.put_if_absent(bucket, environment.key, environment.body)
    # Last, so that no record names what is not there; over a record of an archive that was deleted.
    store.put(bucket, environment_record_key(environment.inputs_sha256), environment.key.encode())
    return sent


@dataclass(frozen=True, slots=True)
class Uploads:
    """What one deployment runs, and where each of it goes."""

    package: Package
    environment: Environment | None
    """None where machines are to install from PyPI, or no template asks for one."""
    root: Path
    """The clone."""
    given: Mapping[str, str]
    """The keys that the parameters name themselves: they have to be in the bucket."""
    image: str | None
    runs_spark: bool

    @property
    def known(self) -> dict[str, str]:
        """Return the values of parameters that follow."""
        keys = {PACKAGE_KEY: self.package.key}
        return keys if self.environment is None else {**keys, ENVIRONMENT_KEY: self.environment.key}

    @property
    def lacks_environment(self) -> bool:
        """Return whether an environment is wanted that is yet to be made."""
        return self.environment is not None and self.environment.key == NOT_MADE_KEY

    def made(self, say: Say) -> "Uploads":
        """Return these with their environment, made if need be. Raises FatalError when it cannot be."""
        if not self.lacks_environment:
            return self
        say(f"making the archive of the Python packages of {REQUIREMENTS}: some minutes")
        return replace(self, environment=make_environment(self.root))

    def send(self, store: ObjectStore, bucket: str, say: Say) -> None:
        """Put what machines start from into the bucket of code, unless it is there.

        Raises ConfigurationError when a key that the parameters name is not there.
        """
        for name, key in self.given.items():
            if store.head(bucket, key) is None:
                raise ConfigurationError(
                    f"s3://{bucket}/{key} is not there, which {name} names: leave {name} out of the "
                    "parameters, and the deployment makes it"
                )
        if PACKAGE_KEY not in self.given:
            sent = package.upload(store, bucket, self.package)
            _say_sent(say, bucket, self.package.key, self.package.body, sent=sent)
        if (environment := self.environment) is not None:
            sent = upload_environment(store, bucket, environment)
            _say_sent(say, bucket, environment.key, environment.body, sent=sent)

    def send_for_spark(self, settings: Settings, store: ObjectStore, say: Say) -> None:
        """Put what EMR runs into the lake bucket, unless it is there or no stack runs it."""
        if self.runs_spark:
            bundle = spark_package.package_of(settings)
            sent = spark_package.upload(settings, store, bundle, say)
            say(f"Spark jobs: {len(sent)} of {len(list(bundle))} files were missing")

    def check_image(self, ecr: Any, region: str, say: Say) -> None:
        """Look for the image in its repository. Raises ConfigurationError when it is not there."""
        if self.image is not None:
            check_image(ecr, self.image, region, say)


def prepare(
    templates: Sequence[Template],
    values: Values,
    store: ObjectStore,
    bucket: str | None,
    root: Path = PROJECT_ROOT,
) -> Uploads:
    """Return what a deployment of the clone in `root` runs, without an environment that is yet to be made.

    `bucket` is that of code, None before there is one.
    """
    asked = {name for template in templates for name in template.parameters}
    environment = None
    if ENVIRONMENT_KEY in asked and ENVIRONMENT_KEY not in values.given:
        environment = None if bucket is None else find_environment(store, bucket, root)
        environment = environment or Environment(inputs_of(root), NOT_MADE_KEY)
    return Uploads(
        package=package.make_package(root),
        environment=environment,
        root=root,
        given={name: key for name in (PACKAGE_KEY, ENVIRONMENT_KEY) if (key := values.given.get(name))},
        image=values.given.get(IMAGE_URI) if IMAGE_URI in asked else None,
        runs_spark=any(template.stack == "spark" for template in templates),
    )


def check_image(ecr: Any, uri: str, region: str, say: Say) -> None:
    """Look for an image of ECR. Raises ConfigurationError when it is not there.

    What cannot be looked for from here is said.
    """
    found = _IMAGE.fullmatch(uri)
    if found is None or found["region"] != region:
        say(f"{uri} is not in ECR of {region}: whether it is there is not checked")
        return
    try:
        with aws_failures(f"looking for the image {uri}"):
            images = ecr.batch_get_image(
                registryId=found["registry"],
                repositoryName=found["name"],
                imageIds=[{"imageDigest": found["digest"]}],
            )["images"]
    except AccessRefused as error:
        say(f"whether the image is there is not checked: {error}")
        return
    except FatalError as error:
        raise ConfigurationError(f"{error}. {_how_to_push(found)}") from error
    if not images:
        raise ConfigurationError(f"{uri} is not there. {_how_to_push(found)}")
    say(f"{uri}: there")


def _how_to_push(image: re.Match[str]) -> str:
    return (
        f"Build it as docs/containers.md says, push it to {image['name']} in the registry of the account, "
        f"which the stack storage makes, write its digest into {IMAGE_URI}, and deploy again"
    )


def _say_sent(say: Say, bucket: str, key: str, body: bytes | None, *, sent: bool) -> None:
    size = "" if body is None else f", {len(body) / MIB:.1f} MiB"
    say(f"s3://{bucket}/{key}: {'sent' if sent else 'there already'}{size}")
