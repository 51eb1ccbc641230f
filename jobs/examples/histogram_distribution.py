"""What did users answer, so to speak: how many samples has each bucket of these histograms?

Reads pings of Firefox that have any of HISTOGRAMS, in the process of the user interface. They are in compact
form: the count of every bucket, then SUMS_COUNT sums. Versions of Firefox may differ in how many buckets a
histogram has; such pings are not added up but have a line of their own. For percentiles and plots of one
histogram see telemetry_lake.analysis.

Output (CSV): histogram, channel, buckets, pings, then the samples of each bucket.
"""

import json

from from_clients import inside, measurements

HISTOGRAMS = ("NEWTAB_PAGE_ENABLED", "NEWTAB_PAGE_PINNED_SITES_COUNT")
SUMS_COUNT = 5


def map(key, dimensions, value, context):
    found = inside(measurements(json.loads(value)), "histograms")
    for name in HISTOGRAMS:
        compact = inside(found, name)
        # One whose buckets are unknown stays an object, as it was sent.
        if isinstance(compact, list):
            counts = compact[:-SUMS_COUNT]
            context.write((name, dimensions[2], len(counts)), [1, *counts])


def combine(key, values, context):
    context.write(key, [sum(column) for column in zip(*values, strict=True)])


def reduce(key, values, context):
    pings, *counts = (sum(column) for column in zip(*values, strict=True))
    context.writecsv([*key, pings, *counts])
