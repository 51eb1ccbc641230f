"""How programs of Hadoop are started: with the jars of java/hadoop, for tests and measurements only."""

from pathlib import Path
from typing import Final

from local_stack.program import required
from telemetry_lake.settings import PROJECT_ROOT

HADOOP_FOLDER: Final = PROJECT_ROOT / "java" / "hadoop"


def java_command(*class_path: Path) -> tuple[str, ...]:
    """The beginning of a command that runs a class with Hadoop's jars, `class_path` in front of them."""
    jars = HADOOP_FOLDER / "lib"
    assert any(jars.glob("hadoop-hdfs-3*.jar")), f"{jars} has no Hadoop: run `make install`"
    return (
        required("java", package="openjdk-17-jre-headless"),
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.net.preferIPv4Stack=true",
        # The name node's WebHDFS defines classes by reflection; without this every request is answered 500.
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-cp",
        ":".join([*map(str, class_path), f"{jars}/*"]),
    )
