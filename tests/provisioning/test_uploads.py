"""What a lake runs is made and uploaded once, under its hash, and what is not there is said in time."""

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import uuid
import zipfile
from pathlib import Path

import pytest

from lake_testing.aws_emulator import ACCOUNT, REGION, AwsEmulator
from provisioning.package import NEEDED
from provisioning.parameters import Values
from provisioning.templates import Template, template_of
from provisioning.uploads import NOT_MADE_KEY, check_image, prepare
from telemetry_lake.deploy.python_environment import environment_archive
from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.settings import S3Settings
from telemetry_lake.storage.object_store import ObjectStore

WHEEL = "greeting-1.0-py3-none-any.whl"
ASKS = """\
Parameters: {EnvironmentKey: {Type: String}, ImageUri: {Type: String}}
Resources: {Topic: {Type: AWS::SNS::Topic}}
"""


def _write_wheel(folder: Path) -> str:
    """Write the smallest package there can be. Returns its line of requirements."""
    files = {
        "greeting.py": b"WORD = 'hello'\n",
        "greeting-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        "greeting-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},"
        f"{len(content)}"
        for name, content in files.items()
    ]
    record = "\n".join((*lines, "greeting-1.0.dist-info/RECORD,,")).encode()
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, content in (*files.items(), ("greeting-1.0.dist-info/RECORD", record)):
            wheel.writestr(name, content)
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    return f"greeting==1.0 --hash=sha256:{digest}\n"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose only requirement is a wheel on this machine: nothing is fetched from elsewhere."""
    wheels, root = tmp_path / "wheels", tmp_path / "clone"
    for name in NEEDED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "requirements.txt").write_text(_write_wheel(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return root


@pytest.fixture
def store(aws_emulator: AwsEmulator) -> ObjectStore:
    return ObjectStore(
        S3Settings.model_validate({"region": REGION, "endpoint_url": aws_emulator.url}),
        aws_emulator.client("s3"),
    )


@pytest.fixture
def bucket(aws_emulator: AwsEmulator) -> str:
    name = f"code-{uuid.uuid4().hex[:8]}"
    aws_emulator.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def asking() -> list[Template]:
    return [template_of("ingest", ASKS)]


def test_an_environment_is_made_and_sent_once(clone, store, bucket, asking, monkeypatch):
    said: list[str] = []
    values = Values({}, {})
    planned = prepare(asking, values, store, bucket, clone)
    assert planned.known["EnvironmentKey"] == NOT_MADE_KEY
    made = planned.made(said.append)
    made.send(store, bucket, said.append)
    key = made.known["EnvironmentKey"]
    body = store.get(bucket, key)
    assert key == f"environments/{hashlib.sha256(body).hexdigest()}/environment.tar.gz"
    assert any("some minutes" in line for line in said)
    assert any(f"{key}: sent" in line for line in said)

    # From now on nothing is made: it could not be.
    monkeypatch.setenv("UV_FIND_LINKS", str(clone / "nothing"))
    said.clear()
    again = prepare(asking, values, store, bucket, clone)
    assert not again.lacks_environment
    again = again.made(said.append)
    again.send(store, bucket, said.append)
    assert again.known == made.known
    assert [line.rpartition(": ")[2] for line in said] == ["there already, 0.0 MiB", "there already"]
    # An archive that was deleted, and other requirements, are made again.
    store.delete(bucket, [key])
    assert prepare(asking, values, store, bucket, clone).lacks_environment
    made.send(store, bucket, said.append)
    (clone / "requirements.txt").write_text("greeting==2.0 --hash=sha256:" + "0" * 64)
    other = prepare(asking, values, store, bucket, clone)
    with pytest.raises(FatalError, match=r"the packages of .*requirements-machines\.txt cannot be installed"):
        other.made(said.append)


def test_an_environment_runs_where_it_is_unpacked(clone, tmp_path):
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    archive = environment_archive(str(interpreter), clone / "requirements.txt")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(tmp_path / "unpacked", filter="tar")
    shown = subprocess.run(
        [tmp_path / "unpacked" / "bin" / "python", "-c", "import greeting; print(greeting.WORD)"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert shown.stdout == "hello\n"


def test_what_the_parameters_name_is_not_made_and_has_to_be_there(clone, store, bucket, asking):
    said: list[str] = []
    empty = prepare(asking, Values({"EnvironmentKey": ""}, {}), store, bucket, clone)
    assert "EnvironmentKey" not in empty.known
    assert empty.made(said.append) is empty
    assert (
        prepare([template_of("queue", "Resources: {}")], Values({}, {}), store, bucket, clone).environment
        is None
    )
    named = prepare(asking, Values({"EnvironmentKey": NOT_MADE_KEY}, {}), store, bucket, clone)
    with pytest.raises(ConfigurationError, match=f"s3://{bucket}/{NOT_MADE_KEY} is not there"):
        named.send(store, bucket, said.append)
    store.put(bucket, NOT_MADE_KEY, b"an archive")
    named.send(store, bucket, said.append)


def test_the_image_has_to_be_in_its_repository(aws_emulator):
    said: list[str] = []
    ecr = aws_emulator.client("ecr")
    name = f"lake-{uuid.uuid4().hex[:6]}"
    place = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{name}"
    digest = "sha256:" + "0" * 64
    with pytest.raises(ConfigurationError, match=f"push it to {name} in the registry"):
        check_image(ecr, f"{place}@{digest}", REGION, said.append)
    ecr.create_repository(repositoryName=name)
    with pytest.raises(ConfigurationError, match=r"is not there\. Build it as docs/containers\.md says"):
        check_image(ecr, f"{place}@{digest}", REGION, said.append)
    pushed = ecr.put_image(repositoryName=name, imageManifest='{"schemaVersion": 2}', imageTag="v1")
    digest = pushed["image"]["imageId"]["imageDigest"]
    check_image(ecr, f"{place}:v1@{digest}", REGION, said.append)
    assert said.pop().endswith(": there")
    for elsewhere in (f"{place}@{digest}".replace(REGION, "eu-west-1"), f"docker.io/lake@{digest}"):
        check_image(ecr, elsewhere, REGION, said.append)
        assert "whether it is there is not checked" in said.pop()


def test_a_plan_says_what_is_yet_to_be_made_and_a_deployment_what_is_missing(environment):
    file = environment.templates / "ingest.yaml"
    asking = "  PackageKey: {Type: String}\n  EnvironmentKey: {Type: String}\n"
    file.write_text(file.read_text().replace("  PackageKey: {Type: String}\n", asking))
    assert "the Python packages are not uploaded yet: `deploy` makes their archive" in environment.run("plan")
    environment.values["EnvironmentKey"] = NOT_MADE_KEY
    assert "not uploaded yet" not in environment.run("plan")
    said = environment.deploy(code=1)
    assert f"s3://{environment.name}-code/{NOT_MADE_KEY} is not there, which EnvironmentKey names" in said
    assert environment.stack_status("storage") == "CREATE_COMPLETE"
