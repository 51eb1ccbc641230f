"""For each script of jobs/examples/: what clients sent, and what has to come of it, written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from lake_testing.ping_builders import REVISION, TIME, ping
from telemetry_lake.raw.raw_object import RawPing

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """One ping; the same number twice is the same document id."""

    number: int
    document_type: str
    app: tuple[str, str, str, str]
    """Application, version, channel and build, as the path says them."""
    document: Json
    glean_namespace: str | None = None

    def raw(self, day: int) -> RawPing:
        """The ping as the server got it, `day` days after the first case."""
        document_id = f"{day:08x}-0000-4000-8000-{self.number:012x}"
        if self.glean_namespace is not None:
            path = f"/submit/{self.glean_namespace}/{self.document_type}/1/{document_id}"
        else:
            path = f"/submit/telemetry/{document_id}/{self.document_type}/{'/'.join(self.app)}"
        return ping(path, self.document, later=timedelta(days=day))


@dataclass(frozen=True, slots=True)
class Case:
    """A script, the pings of the one day it is run for, and its output with the day written as DAY."""

    script: str
    sent: Sequence[Sent]
    expected: str
    kept_out: Sequence[Sent] = ()
    """Pings that the script's filter document leaves out."""
    table: str = "stable"


FIREFOX_23 = ("Firefox", "23.0.1", "release", "20130814063812")
NIGHTLY_26 = ("Firefox", "26.0a1", "nightly", "20130910030206")
NIGHTLY_145 = ("Firefox", "145.0a1", "nightly", "20251001093045")
FENNEC_34 = ("Fennec", "34.0", "beta", "20141103130121")
PHONE = ("FirefoxOS", "28.0", "release", "20140424000205")


def classic(number: int, app: tuple[str, str, str, str] = FIREFOX_23, **members: Any) -> Sent:
    """A ping of Firefox before 2015; `info` adds to the usual one, and None takes a member away."""
    name, version, channel, build = app
    info = {
        "reason": "saved-session",
        "OS": "WINNT",
        "version": "5.1",
        "arch": "x86",
        "appID": "{ec8030f7-c20a-464f-9b0e-13a3a9e97384}",
        "appName": name,
        "appVersion": version,
        "appUpdateChannel": channel,
        "appBuildID": build,
        "platformBuildID": build,
        "revision": REVISION,
        "locale": "en-US",
        "flashVersion": "11.8.800.94",
        **members.pop("info", {}),
    }
    document = {"ver": 1, "simpleMeasurements": {"uptime": 123, "main": 1375, "firstPaint": 4813}}
    known = {key: value for key, value in info.items() if value is not None}
    return Sent(number, "saved-session", app, {**document, "info": known, **members})


def unified(number: int, app: tuple[str, str, str, str] = NIGHTLY_145, **members: Any) -> Sent:
    """A main ping of Firefox since 2015; `environment` and `payload` add to the usual ones."""
    name, version, channel, build = app
    environment = {
        "build": {"applicationName": name, "architecture": "x86-64", "buildId": build, "version": version},
        "system": {"memoryMB": 16_384, "os": {"name": "Linux", "version": "6.12"}},
        "addons": {"activeAddons": {}, "theme": {}, "activePlugins": []},
        **members.pop("environment", {}),
    }
    payload = {
        "ver": 4,
        "info": {"reason": "shutdown", "sessionLength": 3_600, "subsessionCounter": 1},
        "simpleMeasurements": {"main": 60, "firstPaint": 900},
        **members.pop("payload", {}),
    }
    document = {
        "type": "main",
        "version": 4,
        "clientId": "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da",
        "creationDate": "2026-11-23T13:59:58.123Z",
        "application": {"name": name, "version": version, "channel": channel, "buildId": build},
        "environment": environment,
        "payload": payload,
    }
    return Sent(number, "main", app, {**document, **members})


def windows(**members: Any) -> Json:
    """The environment of a Firefox on Windows 10."""
    return {"system": {"os": {"name": "Windows_NT", "version": "10.0"}}, **members}


def glean(number: int) -> Sent:
    """A baseline ping of Firefox for Android."""
    document = {
        "ping_info": {"seq": 3, "start_time": "2026-11-23T13:00+00:00", "end_time": "2026-11-23T14:00+00:00"},
        "client_info": {
            "telemetry_sdk_build": "71.0.0",
            "first_run_date": "2026-11-01+00:00",
            "os": "Android",
            "os_version": "16",
            "architecture": "arm64-v8a",
            "app_build": "2016129871",
            "app_display_version": "145.0",
            "app_channel": "release",
            "client_id": "c0ffeec0-ffee-4ff0-ffee-c0ffeec0ffee",
        },
        "metrics": {"counter": {"browser.tabs": 4}},
    }
    return Sent(number, "baseline", PHONE, document, glean_namespace="org-mozilla-firefox")


def phone(number: int, **facts: Any) -> Sent:
    """A ping of Firefox OS."""
    return Sent(number, "ftu", PHONE, {"ver": 3, **facts})


def failed_call(number: int, **members: Any) -> Sent:
    """What Firefox Hello sent when a call could not be connected."""
    report = {
        "report": "ice failure",
        "stats": [{"type": "candidatepair", "state": "failed"}],
        "localSdp": "v=0\r\no=mozilla...THIS_IS_SDPARTA 4294967295 0 IN IP4 0.0.0.0\r\n",
        "remoteSdp": "",
        "log": "(generic/INFO) ICE(PC:1): all checks failed",
    }
    sent = classic(number, NIGHTLY_26, info={"reason": "loop"}, **{**report, **members})
    return Sent(sent.number, "loop", sent.app, sent.document)


def histogram_of(kind: int, low: int, high: int, count: int, values: Json, total: int) -> Json:
    """A histogram as Firefox sends it."""
    return {
        "range": [low, high],
        "bucket_count": count,
        "histogram_type": kind,
        "values": values,
        "sum": total,
    }


def enabled(values: Json) -> Json:
    """A boolean histogram."""
    return histogram_of(2, 1, 2, 3, values, 1)


def pinned(values: Json, high: int = 9) -> Json:
    """An enumerated histogram of 0 to `high`."""
    return histogram_of(1, 1, high, high + 1, values, sum(int(k) * v for k, v in values.items()))


SYSTEMS = (
    classic(1),
    classic(2, info={"OS": "WINNT", "version": "6.1"}),
    classic(3, info={"OS": "Darwin"}),
    classic(4, info={"OS": None}),
    unified(5),
    glean(6),
    phone(7, **{"deviceinfo.os": "1.3.0.0-prerelease"}),
)
SYSTEMS_COUNTED = "Android\t1\nDarwin\t1\nLinux\t1\nUNKNOWN\t2\nWINNT\t2\n"

LOGINS = "SELECT COUNT(1) AS numLogins FROM moz_logins WHERE (hostname = :hostname) /* signons.sqlite */"
SEARCH = "SELECT * FROM moz_places WHERE url LIKE '{}' ORDER BY frecency DESC LIMIT 3 /* places.sqlite */"
SLOW = (
    classic(
        1,
        slowSQL={
            "mainThread": {LOGINS: [70, 8_750]},
            "otherThreads": {
                SEARCH.format("%bank.example%"): [60, 6_000],
                SEARCH.format("%it''s my \"clinic\"%"): [60, 12_000],
                "COMMIT TRANSACTION /* places.sqlite */": [99, 2_500],
            },
        },
    ),
    classic(
        2,
        slowSQL={
            "mainThread": {LOGINS: [50, 5_000]},
            "otherThreads": {SEARCH.format("%home.example%"): [30, 30_000]},
        },
    ),
    unified(
        3,
        payload={
            "slowSQL": {"mainThread": {'UPDATE t\n  SET a = "my secret': [100, 100]}, "otherThreads": "none"}
        },
    ),
    classic(
        4,
        slowSQL={"mainThread": {"SELECT 1": [1], "SELECT 2": ["a", 5], "SELECT 3": [0, 7], "SELECT 4": None}},
    ),
    classic(5, slowSQL=[]),
    classic(6),
)
SLOW_COUNTED = """\
ODD,DAY,Firefox,23.0.1,release,,4,,,
TOTAL,DAY,Firefox,145.0a1,nightly,,1,,,
TOTAL,DAY,Firefox,23.0.1,release,,5,,,
mainThread,DAY,Firefox,145.0a1,nightly,UPDATE t SET a = :private,1,100,100,1.0
mainThread,DAY,Firefox,23.0.1,release,\
SELECT COUNT(1) AS numLogins FROM moz_logins WHERE (hostname = :hostname) /* signons.sqlite */,\
2,120,13750,112.5
otherThreads,DAY,Firefox,23.0.1,release,\
SELECT * FROM moz_places WHERE url LIKE :private ORDER BY frecency DESC LIMIT 3 /* places.sqlite */,\
2,150,48000,575.0
"""

XUL, NTDLL, USER32 = ["xul.pdb", "3E4B2A1C2"], ["ntdll.pdb", "08A541B52"], ["user32.pdb", "2C5A6E3D1"]
HANGS = (
    classic(
        1,
        NIGHTLY_26,
        chromeHangs={
            "memoryMap": [XUL, NTDLL, USER32],
            "stacks": [[[0, 190_649], [1, 2_540_075], [-1, 12]], [[2, 100]]],
            "durations": [8, 5],
            "systemUptime": [692, 700],
            "firefoxUptime": [672, 680],
        },
    ),
    # The same stack, with the modules in another order, and before Firefox told its uptime.
    classic(
        2,
        NIGHTLY_26,
        chromeHangs={
            "memoryMap": [NTDLL, XUL],
            "stacks": [[[1, 190_649], [0, 2_540_075], [-1, 12]]],
            "durations": [4],
        },
    ),
    classic(3, NIGHTLY_26, chromeHangs={"memoryMap": [], "stacks": [], "durations": []}),
    classic(4, NIGHTLY_26, chromeHangs={"memoryMap": [], "stacks": "none"}),
    classic(
        5,
        NIGHTLY_26,
        chromeHangs={
            "memoryMap": None,
            "stacks": [[["a", 1]], 7, [[0, 1]], [[0]]],
            "durations": [1, 1, "long"],
        },
    ),
    classic(6, NIGHTLY_26),
)
HANGS_COUNTED = """\
DAY,Firefox,26.0a1,nightly,?+0x1,1,0,,,
DAY,Firefox,26.0a1,nightly,user32.pdb+0x64,1,5,5,680,700
DAY,Firefox,26.0a1,nightly,xul.pdb+0x2e8b9|ntdll.pdb+0x26c22b|?+0xc,2,12,6.0,672,692
"""

PLACES = "{profile}\\places.sqlite"
# Milliseconds, then how often created or opened, read, written, synced, looked up.
TOUCHED = (
    *(
        classic(index, NIGHTLY_26, fileIOReports={PLACES: [10.0 * (index + 1), 1, 2, 0, 0, index]})
        for index in range(12)
    ),
    classic(
        12, NIGHTLY_26, fileIOReports={"{xre}\\Jane's plugin.dll": [5.5, 1, 0, 0, 0, 0], "{xre}": [1, 2]}
    ),
    classic(13, NIGHTLY_26, fileIOReports={}),
    classic(14, NIGHTLY_26, fileIOReports=None),
    classic(15, NIGHTLY_26),
)
TOUCHED_COUNTED = """\
DAY,Firefox,26.0a1,nightly,ODD,1,,
DAY,Firefox,26.0a1,nightly,TOTAL,13,,
DAY,Firefox,26.0a1,nightly,{profile}\\places.sqlite,12,65.0,8.5
"""

TOOL = "{972ce4c6-7e08-4474-a285-3208198ce6fd}"
ADDONS = (
    classic(
        1,
        addonDetails={
            "XPI": {
                TOOL: {
                    "name": "Tool, the",
                    "startup_MS": 100,
                    "shutdown_MS": 3,
                    "scan_items": 40,
                    "scan_MS": 10,
                }
            }
        },
        simpleMeasurements={
            "addonManager": {"exception": {"message": "boom", "file": "XPIProvider.jsm", "line": 2100}}
        },
    ),
    classic(2, addonDetails={"XPI": {TOOL: {"name": "Tool, the", "startup_MS": 200}}}),
    classic(
        3, addonDetails={"XPI": {TOOL: {"name": "Tool", "startup_MS": 2_000_000}, "x": {"shutdown_MS": "5"}}}
    ),
    classic(4, addonDetails={"XPI": []}),
    classic(5, addonDetails={"XPI": {TOOL: None, "unmeasured@example.org": {"name": "Quiet"}}}),
    unified(6, payload={"addonDetails": {"XPI": {"other@example.org": {"bootstrap_startup_MS": 0.4}}}}),
)
ADDONS_COUNTED = f"""\
Firefox,Linux,145,nightly,,sessions,,1,,,
Firefox,Linux,145,nightly,other@example.org,bootstrap_startup_MS,,1,0.4,0,0
Firefox,Linux,145,nightly,other@example.org,name,?,1,,,
Firefox,WINNT,23,release,,exception,\
"{{""file"": ""XPIProvider.jsm"", ""line"": 2100, ""message"": ""boom""}}",1,,,
Firefox,WINNT,23,release,,sessions,,5,,,
Firefox,WINNT,23,release,{TOOL},name,"Tool, the",2,,,
Firefox,WINNT,23,release,{TOOL},scan_MS,,1,10.0,8.0,8.0
Firefox,WINNT,23,release,{TOOL},scan_items,,1,40.0,32.0,32.0
Firefox,WINNT,23,release,{TOOL},shutdown_MS,,1,3.0,2.8,2.8
Firefox,WINNT,23,release,{TOOL},startup_MS,,2,150.0,90.5,181.0
"""

PLUGINS = [
    {"name": "Silverlight Plug-In", "version": "5.1"},
    {"name": "Shockwave Flash", "version": "32.0.0.371", "disabled": False},
]
FLASH = (
    classic(1),
    classic(2),
    classic(3, info={"OS": "Darwin"}),
    classic(4, FENNEC_34, info={"OS": "Android", "version": "16", "flashVersion": "11.1.115.81"}),
    classic(5, info={"flashVersion": 5, "version": "6.1"}),
    unified(6, environment=windows(addons={"activePlugins": PLUGINS})),
    unified(7, environment=windows(addons={"activePlugins": {"a": 1}})),
    unified(8, environment=windows(addons={"activePlugins": [7, {}]})),
)
FLASH_COUNTED = """\
Fennec,34.0,beta,Android,16,11.1.115.81,1
Firefox,145.0a1,nightly,Windows_NT,10.0,32.0.0.371,1
Firefox,145.0a1,nightly,Windows_NT,10.0,NA,2
Firefox,23.0.1,release,WINNT,5.1,11.8.800.94,2
Firefox,23.0.1,release,WINNT,6.1,NA,1
"""

TILES = "tile-switcher@mozilla.org"
TAKING_PART = (
    classic(
        1,
        log=[
            ["EXPERIMENT_ACTIVATION", 123_456, "ACTIVATED", TILES],
            ["EXPERIMENT_TERMINATION", 234_567, "EXPIRED", "older@mozilla.org"],
            ["EXPERIMENT_ACTIVATION", 345_678, "ACTIVATED", TILES],
            ["SOMETHING_ELSE", 1, 2, 3],
            ["EXPERIMENT_ACTIVATION", 5],
            "garbage",
        ],
    ),
    classic(2, log=[["EXPERIMENT_ACTIVATION", 99, "REJECTED", TILES, "appversion"]]),
    classic(3, log={"EXPERIMENT_ACTIVATION": 1}),
    unified(4, environment={"addons": {"activeExperiment": {"id": TILES, "branch": "experiment-1"}}}),
    unified(5, environment={"addons": {"activeExperiment": {}}, "experiments": ["pref-flip"]}),
    unified(
        6,
        environment={
            "experiments": {"pref-flip": {"branch": "control", "type": "exp"}, "rollout": {}, "odd": 7}
        },
    ),
)
TAKING_PART_COUNTED = f"""\
ACTIVE,nightly,145.0a1,odd,,1
ACTIVE,nightly,145.0a1,pref-flip,control,1
ACTIVE,nightly,145.0a1,rollout,,1
ACTIVE,nightly,145.0a1,{TILES},experiment-1,1
EXPERIMENT_ACTIVATION,release,23.0.1,{TILES},ACTIVATED,1
EXPERIMENT_ACTIVATION,release,23.0.1,{TILES},REJECTED,1
EXPERIMENT_TERMINATION,release,23.0.1,older@mozilla.org,EXPIRED,1
TOTAL,nightly,145.0a1,,,3
TOTAL,release,23.0.1,,,3
"""

PHONES = (
    phone(
        1,
        **{
            "activationTime": 1_411_000_000_000,
            "pingTime": 1_411_000_000_000 + 26 * 3_600_000 + 1_440_000,
            "screenWidth": 320,
            "screenHeight": 480,
            "devicePixelRatio": 1.5,
            "locale": "pt-BR",
            "deviceinfo.os": "1.3.0.0-prerelease",
            "deviceinfo.software": "Boot2Gecko 1.3",
            "deviceinfo.platform_version": "28.0",
            "deviceinfo.platform_build_id": "20140424000205",
            "deviceinfo.update_channel": "release",
            "deviceinfo.hardware": "qcom",
            "deviceinfo.product_model": "OPEN C",
            "deviceinfo.firmware_revision": "",
            "icc": {"mnc": "10", "mcc": "724", "spn": "Vivo"},
            "network": {"mnc": "10", "mcc": "724", "operator": "VIVO, Brasil"},
        },
    ),
    phone(2, activationTime="1411000000000", pingTime="1411003600000", icc="none", screenWidth=True),
    phone(3, activationTime="yesterday", pingTime=1_411_003_600_000, network={"mnc": {}}),
    # A clock that goes backwards.
    phone(4, activationTime=1_411_003_600_001, pingTime=1_411_003_600_000),
)
PHONES_COUNTED = """\
DAY,firmware_revision,unknown,4
DAY,hardware,qcom,1
DAY,hardware,unknown,3
DAY,icc,10,724,Vivo,1
DAY,icc,unknown,unknown,unknown,3
DAY,locale,pt-BR,1
DAY,locale,unknown,3
DAY,median_time_to_ping,13.7
DAY,model,OPEN C,1
DAY,model,unknown,3
DAY,network,10,724,"VIVO, Brasil",1
DAY,network,unknown,unknown,unknown,3
DAY,os,1.3.0.0-prerelease,1
DAY,os,unknown,3
DAY,ping_count,4
DAY,pixel_ratio,1.5,1
DAY,pixel_ratio,unknown,3
DAY,resolution,320,480,1
DAY,resolution,unknown,unknown,3
DAY,software,Boot2Gecko 1.3,1
DAY,software,unknown,3
DAY,time_to_ping,1,1
DAY,time_to_ping,26,1
DAY,time_to_ping,unknown,2
DAY,update_channel,release,4
"""

CASES = (
    Case("os_distribution", SYSTEMS, SYSTEMS_COUNTED),
    Case("os_column", SYSTEMS, SYSTEMS_COUNTED),
    Case(
        "simple_counter",
        (classic(1), classic(2), classic(1), classic(1)),
        "00000002-0000-4000-8000-000000000001\t3\n",
        table="live",
    ),
    Case(
        "dimensions_only",
        (classic(1), classic(2), classic(3, info={"reason": "idle-daily"}), unified(4), phone(5)),
        "Firefox,nightly,145.0a1,shutdown,1\n"
        "Firefox,release,23.0.1,idle-daily,1\n"
        "Firefox,release,23.0.1,saved-session,2\n"
        "FirefoxOS,release,28.0,ftu,1\n",
    ),
    Case("record_count", (classic(1), unified(2), glean(3)), "DAY\t3\n"),
    Case(
        "histogram_distribution",
        (
            classic(1, histograms={"NEWTAB_PAGE_ENABLED": enabled({"0": 0, "1": 1, "2": 0})}),
            classic(
                2,
                histograms={
                    "NEWTAB_PAGE_ENABLED": enabled({"0": 1, "1": 3}),
                    "NEWTAB_PAGE_PINNED_SITES_COUNT": pinned({"2": 1, "8": 2, "9": 0}),
                },
            ),
            # Another version of Firefox counted only to 4, and one sent what has no buckets.
            unified(3, payload={"histograms": {"NEWTAB_PAGE_PINNED_SITES_COUNT": pinned({"4": 5}, 4)}}),
            unified(
                4, payload={"histograms": {"NEWTAB_PAGE_ENABLED": histogram_of(0, 1, 2, 2, {"0": 1}, 0)}}
            ),
            unified(5),
        ),
        "NEWTAB_PAGE_ENABLED,release,3,2,1,4,0\n"
        "NEWTAB_PAGE_PINNED_SITES_COUNT,nightly,5,1,0,0,0,0,5\n"
        "NEWTAB_PAGE_PINNED_SITES_COUNT,release,10,1,0,0,1,0,0,0,0,0,2,0\n",
    ),
    Case("slow_sql", SLOW, SLOW_COUNTED, kept_out=(classic(7, FENNEC_34), phone(8))),
    Case(
        "chrome_hangs",
        HANGS,
        HANGS_COUNTED,
        kept_out=(classic(7, chromeHangs=HANGS[0].document["chromeHangs"]),),
    ),
    Case(
        "main_thread_io", TOUCHED, TOUCHED_COUNTED, kept_out=(classic(20, fileIOReports={"{xre}": [1] * 6}),)
    ),
    Case("addon_performance", ADDONS, ADDONS_COUNTED, kept_out=(classic(7, FENNEC_34),)),
    Case("flash_versions", FLASH, FLASH_COUNTED, kept_out=(phone(9),)),
    Case("experiments", TAKING_PART, TAKING_PART_COUNTED, kept_out=(classic(7, FENNEC_34), glean(8))),
    Case("fxos_pings", PHONES, PHONES_COUNTED, kept_out=(classic(7),)),
    Case(
        "loop_failures",
        (
            failed_call(1, connectionstate="failed"),
            failed_call(1, connectionstate="failed"),
            failed_call(2, connectionstate="failed"),
            failed_call(3, connectionstate="disconnected"),
            failed_call(4),
            failed_call(5, connectionstate=["failed"]),
            failed_call(6, report="something else", connectionstate="failed"),
        ),
        "DAY,UNKNOWN,2\nDAY,disconnected,1\nDAY,failed,2\n",
        kept_out=(classic(9, report="ice failure", connectionstate="failed"),),
    ),
)


def submission_date(day: int) -> date:
    """The submission date of the case with this number."""
    return (TIME + timedelta(days=day)).date()
