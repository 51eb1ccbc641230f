"""Who has something under way at a worker, and how much of its memory that takes.

What a request may come to hold is counted before it is read: a body as soon as its length is announced.
One client gets a part of the memory and of the connections only, so that it cannot take those of others.
Behind proxies of our own a connection is the proxy's, and the client is who the proxy says it is.
"""

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from telemetry_lake.settings import IngestSettings

_ADDRESS_MAX_BYTES: Final = 64
_IPV6_PREFIX_BITS: Final = 64
"""The smallest network that a customer gets: a client chooses the rest of its address."""


class Client:
    """One address, or one network of IPv6, while something of it is under way."""

    __slots__ = ("held_bytes", "held_max_bytes", "network", "uses")

    def __init__(self, network: bytes, held_max_bytes: int) -> None:
        self.network = network
        self.held_max_bytes = held_max_bytes
        self.held_bytes = 0
        self.uses = 0
        """Its connections; behind a proxy, its requests."""


class Clients:
    """The clients of one worker."""

    __slots__ = ("_by_network", "_connections_max", "_share_bytes", "held_bytes", "held_max_bytes", "proxies")

    def __init__(self, settings: IngestSettings, trusted_proxies: int) -> None:
        self._by_network: dict[bytes, Client] = {}
        self._connections_max = settings.connections_per_address_max
        self._share_bytes = settings.memory_per_address_max_bytes
        self.held_bytes = 0
        self.held_max_bytes = settings.memory_max_bytes
        self.proxies = trusted_proxies
        """How many proxies of our own a request has passed."""

    def __len__(self) -> int:
        """Return how many clients have something under way."""
        return len(self._by_network)

    def connect(self, address: bytes) -> Client | None:
        """Return whose connection it is that came from `address`; None when it is one too many."""
        if self.proxies:
            return Client(b"", self.held_max_bytes)
        client = self._client(_network(address))
        if client.uses >= self._connections_max:
            return None
        client.uses += 1
        return client

    def begin_forwarded(self, forwarded_for: tuple[bytes, ...]) -> Client | None:
        """Return whose request it is by its X-Forwarded-For headers; None when no proxy says it.

        The last proxy has appended the address that it saw, and so has each before it: what stands farther
        left comes from the client and is not believed.
        """
        chain = b",".join(forwarded_for).rsplit(b",", self.proxies)
        sender = chain[-self.proxies] if self.proxies <= len(chain) else chain[0]
        network = _network(sender.strip(b" \t"))
        if not network:
            return None
        client = self._client(network)
        client.uses += 1
        return client

    def end(self, client: Client) -> None:
        """End a connection, or a request that a proxy forwarded."""
        client.uses -= 1
        if client.uses <= 0:
            self._by_network.pop(client.network, None)

    def hold(self, client: Client, size: int) -> bool:
        """Count `size` bytes as held for the client, and return whether there was room for them."""
        held = self.held_bytes + size
        of_client = client.held_bytes + size
        if held > self.held_max_bytes or of_client > client.held_max_bytes:
            return False
        self.held_bytes = held
        client.held_bytes = of_client
        return True

    def change(self, client: Client, size: int) -> None:
        """Count `size` bytes more, or less, whether there is room for them or not."""
        self.held_bytes += size
        client.held_bytes += size

    def _client(self, network: bytes) -> Client:
        client = self._by_network.get(network)
        if client is None:
            client = self._by_network[network] = Client(network, self._share_bytes)
        return client


def _network(address: bytes) -> bytes:
    """Return what one client may have addresses in; `address` may carry a port, and need not be one."""
    text = address[:_ADDRESS_MAX_BYTES]
    if b":" not in text:
        return text
    if text.startswith(b"["):
        text = text[1:].partition(b"]")[0]
    elif text.count(b":") == 1:
        return text.partition(b":")[0]
    try:
        parsed = ip_address(text.decode("latin-1").partition("%")[0])
    except ValueError:
        return text
    if not isinstance(parsed, IPv6Address):
        return text
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped).encode()
    return str(IPv6Network((int(parsed), _IPV6_PREFIX_BITS), strict=False)).encode()
