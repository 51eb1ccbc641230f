"""Which phones run Firefox OS, in which networks, and how long after their first use do they report?

Reads the pings of Firefox OS (version 3), one for each phone that was set up: facts about the device, its SIM
card (`icc`) and its network. Times are milliseconds since 1970.

Output (CSV): submission date, fact, one to three values, pings. The fact `time_to_ping` has the whole hours
between first use and ping; in the line `median_time_to_ping` the median of the hours stands in place of the
pings. Whatever a phone does not say is `unknown`.
"""

import json
from statistics import median

from from_clients import inside, number, text

UNKNOWN = "unknown"
MEDIAN = "median_time_to_ping"
HOUR_MS = 60 * 60 * 1000
FACTS = {
    "os": ("deviceinfo.os",),
    "software": ("deviceinfo.software",),
    "hardware": ("deviceinfo.hardware",),
    "model": ("deviceinfo.product_model",),
    "firmware_revision": ("deviceinfo.firmware_revision",),
    "locale": ("locale",),
    "resolution": ("screenWidth", "screenHeight"),
    "pixel_ratio": ("devicePixelRatio",),
}
NETWORKS = {"icc": ("mnc", "mcc", "spn"), "network": ("mnc", "mcc", "operator")}


def map(key, dimensions, value, context):
    channel, submission_date = dimensions[2], dimensions[5]
    document = json.loads(value)
    context.write((submission_date, "ping_count"), 1)
    context.write((submission_date, "update_channel", channel), 1)
    for fact, names in FACTS.items():
        context.write((submission_date, fact, *(said(inside(document, name)) for name in names)), 1)
    for fact, names in NETWORKS.items():
        context.write((submission_date, fact, *(said(inside(document, fact, name)) for name in names)), 1)
    hours = hours_to_ping(document)
    context.write((submission_date, "time_to_ping", UNKNOWN if hours is None else str(round(hours))), 1)
    if hours is not None:
        context.write((submission_date, MEDIAN), hours)


def reduce(key, values, context):
    context.writecsv([*key, round(median(values), 2) if key[1] == MEDIAN else sum(values)])


def said(value):
    """A value as text: names as they are, numbers as they are written."""
    measured = number(value)
    return text(value, UNKNOWN) if measured is None else str(measured)


def hours_to_ping(document):
    """The hours between the first use of the phone and its ping; None when the phone cannot know."""
    ping, activation = (milliseconds(inside(document, name)) for name in ("pingTime", "activationTime"))
    if ping is None or activation is None or ping < activation:
        return None
    return (ping - activation) / HOUR_MS


def milliseconds(value):
    """A time that is a number, or text that is one; None otherwise."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return number(value)
