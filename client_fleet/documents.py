"""The documents that the fleet sends, in Mozilla's public formats.

Unified pings: https://firefox-source-docs.mozilla.org/toolkit/components/telemetry/data/common-ping.html
Glean pings: https://mozilla.github.io/glean/book/user/pings/index.html

A large document is made of sections that were written and compressed when `DocumentSource` was made and
of patches that are its own: ids, dates, counters, build and timings. Sections come in many variants for
each place, so that two documents of one fleet practically never have the same text.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import orjson

from client_fleet.clients import ACTIVITY_LEVELS, Application, Client, Machine, random_machines, random_uuid
from client_fleet.gzip_parts import Document, Section, SmallDocument, section
from client_fleet.histograms import (
    HistogramDefinition,
    histogram_definitions,
    histogram_entries,
    histogram_text,
)
from telemetry_lake.histograms.bucket_ranges import FUNCTIONAL_RANGES, HistogramType, bucket_bounds

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

VARIANTS_COUNT: Final = 16
"""How many variants of every section there are for each level of activity."""
_FIRST_HISTOGRAMS: Final = 182
"""As many of the parent's definitions are in the first section of histograms, the others in the second."""
_CONTENT_HISTOGRAMS: Final = 96
"""The last definitions are recorded in content processes, all others in the parent process."""
_KEYED_HISTOGRAMS: Final = 9
_UNIFIED_VERSION: Final = 4
_FIRST_DAY: Final = datetime(1970, 1, 1, tzinfo=UTC)

MAIN_REASONS: Final = (("shutdown", 72), ("environment-change", 16), ("daily", 9), ("aborted-session", 3))
_ADDONS: Final = (
    "uBlock0@raymondhill.net", "addon@darkreader.org", "{446900e4-71c2-419f-a6a7-df9c091e268b}",
    "jid1-MnnxcxisBPnSXQ@jetpack", "formautofill@mozilla.org", "pictureinpicture@mozilla.org",
    "screenshots@mozilla.org", "webcompat@mozilla.org", "langpack-de@firefox.mozilla.org",
    "@testpilot-containers", "sponsorBlocker@ajay.app", "{73a6fe31-595d-460b-a920-fcc0f8843232}",
)  # fmt: skip
_GRAPHICS: Final = (
    ("Intel(R) UHD Graphics 620", "0x8086", "0x5917"), ("NVIDIA GeForce GTX 1650", "0x10de", "0x1f82"),
    ("AMD Radeon(TM) Graphics", "0x1002", "0x1638"), ("Intel(R) Iris(R) Xe Graphics", "0x8086", "0x9a49"),
    ("Apple M2", "0x106b", "0x0"), ("NVIDIA GeForce RTX 3060", "0x10de", "0x2503"),
)  # fmt: skip
_SCALARS: Final = tuple(
    f"{category}.{name}"
    for category in ("browser.engagement", "browser.ui", "media", "networking", "security", "startup", "wr")
    for name in ("active_ticks", "total_uri_count", "max_concurrent_tab_count", "unique_domains_count",
                 "session_time_ms", "picked_count", "error_count", "retry_count")
)  # fmt: skip
_TIMES, _SIZES = (
    [bound for bound in bucket_bounds(FUNCTIONAL_RANGES[kind]) if 2**10 <= bound < 2**30]
    for kind in (HistogramType.TIMING_DISTRIBUTION, HistogramType.MEMORY_DISTRIBUTION)
)
_STATEMENTS: Final = (
    "SELECT id FROM moz_places WHERE url_hash = :hash", "DELETE FROM moz_cookies WHERE name = :name",
    "UPDATE moz_bookmarks SET position = :position", "INSERT INTO moz_inputhistory VALUES (:place, :input)",
    "SELECT data FROM moz_icons WHERE id = :id",
)  # fmt: skip
_EVENTS: Final = (
    ("navigation", "search", "urlbar", "enter"),
    ("addonsManager", "update", "extension", "completed"),
    ("security.ui.identitypopup", "open", "identity_popup", None),
    ("uptake.remotecontent.result", "uptake", "remotesettings", "success"),
    ("normandy", "enroll", "preference_study", "rollout-0"),
    ("pictureinpicture", "create", "player", "2"),
)  # fmt: skip


class DocumentSource:
    """Everything that documents are made of, drawn from `rng` once; making one takes about half a second."""

    def __init__(self, rng: Random) -> None:
        self.machines = random_machines(rng)
        definitions = histogram_definitions()
        parent, content = definitions[:-_CONTENT_HISTOGRAMS], definitions[-_CONTENT_HISTOGRAMS:]
        self._environments = [section(_environment(rng, machine)) for machine in self.machines]
        first, second = parent[:_FIRST_HISTOGRAMS], parent[_FIRST_HISTOGRAMS:]
        self._payloads = [
            _variants(lambda activity: histogram_entries(rng, first, activity)),
            _variants(lambda activity: b"," + histogram_entries(rng, second, activity)),
            _variants(
                lambda activity: _keyed_histograms(rng, parent, activity) + _processes(rng, content, activity)
            ),
        ]

    def main_ping(
        self, rng: Random, client: Client, document_id: str, created: datetime, *, saved_session: bool = False
    ) -> Document:
        """Return a `main` ping, or a `saved-session`, which is the same for a whole session.

        The client's counters move on. `created` is when the client made it, by its own clock.
        """
        reason = "saved-session" if saved_session else _choose(rng, MAIN_REASONS)
        head = _common(client, document_id, created, "saved-session" if saved_session else "main")
        environment_build = _environment_build(client.application, client.machine.architecture)
        parts: list[bytes | Section] = [
            # Without the brace at the end, as the environment and the rest of the payload follow.
            orjson.dumps(head)[:-1] + b',"environment":{"build":' + environment_build + b",",
            self._environments[client.machine.number],
            b'"payload":'
            + orjson.dumps(_payload_head(rng, client, created, reason))[:-1]
            + b',"histograms":{',
            *(variants[client.activity][int(rng.random() * VARIANTS_COUNT)] for variants in self._payloads),
        ]
        _end_subsession(rng, client, ends_session=reason in ("shutdown", "saved-session", "aborted-session"))
        return Document(tuple(parts))


def main_ping(rng: Random, client: Client, created: datetime, source: DocumentSource) -> bytes:
    """Return the JSON text of one `main` ping with an id of its own, about 72 KB."""
    return source.main_ping(rng, client, random_uuid(rng), created).json()


def event_ping(rng: Random, client: Client, document_id: str, created: datetime) -> SmallDocument:
    """Return an `event` ping: what the parent process recorded since the last one."""
    document = _common(client, document_id, created, "event")
    uptime = int(rng.expovariate(1 / 3_600_000))
    events = []
    for _ in range(1 + int(rng.expovariate(1 / 12))):
        category, method, name, value = rng.choice(_EVENTS)
        uptime += int(rng.expovariate(1 / 60_000))
        event: list[object] = [uptime, category, method, name]
        if value is not None:
            event += [value, {"engine": "google", "numChars": str(rng.randrange(1, 40))}]
        events.append(event)
    document["payload"] = {
        "reason": rng.choice(("periodic", "max", "shutdown")),
        "processStartTimestamp": int(created.timestamp() * 1000) - uptime,
        "sessionId": client.session_id,
        "subsessionId": client.subsession_id,
        "lostEventsCount": 0,
        "events": {"parent": events},
    }
    return SmallDocument(orjson.dumps(document))


def crash_ping(rng: Random, client: Client, document_id: str, created: datetime) -> SmallDocument:
    """Return a `crash` ping with the frames of the thread that crashed; it has an id, and no environment."""
    document = _common(client, document_id, created, "crash")
    frames = [
        {"ip": f"0x{rng.getrandbits(47):x}", "module_index": rng.randrange(3), "trust": "cfi"}
        for _ in range(rng.randrange(10, 60))
    ]
    document["payload"] = {
        "version": 1,
        "crashDate": created.date().isoformat(),
        "crashTime": created.strftime("%Y-%m-%dT%H:00:00.000Z"),
        "crashId": random_uuid(rng),
        "sessionId": client.session_id,
        "processType": rng.choice(("main", "content", "gpu")),
        "hasCrashEnvironment": False,
        "minidumpSha256Hash": f"{rng.getrandbits(256):064x}",
        "stackTraces": {
            "status": "OK",
            "crash_info": {"type": "SIGSEGV", "address": f"0x{rng.getrandbits(32):x}", "crashing_thread": 0},
            "main_module": 0,
            "modules": [
                {
                    "filename": name,
                    "base_addr": f"0x{rng.getrandbits(44):x}",
                    "version": client.application.version,
                }
                for name in ("firefox", "xul", "nss3")
            ],
            "threads": [{"frames": frames}],
        },
        "metadata": {
            "ProductName": client.application.name,
            "ReleaseChannel": client.application.channel,
            "BuildID": client.application.build_id,
            "UptimeTS": f"{rng.random() * 90_000:.2f}",
            "StartupCrash": "0",
        },
    }
    return SmallDocument(orjson.dumps(document))


def baseline_ping(rng: Random, client: Client, created: datetime) -> SmallDocument:
    """Return a Glean `baseline` ping: how long the application was in use. Its id is in the path alone."""
    active = rng.random() < 0.6
    document = _glean(rng, client, created, "active" if active else "inactive", timedelta(hours=4))
    document["metrics"] = {
        "datetime": {"glean.validation.first_run_hour": _glean_time(_first_run(client, created))},
        "counter": {"browser.engagement.uri_count": 1 + int(rng.expovariate(1 / 30))},
        "string": {"glean.baseline.locale": client.machine.locale},
        "labeled_counter": {
            "glean.validation.pings_submitted": {"baseline": 1 + int(rng.expovariate(1 / 3))}
        },
    } | (
        {}
        if active
        else {
            "timespan": {"glean.baseline.duration": {"time_unit": "second", "value": rng.randrange(5, 9_000)}}
        }
    )
    return SmallDocument(orjson.dumps(document))


def metrics_ping(rng: Random, client: Client, created: datetime) -> SmallDocument:
    """Return a Glean `metrics` ping, sent about once a day. Its id is in the path alone."""
    document = _glean(
        rng,
        client,
        created,
        _choose(rng, (("overdue", 5), ("today", 2), ("tomorrow", 2), ("upgrade", 1))),
        timedelta(days=1),
    )
    document["metrics"] = {
        "boolean": {"browser.shell.default_browser": rng.random() < 0.7, "a11y.enabled": rng.random() < 0.05},
        "counter": {name: 1 + int(rng.expovariate(1 / 50)) for name in rng.sample(_SCALARS, 14)},
        "quantity": {"gfx.adapter.ram": rng.choice((512, 1_024, 4_096, 8_192))},
        "string": {"search.default_engine": rng.choice(("google-b-d", "ddg", "bing", "ecosia"))},
        "uuid": {"legacy.telemetry.profile_group_id": client.profile_group_id},
        "timing_distribution": {name: _glean_distribution(rng, _TIMES) for name in rng.sample(_SCALARS, 10)},
        "memory_distribution": {"memory.total": _glean_distribution(rng, _SIZES)},
        "labeled_counter": {
            "glean.error.invalid_overflow": {"gfx.status": 1},
            "networking.http_response_version": {
                "http_1": rng.randrange(1, 9_999),
                "http_2": rng.randrange(1, 9_999),
            },
        },
    }
    return SmallDocument(orjson.dumps(document))


def _common(client: Client, document_id: str, created: datetime, document_type: str) -> dict[str, object]:
    return {
        "type": document_type,
        "id": document_id,
        "creationDate": created.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        "version": _UNIFIED_VERSION,
        "application": orjson.Fragment(_application(client.application, client.machine.architecture)),
        "clientId": client.client_id,
        "profileGroupId": client.profile_group_id,
    }


@cache
def _application(build: Application, architecture: str) -> bytes:
    return orjson.dumps(
        {
            "architecture": architecture,
            "buildId": build.build_id,
            "name": build.name,
            "version": build.version,
            "displayVersion": build.display_version,
            "vendor": "Mozilla",
            "platformVersion": build.version,
            "xpcomAbi": _abi(architecture),
            "channel": build.channel,
        }
    )


@cache
def _environment_build(build: Application, architecture: str) -> bytes:
    return orjson.dumps(
        {
            "applicationName": build.name,
            "architecture": architecture,
            "buildId": build.build_id,
            "version": build.version,
            "displayVersion": build.display_version,
            "platformVersion": build.version,
            "vendor": "Mozilla",
            "xpcomAbi": _abi(architecture),
            "updaterAvailable": True,
        }
    )


def _abi(architecture: str) -> str:
    return f"{architecture.replace('-', '_')}-gcc3"


def _hour(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='hours')[:13]}:00:00.0+00:00"


def _payload_head(rng: Random, client: Client, created: datetime, reason: str) -> dict[str, object]:
    length = 60 + int(rng.expovariate(1 / 7_200))
    start = 20 + int(rng.expovariate(1 / 40))
    first_paint = start + 300 + int(rng.expovariate(1 / 2_000))
    hour = _hour(created - timedelta(seconds=length))
    return {
        "ver": _UNIFIED_VERSION,
        "info": {
            "reason": reason,
            "revision": f"https://hg.mozilla.org/releases/mozilla-{client.application.channel}/rev/"
            f"{int(client.application.build_id):040x}",
            "timezoneOffset": 60,
            "previousBuildId": None,
            "sessionId": client.session_id,
            "subsessionId": client.subsession_id,
            "previousSessionId": None,
            "previousSubsessionId": client.previous_subsession_id,
            "subsessionCounter": client.subsession_counter,
            "profileSubsessionCounter": client.profile_subsession_counter,
            "sessionStartDate": hour,
            "subsessionStartDate": hour,
            "sessionLength": length,
            "subsessionLength": length,
            "addons": "formautofill%40mozilla.org:1.0.1,webcompat%40mozilla.org:158.5.0",
        },
        "simpleMeasurements": {
            "totalTime": length,
            "uptime": length // 60,
            "start": start,
            "main": start + int(rng.expovariate(1 / 200)),
            "selectProfile": start + 150,
            "afterProfileLocked": start + 160,
            "startupCrashDetectionBegin": start + 240,
            "startupCrashDetectionEnd": first_paint + 30_000,
            "firstPaint": first_paint,
            "sessionRestoreInit": first_paint + 90,
            "sessionRestored": first_paint + int(rng.expovariate(1 / 900)),
            "createTopLevelWindow": start + 260,
            "firstLoadURI": first_paint + 20,
            "delayedStartupStarted": first_paint + 70,
            "activeTicks": int(length / 5 * rng.random()),
            "shutdownDuration": 200 + int(rng.expovariate(1 / 1_500)),
            "failedProfileLockCount": 0,
            "savedPings": 1,
            "maximalNumberOfConcurrentThreads": rng.randrange(40, 180),
        },
    }


def _end_subsession(rng: Random, client: Client, *, ends_session: bool) -> None:
    client.previous_subsession_id = client.subsession_id
    client.subsession_id = random_uuid(rng)
    client.profile_subsession_counter += 1
    client.subsession_counter += 1
    if ends_session:
        client.session_id = random_uuid(rng)
        client.subsession_counter = 1


def _variants(write: Callable[[float], bytes]) -> list[list[Section]]:
    """Sections for each level of activity; `write` makes up the text of one for a given activity."""
    return [[section(write(activity)) for _ in range(VARIANTS_COUNT)] for activity in ACTIVITY_LEVELS]


def _keyed_histograms(rng: Random, definitions: tuple[HistogramDefinition, ...], activity: float) -> bytes:
    """Closes `histograms` and writes `keyedHistograms`."""
    members = []
    for definition in rng.sample(definitions, _KEYED_HISTOGRAMS):
        keys = rng.sample(_ADDONS, rng.randrange(1, 4))
        entries = ",".join(f'"{key}":{histogram_text(rng, definition, activity)}' for key in keys)
        members.append(f'"{definition.name}_BY_ADDON":{{{entries}}}')
    return (f'}},"keyedHistograms":{{{",".join(members)}}},').encode()


def _processes(rng: Random, content: tuple[HistogramDefinition, ...], activity: float) -> bytes:
    """Writes `processes` and the rest of the payload, and closes payload and document."""
    parent = {
        "scalars": {name: int(rng.expovariate(1 / (200 * activity))) for name in rng.sample(_SCALARS, 18)},
        "keyedScalars": {
            "browser.search.withads.urlbar": {"google:tagged": rng.randrange(1, 50)},
            "telemetry.event_counts": {
                "/".join(filter(None, event)): rng.randrange(1, 90) for event in rng.sample(_EVENTS, 4)
            },
        },
    }
    other = {"scalars": {name: rng.randrange(1, 99) for name in rng.sample(_SCALARS, 3)}}
    rest = {
        "slowSQL": {
            "mainThread": {},
            "otherThreads": {statement: [1, 900] for statement in rng.sample(_STATEMENTS, 3)},
        },
        "slowSQLStartup": {"mainThread": {}, "otherThreads": {}},
        "lateWrites": {"memoryMap": [], "stacks": []},
        "addonDetails": {"XPI": {}},
    }
    keyed = rng.sample(content, 3)
    keyed_text = ",".join(
        f'"{d.name}_BY_KIND":{{"web":{histogram_text(rng, d, activity)},'
        f'"webIsolated":{histogram_text(rng, d, activity)}}}'
        for d in keyed
    )
    text = b"".join(
        (
            b'"processes":{"parent":',
            orjson.dumps(parent),
            b',"content":{"histograms":{',
            histogram_entries(rng, content, activity),
            b'},"keyedHistograms":{' + keyed_text.encode() + b"},",
            orjson.dumps(other)[1:],
            b',"gpu":{"histograms":{',
            histogram_entries(rng, content[:4], activity),
            b"}," + orjson.dumps(other)[1:],
            b',"extension":',
            orjson.dumps(other),
            b',"dynamic":{"scalars":{},"keyedScalars":{}}},',
        )
    )
    return text + orjson.dumps(rest)[1:] + b"}"


def _environment(rng: Random, machine: Machine) -> bytes:
    """Write the environment behind `build`, which is the client's own, and close it.

    The form is `environment.json`; what differs between machines is drawn here, in a fixed order.
    """
    adapter, vendor, device = rng.choice(_GRAPHICS)
    addons: Json = {name: _addon(rng, name) for name in rng.sample(_ADDONS, rng.randrange(4, len(_ADDONS)))}
    environment = _filled(
        _environment_template(),
        {
            "adapter": adapter,
            "adapter_vendor": vendor,
            "adapter_device": device,
            "addons": addons,
            "memory_mb": machine.memory_mb,
            "cpu_threads": machine.cpu_cores * 2,
            "cpu_cores": machine.cpu_cores,
            "cpu_vendor": rng.choice(("GenuineIntel", "AuthenticAMD")),
            "cpu_model": rng.randrange(60, 200),
            "cpu_stepping": rng.randrange(12),
            "cpu_mhz": rng.randrange(1_200, 3_900),
            "os_name": machine.os,
            "os_version": machine.os_version,
            "locale": machine.locale,
            "install_year": 2_019 + rng.randrange(7),
            "disks": {where: _disk(rng) for where in ("profile", "binary", "system")},
            "subsystem_id": f"{rng.getrandbits(32):08x}",
            "driver_version": f"{rng.randrange(20, 32)}.0.101.{rng.randrange(9_999)}",
            "driver_date": f"{rng.randrange(1, 13)}-{rng.randrange(1, 29)}-2025",
            "refresh_rate": rng.choice((60, 144)),
            "telemetry_enabled": machine.number % 3 == 0,
            "cache_capacity": rng.choice((358_400, 1_048_576, 256_000)),
            "region": rng.choice(("US", "DE", "FR", "BR", "PL", "JP")),
            "startup_page": rng.choice((1, 3)),
            "trr_mode": rng.choice((0, 2, 5)),
            "tracking_protection": rng.random() < 0.3,
            "is_default_browser": rng.random() < 0.7,
            "search_engine": rng.choice(("google-b-d", "ddg", "bing", "ecosia")),
            "creation_day": 18_000 + rng.randrange(2_700),
            "first_use_day": 18_000 + rng.randrange(2_700),
            "experiments": {
                f"study-{rng.randrange(400)}-rollout": {
                    "branch": rng.choice(("control", "treatment-a", "treatment-b")),
                    "type": "nimbus-rollout",
                }
                for _ in range(rng.randrange(6, 20))
            },
        },
    )
    return orjson.dumps(environment)[1:] + b","


@cache
def _environment_template() -> Json:
    """Return `environment.json`: every text `$name` in it stands for a value of that name."""
    template: Json = orjson.loads(Path(__file__).with_name("environment.json").read_bytes())
    return template


def _filled(template: Json, values: Mapping[str, Json]) -> Json:
    """Return a copy of `template` with `values` in their places."""
    if isinstance(template, dict):
        return {name: _filled(member, values) for name, member in template.items()}
    if isinstance(template, list):
        return [_filled(element, values) for element in template]
    if isinstance(template, str) and template.startswith("$"):
        return values[template[1:]]
    return template


def _addon(rng: Random, name: str) -> Json:
    return {
        "version": f"{rng.randrange(1, 160)}.{rng.randrange(10)}.{rng.randrange(10)}",
        "scope": 1,
        "type": "extension",
        "updateDay": 20_700 + rng.randrange(70),
        "installDay": 18_000 + rng.randrange(2_700),
        "isSystem": name.endswith("@mozilla.org"),
        "isWebExtension": True,
        "multiprocessCompatible": True,
        "blocklisted": False,
        "userDisabled": False,
        "appDisabled": False,
        "foreignInstall": False,
        "hasBinaryComponents": False,
        "signedState": 2,
        "name": name,
    }


def _disk(rng: Random) -> Json:
    return {
        "model": f"disk {rng.getrandbits(24):06X}",
        "revision": f"{rng.getrandbits(16):04X}",
        "type": "SSD",
    }


def _glean(
    rng: Random, client: Client, created: datetime, reason: str, covers: timedelta
) -> dict[str, object]:
    client.ping_sequence += 1
    application, machine = client.application, client.machine
    client_info: dict[str, object] = {
        "telemetry_sdk_build": "71.0.0",
        "client_id": client.client_id,
        "first_run_date": f"{_first_run(client, created).date().isoformat()}+00:00",
        "os": "Windows" if machine.os == "Windows_NT" else machine.os,
        "os_version": machine.os_version,
        "architecture": machine.architecture.replace("-64", "_64"),
        "app_build": application.build_id,
        "app_display_version": application.display_version,
        "app_channel": application.channel,
        "locale": machine.locale,
        "build_date": "2026-11-09T17:45:12+00:00",
        "session_id": client.session_id,
        "session_count": client.profile_subsession_counter,
    }
    if client.is_phone:
        client_info |= {
            "android_sdk_version": "35",
            "device_manufacturer": "Google",
            "device_model": "Pixel 8",
        }
    started = created - timedelta(seconds=rng.random() * covers.total_seconds())
    return {
        "ping_info": {
            "seq": client.ping_sequence,
            "start_time": _glean_time(started),
            "end_time": _glean_time(created),
            "reason": reason,
            "experiments": {"search-tips": {"branch": "control", "extra": {"type": "nimbus-nimbus"}}},
        },
        "client_info": client_info,
    }


def _first_run(client: Client, created: datetime) -> datetime:
    return max(created - timedelta(days=client.first_run_days_ago), _FIRST_DAY)


def _glean_time(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")


def _glean_distribution(rng: Random, all_bounds: Sequence[int]) -> dict[str, object]:
    bounds = sorted({rng.choice(all_bounds) for _ in range(rng.randrange(2, 12))})
    values = {str(bound): 1 + int(rng.expovariate(1 / 5)) for bound in bounds}
    return {"sum": sum(int(bound) * count for bound, count in values.items()), "values": values}


def _choose(rng: Random, weighted: tuple[tuple[str, int], ...]) -> str:
    return rng.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]
