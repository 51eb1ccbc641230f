"""The process from which Spark forks its Python workers on this machine; `spark_session` lets Spark start it.

It is `pyspark.daemon` but for what each task of a worker would pay for again:

- A task begins with `importlib.invalidate_caches`, which reads the directory of every archive on the path
  again, in Python. Spark puts its own JAR and archives there, 50,000 entries in all: most of what a short
  task costs. The same modules lie unpacked in the installed package, so the archives are left out.
- A task ends with a collection of garbage, which visits every object of every module. Objects from before the
  fork are exempt from it.
- Modules that every worker imports are imported here, once.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

DAEMON_MODULE: Final = "jobs.python_workers"
"""The value of `spark.python.daemon.module`."""
IMPORTS: Final = "PYTHON_WORKER_IMPORTS"
"""The environment variable that names, with commas between them, what workers will import."""


def without_archives(path: Sequence[str]) -> list[str]:
    """Return `path` without Spark's archives, if their modules are found unpacked in the same installation.

    An archive of another installation stays: its modules have to be those of its JVM.
    """
    unpacked = [entry for entry in path if Path(entry).suffix not in (".zip", ".jar")]
    spark, py4j = (PathFinder.find_spec(name, unpacked) for name in ("pyspark", "py4j"))
    if spark is None or spark.origin is None or py4j is None:
        return list(path)
    installed = Path(spark.origin).resolve().parent
    return [
        entry for entry in path if entry in unpacked or not Path(entry).resolve().is_relative_to(installed)
    ]


def main() -> None:
    """Serve Spark until it ends."""
    sys.path[:] = without_archives(sys.path)
    sys.path_importer_cache.clear()
    from pyspark import daemon

    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):  # noqa: TID251 (set by spark_session)
        # A worker that needs a missing module fails with a message that reaches the driver.
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    daemon.manager()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
