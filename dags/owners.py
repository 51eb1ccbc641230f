"""Who cares for a DAG: the owner that Airflow shows and filters by. docs/airflow.md says what each does."""

from typing import Final

OPERATORS: Final = "lake operators"
"""Every ping has to arrive: the drain, and what proves and repairs."""
ENGINEERS: Final = "data engineers"
"""The tables that are made of the live ones, the dashboard, and the historic archive."""
ANALYSIS_SERVICE: Final = "analysis service"
"""The runs of analysts; what is wrong in a script is for the owner of its job."""
