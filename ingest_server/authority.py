"""Whether a text is the authority of an HTTP URL: a host and, where it is not the scheme's own, a port."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

_PORT_MAX: Final = 65_535
_AUTHORITY: Final = re.compile(
    rb"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]"
    rb"|\[[Vv][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
"""RFC 3986, section 3.2, without the names of users, which HTTP does not have."""


def is_authority(text: bytes) -> bool:
    """Return whether `text` may be the value of Host; it may be empty, as for a URL without a host."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or int(match["port"] or 0) > _PORT_MAX:
        return False
    if match["address"] is not None:
        try:
            IPv6Address(match["address"].decode("ascii"))
        except AddressValueError:
            return False
    return True
