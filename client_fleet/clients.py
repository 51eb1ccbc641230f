"""The clients of the fleet, which keep their id, their build, their machine and their activity."""

import math
from dataclasses import dataclass
from random import Random
from typing import Final


@dataclass(frozen=True, slots=True)
class Application:
    """One build of a product; `build_id` is its date and time as 14 digits."""

    name: str
    version: str
    display_version: str
    channel: str
    build_id: str
    share: float


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer or a phone. `number` is the machine's place in `MACHINES_COUNT`, which clients share."""

    number: int
    os: str
    os_version: str
    architecture: str
    locale: str
    memory_mb: int
    cpu_cores: int


FIREFOX_BUILDS: Final = (
    Application("Firefox", "158.0", "158.0", "release", "20261109174512", 44),
    Application("Firefox", "158.0.1", "158.0.1", "release", "20261117203001", 18),
    Application("Firefox", "157.0.2", "157.0.2", "release", "20261026160233", 8),
    Application("Firefox", "156.0", "156.0", "release", "20260914190840", 3),
    Application("Firefox", "115.29.0", "115.29.0esr", "esr", "20261102130504", 4),
    Application("Firefox", "153.4.0", "153.4.0esr", "esr", "20261103121917", 5),
    Application("Firefox", "159.0", "159.0b3", "beta", "20261116090155", 6),
    Application("Firefox", "159.0", "159.0b4", "beta", "20261118090341", 3),
    Application("Firefox", "159.0", "159.0b4", "aurora", "20261118101010", 1),
    Application("Firefox", "160.0a1", "160.0a1", "nightly", "20261121214622", 3),
    Application("Firefox", "160.0a1", "160.0a1", "nightly", "20261122093955", 4),
    Application("Firefox", "128.0", "128.0", "default", "20240704121409", 1),
)
FENIX_BUILDS: Final = (
    Application("Fenix", "158.0", "158.0", "release", "2016129871", 80),
    Application("Fenix", "159.0b4", "159.0b4", "beta", "2016131007", 12),
    Application("Fenix", "160.0a1", "160.0a1", "nightly", "2016132455", 8),
)

_LOCALES: Final = (
    ("en-US", 38), ("de", 13), ("fr", 8), ("es-ES", 6), ("ru", 5), ("pl", 5), ("it", 4), ("pt-BR", 5),
    ("ja", 4), ("zh-CN", 4), ("en-GB", 4), ("nl", 2), ("cs", 1), ("sv-SE", 1),
)  # fmt: skip
_DESKTOPS: Final = (
    (("Windows_NT", "10.0", "x86-64"), 74),
    (("Windows_NT", "6.1", "x86-64"), 5),
    (("Windows_NT", "10.0", "x86"), 3),
    (("Darwin", "24.6.0", "aarch64"), 6),
    (("Darwin", "22.6.0", "x86-64"), 3),
    (("Linux", "6.8.0-51-generic", "x86-64"), 9),
)
_PHONES: Final = (
    (("Android", "15", "arm64-v8a"), 55),
    (("Android", "13", "arm64-v8a"), 35),
    (("Android", "9", "armeabi-v7a"), 10),
)
_MEMORIES_MB: Final = (2_048, 4_096, 8_192, 16_384, 32_768)
_CORES: Final = (2, 4, 6, 8, 12, 16)

MACHINES_COUNT: Final = 64
"""Fewer machines than clients: what a machine looks like is compressed once and then shared."""
_UUID_FIXED_BITS: Final = 0xF << 76 | 0b11 << 62
_UUID_VERSION_4: Final = 0x4 << 76 | 0b10 << 62

PHONE_SHARE: Final = 0.12
ACTIVITY_LEVELS: Final = (0.15, 0.5, 0.95)
"""How much a client does, as an argument of `histograms.histogram_entries`."""
_ACTIVITY_WEIGHTS: Final = (30, 45, 25)


@dataclass(slots=True)
class Client:
    """One profile of one user; every ping moves its counters on."""

    client_id: str
    profile_group_id: str
    application: Application
    machine: Machine
    activity: int
    """Index into ACTIVITY_LEVELS."""
    is_phone: bool
    first_run_days_ago: int
    session_id: str
    subsession_id: str
    previous_subsession_id: str | None
    subsession_counter: int
    profile_subsession_counter: int
    ping_sequence: int

    @property
    def glean_namespace(self) -> str:
        """Under which name the client's Glean pings are submitted."""
        return "org-mozilla-firefox" if self.is_phone else "firefox-desktop"


def random_uuid(rng: Random) -> str:
    """Return a version 4 UUID; https://www.rfc-editor.org/rfc/rfc9562.html#section-5.4."""
    bits = rng.getrandbits(128) & ~_UUID_FIXED_BITS | _UUID_VERSION_4
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def random_machines(rng: Random) -> list[Machine]:
    """Return the machines that the fleet's desktop clients share."""
    return [_machine(rng, number, _DESKTOPS) for number in range(MACHINES_COUNT)]


def random_client(rng: Random, machines: list[Machine]) -> Client:
    """Return a new client with a history of its own."""
    is_phone = rng.random() < PHONE_SHARE
    builds = FENIX_BUILDS if is_phone else FIREFOX_BUILDS
    return Client(
        client_id=random_uuid(rng),
        profile_group_id=random_uuid(rng),
        application=rng.choices(builds, [build.share for build in builds])[0],
        machine=_machine(rng, 0, _PHONES) if is_phone else rng.choice(machines),
        activity=rng.choices(range(len(ACTIVITY_LEVELS)), _ACTIVITY_WEIGHTS)[0],
        is_phone=is_phone,
        first_run_days_ago=1 + int(rng.expovariate(1 / 400)),
        session_id=random_uuid(rng),
        subsession_id=random_uuid(rng),
        previous_subsession_id=None,
        subsession_counter=1,
        profile_subsession_counter=1 + int(math.exp(rng.gauss(4, 1.5))),
        ping_sequence=int(math.exp(rng.gauss(3, 1.5))),
    )


def _machine(rng: Random, number: int, systems: tuple[tuple[tuple[str, str, str], int], ...]) -> Machine:
    (os, os_version, architecture), _ = rng.choices(systems, [share for _, share in systems])[0]
    locale, _ = rng.choices(_LOCALES, [share for _, share in _LOCALES])[0]
    return Machine(number, os, os_version, architecture, locale, rng.choice(_MEMORIES_MB), rng.choice(_CORES))
