"""A real HDFS for tests: a name node and three data nodes as processes on free loopback ports.

A pytest plugin, loaded by `tests/conftest.py`. Fixtures:

- `hdfs` (function): `Hdfs`, one for the test run. Its processes may be killed and its blocks damaged: the
  next test that asks for it finds all processes running.
- `hdfs_directory` (function): the path of a directory in it of the test's own.
"""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest
import requests

from lake_testing.hadoop import java_command
from lake_testing.stack import RunningProgram, free_ports, wait_until
from local_stack.program import LOOPBACK, Program, Unhealthy, health_problem, probe

DATA_NODES: Final = 3
REPLICATION: Final = 2
BLOCK_BYTES: Final = 1024 * 1024
"""The smallest block that the name node allows by default: small files span several."""
PLACEMENT_TRIES: Final = 40
"""With three data nodes, two blocks are on one of them in every third file."""
HTTP_TIMEOUT_SECONDS: Final = 60
DEADLINE_SECONDS: Final = 60
_LOG4J: Final = """\
log4j.rootLogger=WARN, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


class Hdfs:
    """A running HDFS; `url(path)` is the value of `TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL`."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(2 + 3 * DATA_NODES)
        self._directory = directory
        self._configuration = directory / "conf"
        for page in ("hdfs", "datanode", "static"):  # Both servers refuse to start without their web pages.
            (self._configuration / "webapps" / page).mkdir(parents=True)
        (self._configuration / "log4j.properties").write_text(_LOG4J)
        self.rpc_port, self.http_port = ports, ports + 1
        self._name_node = RunningProgram(self._name_node_program())
        self.data_nodes = [
            RunningProgram(self._data_node_program(number, ports + 2 + 3 * number))
            for number in range(DATA_NODES)
        ]

    @property
    def default_fs(self) -> str:
        """Its name for Hadoop's own clients."""
        return f"hdfs://{LOOPBACK}:{self.rpc_port}"

    def url(self, path: str = "") -> str:
        """Return the root URL of the archive at `path`."""
        return f"webhdfs://{LOOPBACK}:{self.http_port}{path}"

    # --- Processes -----------------------------------------------------------------------------------

    def format_and_start(self) -> None:
        """Make an empty file system and start all processes."""
        command = self._name_node.program.command
        subprocess.run(
            (*command, "-format", "-force", "-nonInteractive"),
            cwd=self._directory,
            check=True,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
        )
        self.start()

    def start(self) -> None:
        """Start what does not run, and wait until all data nodes are registered and writing is allowed."""
        self._name_node.start(wait=False)
        for node in self.data_nodes:
            node.start(wait=False)
        wait_until(
            lambda: not self._wrong(DATA_NODES),
            deadline_seconds=DEADLINE_SECONDS,
            what=f"HDFS is ready: {self._name_node.log()}",
        )

    def start_name_node(self) -> None:
        """Start the name node unless it runs, and wait until it answers requests and allows changes."""
        self._name_node.start(wait=False)
        wait_until(
            lambda: (
                health_problem(self._program("probe", (), check_health=self._check_out_of_safe_mode)) is None
            ),
            deadline_seconds=DEADLINE_SECONDS,
            what="the name node has left safe mode",
        )

    def kill(self) -> None:
        """Send SIGKILL to every process."""
        for program in (*self.data_nodes, self._name_node):
            program.kill()

    def kill_data_node(self, number: int, *, wait_until_noticed: bool = True) -> None:
        """SIGKILL to one data node; by default return when the name node does not count on it any more."""
        self.data_nodes[number].kill()
        if wait_until_noticed:
            alive = sum(node.is_running for node in self.data_nodes)
            wait_until(
                lambda: not self._wrong(alive),
                deadline_seconds=DEADLINE_SECONDS,
                what="the name node gives the data node up",
            )

    def kill_name_node(self) -> None:
        """SIGKILL to the name node."""
        self._name_node.kill()

    # --- Files ---------------------------------------------------------------------------------------

    def write(self, path: str, content: bytes, *, replication: int = REPLICATION) -> None:
        """Write a file, over one that is there."""

        def is_written() -> bool:
            answer = self._request(
                "PUT",
                path,
                op="CREATE",
                overwrite="true",
                replication=replication,
                noredirect="true",
                blocksize=BLOCK_BYTES,
            )
            where = answer.json()["Location"]
            return requests.put(where, data=content, timeout=HTTP_TIMEOUT_SECONDS).ok

        # A data node's first question after the name node was started again goes to the old one.
        wait_until(is_written, deadline_seconds=DEADLINE_SECONDS, what=f"{path} is written")

    def write_apart(self, path: str, content: bytes, *, apart: tuple[int, int]) -> None:
        """Write a file with one replica of each block, these two blocks of it on different data nodes.

        HDFS places blocks at random and takes no hints: the file is written again until it fits.
        """
        for _ in range(PLACEMENT_TRIES):
            self.write(path, content, replication=1)
            one, other = (self.data_nodes_of(path, block) for block in apart)
            if one != other:
                return
        raise AssertionError(f"in {PLACEMENT_TRIES} files the blocks {apart} were always on one data node")

    def append(self, path: str, content: bytes) -> None:
        """Write behind the end of a file."""
        where = self._request("POST", path, op="APPEND", noredirect="true").json()["Location"]
        answer = requests.post(where, data=content, timeout=HTTP_TIMEOUT_SECONDS)
        assert answer.ok, answer.text

    def set_modified(self, path: str, modified_ms: int) -> None:
        """Give a file another modification time."""
        self._request("PUT", path, op="SETTIMES", modificationtime=modified_ms)

    def delete(self, path: str) -> None:
        """Remove a file or a directory with all that is in it."""
        self._request("DELETE", path, op="DELETE", recursive="true")

    def blocks(self, path: str) -> list[dict[str, Any]]:
        """Offset, length and replicas (`hosts`, `names`) of each block of a file."""
        answer = self._request("GET", path, op="GETFILEBLOCKLOCATIONS").json()
        blocks: list[dict[str, Any]] = answer["BlockLocations"]["BlockLocation"]
        return blocks

    def data_nodes_of(self, path: str, block: int = 0) -> list[int]:
        """Return the numbers of the data nodes that have a replica of a block."""
        names = self.blocks(path)[block]["names"]
        ports = [node.program.ports for node in self.data_nodes]
        return [
            number
            for number, of_node in enumerate(ports)
            if any(f":{port}" in str(names) for port in of_node)
        ]

    def corrupt_block(self, path: str, at: int, *, replicas: int | None = None) -> None:
        """Flip a bit of the byte at `at` of a file; the data nodes do not notice yet.

        In this many replicas, by default in all: there may be one more than wanted, after a node was stopped.
        """
        located = self._request("GET", path, op="GET_BLOCK_LOCATIONS").json()["LocatedBlocks"][
            "locatedBlocks"
        ]
        block_id = located[at // BLOCK_BYTES]["block"]["blockId"]
        files = list(self._directory.rglob(f"blk_{block_id}"))
        assert len(files) >= (replicas or 1), f"{path} has {len(files)} replicas"
        for file in files[:replicas]:
            with file.open("r+b") as block:
                block.seek(at % BLOCK_BYTES)
                (byte,) = block.read(1)
                block.seek(at % BLOCK_BYTES)
                block.write(bytes([byte ^ 1]))

    def log(self) -> str:
        """Return the last part of what all processes wrote."""
        return "\n".join(program.log() for program in (self._name_node, *self.data_nodes))

    def _request(self, method: str, path: str, **parameters: str | int) -> requests.Response:
        answer = requests.request(
            method,
            f"http://{LOOPBACK}:{self.http_port}/webhdfs/v1{quote(path)}",
            params=parameters,
            timeout=HTTP_TIMEOUT_SECONDS,
        )
        assert answer.ok, f"{method} {path} {parameters}: {answer.text}"
        return answer

    # --- Configuration -------------------------------------------------------------------------------

    def _check_out_of_safe_mode(self) -> None:
        if self._bean(self.http_port, "NameNode", "FSNamesystemState")["FSState"] != "Operational":
            raise Unhealthy("the name node is in safe mode")

    def _wrong(self, alive: int) -> str | None:
        def check() -> None:
            state = self._bean(self.http_port, "NameNode", "FSNamesystemState")
            if (state["NumLiveDataNodes"], state["FSState"]) != (alive, "Operational"):
                raise Unhealthy(f"the name node: {state}")
            if alive < DATA_NODES:
                return
            if missing := self._bean(self.http_port, "NameNode", "NameNodeInfo")["NumberOfMissingBlocks"]:
                raise Unhealthy(f"{missing} blocks are missing")
            for node in self.data_nodes:
                # A node that was started again is alive for the name node before it is.
                port = sorted(node.program.ports)[1]
                info = self._bean(port, "DataNode", "DataNodeInfo")
                actors = orjson.loads(info.get("BPServiceActorInfo", "[]"))
                if [actor["ActorState"] for actor in actors] != ["RUNNING"]:
                    raise Unhealthy(f"{node.program.name}: {actors}")

        return health_problem(self._program("probe", (), check_health=check))

    @staticmethod
    def _bean(port: int, service: str, name: str) -> dict[str, Any]:
        """Return what a server says of itself."""
        where = f"http://{LOOPBACK}:{port}/jmx?qry=Hadoop:service={service},name={name}"
        beans = orjson.loads(probe(service, where))["beans"]
        if not beans:
            raise Unhealthy(f"{service} is only starting")
        found: dict[str, Any] = beans[0]
        return found

    def _program(self, name: str, command: tuple[str, ...], **more: Any) -> Program:
        return Program(
            name=name,
            command=command,
            directory=self._directory,
            log_file=self._directory / f"{name}.log",
            **{"check_health": lambda: None, **more},
        )

    def _command(self, main_class: str, settings: dict[str, str | int]) -> tuple[str, ...]:
        everywhere: dict[str, str | int] = {
            "fs.defaultFS": self.default_fs,
            "dfs.replication": REPLICATION,
            "dfs.permissions.enabled": "false",
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.heartbeat.recheck-interval": 1000,
            # A data node that reads for WebHDFS waits this long before it asks again where a block is.
            "dfs.client.retry.window.base": 10,
        }
        options = [f"{key}={value}" for key, value in (everywhere | settings).items()]
        return (
            *java_command(self._configuration),
            f"org.apache.hadoop.hdfs.server.{main_class}",
            *(part for option in options for part in ("-D", option)),
        )

    def _name_node_program(self) -> Program:
        settings: dict[str, str | int] = {
            "hadoop.tmp.dir": str(self._directory / "name-node"),
            "dfs.namenode.rpc-address": f"{LOOPBACK}:{self.rpc_port}",
            "dfs.namenode.http-address": f"{LOOPBACK}:{self.http_port}",
            "dfs.namenode.name.dir": str(self._directory / "name-node" / "name"),
            "dfs.namenode.safemode.extension": 0,
            "dfs.namenode.safemode.min.datanodes": DATA_NODES,
            # Tests list in pages; without this one a directory needs 1,000 files for a second one.
            "dfs.ls.limit": 3,
        }
        return self._program("name-node", self._command("namenode.NameNode", settings))

    def _data_node_program(self, number: int, port: int) -> Program:
        directory = self._directory / f"data-node-{number}"
        settings: dict[str, str | int] = {
            "hadoop.tmp.dir": str(directory),
            "dfs.datanode.data.dir": str(directory / "data"),
            "dfs.datanode.hostname": LOOPBACK,
            "dfs.datanode.address": f"{LOOPBACK}:{port}",
            "dfs.datanode.http.address": f"{LOOPBACK}:{port + 1}",
            "dfs.datanode.ipc.address": f"{LOOPBACK}:{port + 2}",
        }
        command = self._command("datanode.DataNode", settings)
        return self._program(f"data-node-{number}", command, ports={port: "", port + 1: "", port + 2: ""})


@pytest.fixture(scope="session")
def hdfs_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    directory = tmp_path_factory.mktemp("hdfs")
    cluster = Hdfs(directory)
    try:
        cluster.format_and_start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def hdfs(hdfs_cluster: Hdfs) -> Hdfs:
    """Return the HDFS of this test run, with all its processes running."""
    hdfs_cluster.start()
    return hdfs_cluster


@pytest.fixture
def hdfs_directory(hdfs: Hdfs) -> Iterator[str]:
    """Yield the path of a directory of this test's own, deleted after it with the damage in it."""
    path = f"/archive-{uuid.uuid4().hex[:12]}"
    yield path
    hdfs.start_name_node()
    hdfs.delete(path)
