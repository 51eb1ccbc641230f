"""The country of a ping's sender: the only thing that is kept of an address.

The address is looked up and forgotten within `country_of`; no caller stores, logs or returns it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import maxminddb

from telemetry_lake.failures import ConfigurationError

UNKNOWN_COUNTRY: Final = "??"
FORWARDED_FOR: Final = "x-forwarded-for"
ADDRESS_HEADERS: Final = frozenset(
    {
        FORWARDED_FOR,
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
    }
)
"""Headers that carry an address. None of them reaches a table, even when configured to be captured."""

_ADDRESS_MAX_CHARACTERS: Final = 64


class CountryLookup:
    """Country codes by address, from a database in MaxMind's format; without one, always `??`.

    Raises ConfigurationError when the database cannot be read.
    """

    def __init__(self, database: Path | None, trusted_proxies: int) -> None:
        self._trusted_proxies = trusted_proxies
        self._reader: maxminddb.Reader | None = None
        if database is not None:
            try:
                self._reader = maxminddb.open_database(database)
            except (OSError, maxminddb.InvalidDatabaseError) as error:
                raise ConfigurationError(
                    f"the country database {database} cannot be read: {error}. "
                    "Give a database in MaxMind's format, or leave the setting out."
                ) from error

    @property
    def knows_any(self) -> bool:
        """Whether there is a database; without one, no country is known."""
        return self._reader is not None

    def country_of(self, forwarded_for: Sequence[str], remote_address: str) -> str:
        """Return the ISO 3166-1 code of the sender's country, `??` when it is not known.

        `forwarded_for` are the values of the X-Forwarded-For headers. Each of the `trusted_proxies` has
        appended the address that it saw, and `remote_address` is what the node saw: the sender's is that many
        places before the last. What stands before it is what the sender says of itself.
        """
        if self._reader is None:
            return UNKNOWN_COUNTRY
        seen = [remote_address]
        if forwarded_for and self._trusted_proxies:
            seen = [*",".join(forwarded_for).rsplit(",", self._trusted_proxies), remote_address]
        # With fewer proxies on its way than that, it is the first of those addresses.
        sender = _parsed(seen[max(0, len(seen) - 1 - self._trusted_proxies)].strip())
        if sender is None or not sender.is_global or sender.version > self._reader.metadata().ip_version:
            return UNKNOWN_COUNTRY
        match self._reader.get(sender):
            case {"country": {"iso_code": str(code)}}:
                return code
            case _:
                return UNKNOWN_COUNTRY


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in `text`, which may carry a port as in `192.0.2.1:80` and `[2001:db8::1]:80`."""
    if len(text) > _ADDRESS_MAX_CHARACTERS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
