"""How many pings came from each channel and version, for each reason?

Reads every ping, and of it nothing but its dimensions: what `value` holds is never made.

Output (CSV): application, channel, version, reason, pings.
"""


def map(key, dimensions, value, context):
    reason, app_name, channel, version, _build_id, _submission_date = dimensions
    context.write((app_name, channel, version, reason), 1)


def combine(key, values, context):
    context.write(key, sum(values))


def reduce(key, values, context):
    context.writecsv([*key, sum(values)])
