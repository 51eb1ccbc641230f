"""From how many pings of which operating system do we hear?

Reads every ping; Firefox names it in `info.OS`, since 2015 in `environment.system.os.name`, and Glean in
`client_info.os`. The smallest script that looks into documents. The same answer
comes from the column `os` without parsing anything: see os_column.py.

Output: operating system as the client names it, pings.
"""

import json

from from_clients import inside, text


def map(key, dimensions, value, context):
    document = json.loads(value)
    named = (
        inside(document, "info", "OS")
        or inside(document, "environment", "system", "os", "name")
        or inside(document, "client_info", "os")
    )
    context.write(text(named), 1)


def reduce(key, values, context):
    context.write(key, sum(values))


combine = reduce
