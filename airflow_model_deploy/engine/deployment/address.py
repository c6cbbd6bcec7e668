"""How an address to listen on reads in a URL, and whose it is."""

from __future__ import annotations

import ipaddress


def url_host(host: str) -> str:
    """Return the host as it stands in a URL that the listening machine itself can ask."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether an address leads every machine to itself: localhost, 127.0.0.0/8 and ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
