"""Which SQL statements of Firefox take long, on which thread, how often, and how long?

Reads pings of Firefox with `slowSQL`: for the main thread and for all others, statements that took more than
a moment (100 ms), each with how often it ran and how many milliseconds it took altogether. Text in quotes
may be what a user typed or visited: it is replaced by `:private` before anything is written, and
statements that are the same from then on are counted together. Statements that ran less than
INVOCATIONS_MIN_COUNT times are left out.

Output (CSV): thread (`mainThread`, `otherThreads`), submission date, application, version, channel,
statement, pings with it, invocations, total milliseconds, median over the pings of the milliseconds of one
invocation. A line with the thread TOTAL has the number of all pings that were read; one with ODD, the number
of entries that could not be understood.
"""

import json
import re
from collections import defaultdict
from statistics import median

from from_clients import measurements, members, numbers, text

INVOCATIONS_MIN_COUNT = 100
THREADS = ("mainThread", "otherThreads")
PLACEHOLDER = ":private"

# A quote that is doubled belongs to the text. A quote that never ends hides all that follows.
LITERAL = re.compile(r"""'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)""")


def without_literals(statement):
    """The statement with a placeholder in place of everything that stands in quotes."""
    return LITERAL.sub(PLACEHOLDER, statement)


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, submission_date = dimensions
    source = (submission_date, app_name, version, channel)
    context.write(("TOTAL", *source, ""), (1, 0))
    slow = measurements(json.loads(value))
    for thread in THREADS:
        found: dict[str, tuple[float, float]] = defaultdict(lambda: (0, 0))
        for statement, measured in members(slow, "slowSQL", thread):
            if numbers(measured, 2) is None or not measured[0]:
                context.write(("ODD", *source, ""), (1, 0))
                continue
            readable = text(" ".join(without_literals(statement).split()))
            count, milliseconds = found[readable]
            found[readable] = (count + measured[0], milliseconds + measured[1])
        for statement, measured in found.items():
            context.write((thread, *source, statement), measured)


def reduce(key, values, context):
    if key[0] not in THREADS:
        context.writecsv([*key, len(values), "", "", ""])
        return
    invocations = sum(count for count, _ in values)
    if invocations >= INVOCATIONS_MIN_COUNT:
        milliseconds = sum(taken for _, taken in values)
        middle = median(taken / count for count, taken in values)
        context.writecsv([*key, len(values), invocations, milliseconds, round(middle, 1)])
