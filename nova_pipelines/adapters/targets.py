"""Which addresses outgoing calls may reach: by default only public ones, so that nobody has NOVA call what stands
behind its firewall (OWASP, "Server Side Request Forgery Prevention").

The address that is checked is the one that is connected to: a name that resolves to something else a moment later
("DNS rebinding") gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from nova_pipelines.domain.errors import PermanentError

REMEDY = "name a public https address; NOVA_WEBHOOK_PRIVATE=true allows http and private addresses for all webhooks"
MAX_URL = 2_000

#: connects as `socket.create_connection` does
Connect = Callable[[tuple[str, int], float | None, tuple[str, int] | None], socket.socket]


def check_target(url: str, *, private: bool) -> str:
    """`scheme://host[:port]` of an address that may be called. Raises PermanentError, without the address.

    Names are not resolved here: where they lead to is looked at when they are connected to.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise PermanentError("the webhook's address is no URL", remedy=REMEDY) from None
    if not host or parts.scheme not in ("http", "https") or port == 0 or len(url) > MAX_URL or not _plain(url):
        raise PermanentError("the webhook's address is no http or https URL", remedy=REMEDY)
    if parts.username is not None or parts.password is not None:
        raise PermanentError("a webhook's address holds no user or password", remedy="calls are signed: check that")
    if not private:
        if parts.scheme != "https":
            raise PermanentError("a webhook is called by https only", remedy=REMEDY)
        if _is_literal(host) and not is_public(host):
            raise PermanentError(f"{host} is no public address", remedy=REMEDY)
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}"[:300]


def _plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: none of loopback, private, link-local, multicast, documentation."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # an IPv4 address in the clothes of IPv6 is judged as what it is: mapped, 6to4, NAT64 (RFC 6052)
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def connect_public(
    address: tuple[str, int], timeout: float | None = None, source: tuple[str, int] | None = None
) -> socket.socket:
    """Connects to the first public address of a host. Raises OSError; PermanentError where it has none."""
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    public = [str(where[0]) for _, _, _, _, where in found if is_public(str(where[0]))]
    if not public:
        raise PermanentError(f"{host} is no public address", remedy=REMEDY)
    last: OSError | None = None
    for ip in public[:4]:
        try:
            return socket.create_connection((ip, port), timeout, source)
        except OSError as error:
            last = error
    raise last or OSError(f"{host} cannot be reached")
