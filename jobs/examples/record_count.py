"""How many pings are there on each day?

Reads every ping, and of it only the submission date. `python -m telemetry_lake query` answers the same
from the metadata of the table, without opening a file.

Output: submission date as YYYYMMDD, pings.
"""


def map(key, dimensions, value, context):
    context.write(dimensions[-1], 1)


def reduce(key, values, context):
    context.write(key, sum(values))


combine = reduce
