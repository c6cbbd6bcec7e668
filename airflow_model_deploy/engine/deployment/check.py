"""What a target asks of the check that decides whether a running server answers rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class CheckResult(Protocol):
    """The outcome of a check; the comparison of golden requests is one."""

    @property
    def passed(self) -> bool:
        """Whether the server may get, or keep, traffic."""
        ...

    @property
    def summary(self) -> str:
        """One line for the log and for the error."""
        ...


Check = Callable[[str, Path], CheckResult]
"""Asks the server at a base URL ("http://127.0.0.1:8080") and judges its answers by the installed release."""
