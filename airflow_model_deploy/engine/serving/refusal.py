"""The one error by which a servable is refused; knows no reason for it."""

from __future__ import annotations


class ServableRefusedError(Exception):
    """The folder isn't a servable that may be served; the text names the file or field and why."""
