"""Who takes part in which experiment, how did it begin, and why did it end?

Reads pings of Firefox. Until 2016 an experiment was an add-on: it began and ended with an entry of the `log`
of the ping (`EXPERIMENT_ACTIVATION`, `EXPERIMENT_TERMINATION`, each with what happened and the experiment),
and while it ran it was `environment.addons.activeExperiment`. Since then `environment.experiments` lists all
that are active, with their branches.

Output (CSV): what (TOTAL, ACTIVE, EXPERIMENT_ACTIVATION, EXPERIMENT_TERMINATION), channel, version,
experiment, detail (the branch of an active one, else how it began or ended), pings. TOTAL is the number of
all pings.
"""

import json

from from_clients import inside, measurements, members, text

ACTIVATION, TERMINATION = "EXPERIMENT_ACTIVATION", "EXPERIMENT_TERMINATION"
LOGGED = (ACTIVATION, TERMINATION)


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, _submission_date = dimensions
    if app_name != "Firefox":
        return
    document = json.loads(value)
    found = {("TOTAL", "", "")}
    log = inside(measurements(document), "log")
    for entry in log if isinstance(log, list) else ():
        # What, when in milliseconds since the start, what happened, to which experiment, and sometimes more.
        if isinstance(entry, list) and len(entry) >= 4 and entry[0] in LOGGED:
            found.add((entry[0], text(entry[3]), text(entry[2])))
    addon = inside(document, "environment", "addons", "activeExperiment")
    if inside(addon, "id"):
        found.add(("ACTIVE", text(inside(addon, "id")), text(inside(addon, "branch"), "")))
    for experiment, taken in members(document, "environment", "experiments"):
        found.add(("ACTIVE", text(experiment), text(inside(taken, "branch"), "")))
    for what, experiment, detail in found:
        context.write((what, channel, version, experiment, detail), 1)


def combine(key, values, context):
    context.write(key, sum(values))


def reduce(key, values, context):
    context.writecsv([*key, sum(values)])
