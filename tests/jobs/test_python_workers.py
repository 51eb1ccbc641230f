"""The process that Python workers are forked from: what it leaves out, and that workers work without it."""

import gc
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyspark
from pyspark.sql import SparkSession

from jobs.python_workers import without_archives

INSTALLED = Path(pyspark.__file__).parent
ARCHIVES = [str(file) for file in (INSTALLED / "python" / "lib").glob("*.zip")]
JAR = str(next((INSTALLED / "jars").glob("spark-core_*.jar")))


def test_archives_of_the_installed_spark_are_left_out() -> None:
    assert len(ARCHIVES) == 2
    assert without_archives(["", *ARCHIVES, JAR, *sys.path, "/no such"]) == ["", *sys.path, "/no such"]


def test_other_archives_stay(tmp_path: Path) -> None:
    """Those of another installation and those of a user."""
    other = tmp_path / "spark" / "python" / "lib" / "pyspark.zip"
    other.parent.mkdir(parents=True)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("pyspark/__init__.py", "")
    path = [str(other), *ARCHIVES, *sys.path]
    assert without_archives(path) == [str(other), *sys.path]


def test_without_an_installed_package_archives_stay(tmp_path: Path) -> None:
    path = [*ARCHIVES, JAR, str(tmp_path)]
    assert without_archives(path) == path


def test_workers_import_the_installed_package_and_collect_only_their_own_garbage(spark: SparkSession) -> None:
    def told(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import sys
        from zipimport import zipimporter

        archives = [one for one in sys.path_importer_cache.values() if isinstance(one, zipimporter)]
        for _ in batches:
            yield pa.RecordBatch.from_pydict(
                {
                    "place": [str(sys.modules["pyspark.worker"].__file__)],
                    "archives": pa.array([len(archives)], pa.int32()),
                    "frozen": pa.array([gc.get_freeze_count()], pa.int32()),
                }
            )

    types = "place string, archives int, frozen int"
    rows: list[Any] = spark.range(0, 4, 1, 4).mapInArrow(told, types).collect()
    assert len(rows) == 4
    for row in rows:
        assert Path(row.place) == INSTALLED / "worker.py"
        assert row.archives == 0
        assert row.frozen > 10_000
