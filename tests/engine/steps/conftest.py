from __future__ import annotations

import socket
import sys

import pytest


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def forget_modules():
    """Forget imported modules, as a new process would not know them."""

    def forget(names):
        for name in names:
            sys.modules.pop(name, None)
        sys.path[:] = [path for path in sys.path if "/artifacts/sha256-" not in path]

    return forget
