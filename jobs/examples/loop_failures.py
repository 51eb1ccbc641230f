"""How many calls of Firefox Hello (Loop) failed on each day, and how far had they come?

Reads the pings that Firefox sent when a call could not be connected (reason `loop`, report `ice failure`).
`connectionstate` is what WebRTC says of the attempt to find a way between the two (`failed`, `disconnected`,
…); descriptions and logs of the connection are in the ping as well, and are not looked at. A report that was
sent again counts once.

Output (CSV): submission date, state of the connection, failed calls.
"""

import json

from from_clients import inside, text

REPORT = "ice failure"


def map(key, dimensions, value, context):
    document = json.loads(value)
    if inside(document, "report") == REPORT:
        context.write((dimensions[5], text(inside(document, "connectionstate"))), key)


def combine(key, values, context):
    for document_id in sorted(set(values)):
        context.write(key, document_id)


def reduce(key, values, context):
    context.writecsv([*key, len(set(values))])
