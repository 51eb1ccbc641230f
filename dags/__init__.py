"""When things happen, in what order, and how often they are tried: the DAGs, and nothing else.

How anything is done is in `telemetry_lake` and `jobs`.
"""
