"""Start programs of Hadoop with the jars of java/hadoop, for tests and measurements only."""

from pathlib import Path
from typing import Final

from local_stack.program import required
from telemetry_lake.project_files import PROJECT_ROOT

HADOOP_FOLDER: Final = PROJECT_ROOT / "java" / "hadoop"


def java_command(*class_path: Path) -> tuple[str, ...]:
    """Return the beginning of a command that runs a class with `class_path` and Hadoop's jars."""
    jars = HADOOP_FOLDER / "lib"
    assert any(jars.glob("hadoop-hdfs-3*.jar")), f"{jars} has no jars of Hadoop: run `make install`"
    return (
        required("java", package="openjdk-17-jre-headless"),
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.net.preferIPv4Stack=true",
        # The name node's WebHDFS defines classes by reflection; without this it answers 500 to every request.
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-cp",
        ":".join([*map(str, class_path), f"{jars}/*"]),
    )
