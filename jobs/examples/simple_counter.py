"""Which documents did clients send more than once, and how often?

Reads every ping; run it with `--table live`, because the stable table has each document once. Clients send
again what they believe lost, most of it within minutes.

Output: document id, how often it was received; only ids that were received at least twice.
"""

REPEATED_MIN_COUNT = 2


def map(key, dimensions, value, context):
    context.write(key, 1)


def combine(key, values, context):
    context.write(key, sum(values))


def reduce(key, values, context):
    received = sum(values)
    if received >= REPEATED_MIN_COUNT:
        context.write(key, received)
