"""How an address to listen on reads in a URL."""

from __future__ import annotations


def url_host(host: str) -> str:
    """Return the host as it stands in a URL that the listening machine itself can ask."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"[{host}]" if ":" in host else host
