"""Which versions of the Flash plugin are in use, on which versions of Firefox and Windows?

Reads pings of Firefox on Windows and of Fennec: `info.flashVersion` until 2015, then the plugin called
Shockwave Flash among `environment.addons.activePlugins`. NA stands for clients without Flash.

Output (CSV): application, version, channel, operating system, its version, version of Flash, pings.
"""

import json

from from_clients import inside, text

DESKTOP = ("Firefox", "MetroFirefox")
MOBILE = "Fennec"
WINDOWS = ("WINNT", "Windows_NT")
PLUGIN = "Shockwave Flash"
NONE = "NA"


def map(key, dimensions, value, context):
    _reason, app_name, channel, version, _build_id, _submission_date = dimensions
    if app_name != MOBILE and app_name not in DESKTOP:
        return
    document = json.loads(value)
    info = inside(document, "info")
    system = inside(document, "environment", "system", "os")
    os = text(inside(info, "OS") or inside(system, "name"))
    if app_name in DESKTOP and os not in WINDOWS:
        return
    os_version = text(inside(info, "version") or inside(system, "version"), NONE)
    flash = text(inside(info, "flashVersion") or plugin_version(document), NONE)
    context.write((app_name, version, channel, os, os_version, flash), 1)


def combine(key, values, context):
    context.write(key, sum(values))


def reduce(key, values, context):
    context.writecsv([*key, sum(values)])


def plugin_version(document):
    """The version of the Flash plugin that a unified ping lists; None without."""
    plugins = inside(document, "environment", "addons", "activePlugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        if inside(plugin, "name") == PLUGIN:
            return inside(plugin, "version")
    return None
