"""Values reduced to the few that people group by, and the sample a client belongs to."""

import zlib
from functools import lru_cache
from typing import Final

OTHER_CHANNEL: Final = "Other"
OTHER_OS: Final = "Other"
SAMPLE_COUNT: Final = 100

_CHANNELS: Final = frozenset({"release", "esr", "beta", "aurora", "nightly"})
_OS_PREFIXES: Final = (
    ("windows", "Windows"),
    ("winnt", "Windows"),
    ("darwin", "Mac"),
    ("mac", "Mac"),
    ("os x", "Mac"),
    ("linux", "Linux"),
    ("gnu/linux", "Linux"),
    ("android", "Android"),
    ("ios", "iOS"),
    ("iphone", "iOS"),
    ("ipados", "iOS"),
)


@lru_cache(maxsize=4_096)
def normalized_channel(channel: str | None) -> str:
    """`release`, `esr`, `beta`, `aurora`, `nightly` or `Other`.

    A partner's build appends to the name (`release-cck-partner`), which is cut off.
    """
    name = (channel or "").lower().partition("-cck-")[0]
    return name if name in _CHANNELS else OTHER_CHANNEL


@lru_cache(maxsize=4_096)
def normalized_os(os: str | None) -> str:
    """`Windows`, `Mac`, `Linux`, `Android`, `iOS` or `Other`."""
    name = (os or "").lower()
    return next((family for prefix, family in _OS_PREFIXES if name.startswith(prefix)), OTHER_OS)


def sample_id(client_id: str) -> int:
    """crc32 of the lower-case client id modulo 100: 0 to 99, the same for a client for ever."""
    return zlib.crc32(client_id.lower().encode()) % SAMPLE_COUNT
