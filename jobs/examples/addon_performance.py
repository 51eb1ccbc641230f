"""How long do add-ons take to start, to shut down and to be looked through for changes?

Reads pings of Firefox with `addonDetails.XPI`: for each add-on its name and measurements, those that end in
`_MS` in milliseconds, and `scan_items`, the number of its files. Values are put into buckets that double
every two steps (…, 64, 90.5, 128, …), so that they can be added up before they are sent around. When one
measurement is not a number, or longer than LONGEST_MS, the ping's entry of this add-on is left out.

Output (CSV): application, operating system, major version, channel, add-on id, measurement, text, pings,
mean, median and 95th percentile, the last two as the lower bounds of their buckets. For some lines the last
three are empty: the measurement `name` has the names that pings gave the add-on as text, `exception` the
message with which the add-on manager failed, and `sessions` only the number of pings.
"""

import json
import math
import re
from collections import Counter

from from_clients import inside, measurements, members, number, text

LONGEST_MS = 20 * 60 * 1000
STEPS_TO_DOUBLE = 2
SESSIONS, EXCEPTION, NAME, SUM = "sessions", "exception", "name", "sum"
SCANNED = "scan_items"


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, _submission_date = dimensions
    document = json.loads(value)
    os = inside(document, "info", "OS") or inside(document, "environment", "system", "os", "name")
    source = (app_name, text(os), major_version(version), channel)
    context.write((*source, "", SESSIONS), Counter({"": 1}))
    measured = measurements(document)
    exception = inside(measured, "simpleMeasurements", "addonManager", "exception")
    if exception is not None:
        message = exception if isinstance(exception, str) else json.dumps(exception, sort_keys=True)
        context.write((*source, "", EXCEPTION), Counter({text(message): 1}))
    for addon, details in members(measured, "addonDetails", "XPI"):
        timed = {
            name: number(taken) for name, taken in members(details) if name.endswith("_MS") or name == SCANNED
        }
        if any(taken is None or taken > LONGEST_MS for taken in timed.values()):
            continue
        for name, taken in timed.items():
            context.write((*source, text(addon), name), Counter({bucket_of(taken): 1, SUM: taken}))
        if timed:
            context.write((*source, text(addon), NAME), Counter({text(inside(details, "name"), "?"): 1}))


def combine(key, values, context):
    context.write(key, added(values))


def reduce(key, values, context):
    *source, addon, measurement = key
    found = added(values)
    if measurement in (SESSIONS, EXCEPTION, NAME):
        for named, pings in sorted(found.items()):
            context.writecsv([*source, addon, measurement, named, pings, "", "", ""])
        return
    total = found.pop(SUM)
    pings = sum(found.values())
    context.writecsv(
        [
            *(*source, addon, measurement, "", pings, round(total / pings, 1)),
            *(percentile(found, pings, percent) for percent in (50, 95)),
        ]
    )


def major_version(version):
    """The digits that a version begins with; all of one that does not begin with digits."""
    digits = re.match(r"\d+", version)
    return digits[0] if digits else version


def added(counters):
    """The sum of several counters."""
    total: Counter[str | int] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def bucket_of(taken):
    """The number of the bucket: STEPS_TO_DOUBLE times the binary logarithm, rounded down; -1 below 1."""
    return math.floor(STEPS_TO_DOUBLE * math.log2(taken)) if taken >= 1 else -1


def percentile(buckets, count, percent):
    """The lower bound of the bucket that has the value with that many percent of the others below it."""
    reached = 0
    for bucket, pings in sorted(buckets.items()):
        reached += pings
        if reached * 100 >= count * percent:
            return 0 if bucket < 0 else round(2 ** (bucket / STEPS_TO_DOUBLE), 1)
    raise AssertionError("the buckets hold fewer values than were counted")
