"""Imported by each of Airflow's processes; the local stack and the containers put it into Airflow's home.

The scheduler forks a process for every task. What it has imported before is there at once in each of them:
Great Expectations alone takes 4 to 13 seconds to import, in every task, without this.
"""

import importlib
import sys

__all__: list[str] = []

_HEAVY = (
    "boto3",
    "great_expectations",
    "jsonschema_rs",
    "pandas",
    "polars",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
)

if sys.argv[1:2] == ["scheduler"]:
    for _name in _HEAVY:
        importlib.import_module(_name)
