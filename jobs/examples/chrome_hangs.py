"""Where does the user interface of Firefox hang, how often and for how long?

Reads pings of Firefox on Windows with `chromeHangs`: stacks of the main thread, which had not answered for
some seconds. A stack is a list of [module, offset] pairs; `memoryMap` names the modules with their debug
ids, so that a symbol server can name the functions. Stacks are the same when their first FRAMES_COUNT frames
are.

Output (CSV): submission date, application, version, channel, stack (`module+offset` separated by `|`), hangs,
seconds altogether, median seconds of a hang, median minutes that Firefox had been running, median minutes
that the system had. A median is empty when no ping has it.
"""

import json
from statistics import median

from from_clients import inside, measurements, number

FRAMES_COUNT = 10


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, submission_date = dimensions
    hangs = inside(measurements(json.loads(value)), "chromeHangs")
    stacks = inside(hangs, "stacks")
    if not isinstance(stacks, list):
        return
    modules = inside(hangs, "memoryMap")
    for index, stack in enumerate(stacks):
        signature = signature_of(stack, modules)
        if signature:
            measured = tuple(
                element(inside(hangs, name), index) for name in ("durations", "firefoxUptime", "systemUptime")
            )
            context.write((submission_date, app_name, version, channel, signature), measured)


def reduce(key, values, context):
    durations, of_firefox, of_system = (
        [one for one in column if one is not None] for column in zip(*values, strict=True)
    )
    context.writecsv(
        [
            *key,
            len(values),
            sum(durations),
            *(median(column) if column else "" for column in (durations, of_firefox, of_system)),
        ]
    )


def signature_of(stack, modules):
    """Return the first frames in one line; empty when this is not a stack."""
    if not isinstance(stack, list):
        return ""
    frames = []
    for frame in stack[:FRAMES_COUNT]:
        if not (isinstance(frame, list) and len(frame) == 2 and all(isinstance(part, int) for part in frame)):
            return ""
        module, offset = frame
        frames.append(f"{module_name(modules, module)}+{offset:#x}")
    return "|".join(frames)


def module_name(modules, index):
    """The name of a module; code that was made while running belongs to none, which has the index -1."""
    if not isinstance(modules, list) or not 0 <= index < len(modules):
        return "?"
    module = modules[index]
    named = isinstance(module, list) and module and isinstance(module[0], str)
    return module[0] if named else "?"


def element(values, index):
    """Return the number at `index` of a list, or None when the list has no number there."""
    return number(values[index]) if isinstance(values, list) and index < len(values) else None
