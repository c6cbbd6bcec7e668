"""A real Prometheus, for as long as a test needs one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROGRAM is None, reason="no prometheus on PATH (Debian: apt-get install prometheus)"
)


@contextmanager
def running_prometheus(folder: Path, config: str) -> Iterator[str]:
    """Run one on a free port, with its data in a folder; yields its URL."""
    (folder / "config.yml").write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--config.file={folder}/config.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(PROGRAM), *options, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 30.0
        while not _ready(f"http://{address}"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "Prometheus isn't ready after 30 s"
            time.sleep(0.05)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.TransportError:
        return False
