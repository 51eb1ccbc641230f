"""The same question as os_distribution.py, asked of a column: which operating systems do we hear from?

`fields` names the columns that the script needs. Then `value` is a dict of these columns, nothing else is
read, and nothing is parsed.

Output: operating system as the client names it, pings.
"""

fields = ("os",)


def map(key, dimensions, value, context):
    context.write(value["os"] or "UNKNOWN", 1)


def reduce(key, values, context):
    context.write(key, sum(values))


combine = reduce
