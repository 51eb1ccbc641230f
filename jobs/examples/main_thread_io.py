"""Which files does Firefox touch on its main thread, how often, and how long does that take?

Reads pings of Firefox with `fileIOReports`: for each file (its folder replaced by `{xre}` or `{profile}`) the
milliseconds it took altogether, and how often it was created or opened, read, written, synced and looked up.
A file that fewer than PINGS_MIN_COUNT pings name is left out: its name might say whose it is.

Output (CSV): submission date, application, version, channel, file, pings, median milliseconds, median number
of operations. The line of the file TOTAL has the number of pings with any report; of the file ODD, the
number of entries that could not be understood.
"""

import json
from statistics import median

from from_clients import measurements, members, numbers, text

PINGS_MIN_COUNT = 10
TOTAL, ODD = "TOTAL", "ODD"


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, submission_date = dimensions
    source = (submission_date, app_name, version, channel)
    reports = members(measurements(json.loads(value)), "fileIOReports")
    if reports:
        context.write((*source, TOTAL), (0, 0))
    for file, report in reports:
        if numbers(report, 6) is None:
            context.write((*source, ODD), (0, 0))
        else:
            milliseconds, *operations = report
            context.write((*source, text(file)), (milliseconds, sum(operations)))


def reduce(key, values, context):
    if key[-1] in (TOTAL, ODD):
        context.writecsv([*key, len(values), "", ""])
    elif len(values) >= PINGS_MIN_COUNT:
        context.writecsv([*key, len(values), *(median(column) for column in zip(*values, strict=True))])
