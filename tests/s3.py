"""A real S3 server for tests, in a process of its own, and the Airflow connection to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

KEY, SECRET = "the-key-of-the-store", "h4rdly-guessed-either"
BUCKET = "models"


@dataclass(frozen=True)
class S3:
    """Where it listens, and how its bucket is opened."""

    endpoint: str
    url: str = f"s3://{BUCKET}/store"

    @property
    def options(self):
        """What a Store takes."""
        return {
            "key": KEY,
            "secret": SECRET,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": "us-east-1"},
        }

    @property
    def connection(self):
        """What an Airflow connection says."""
        extra = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        return json.dumps({"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra})


@contextmanager
def serving(address="127.0.0.1"):
    """Yield an S3 server with an empty bucket."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = S3(f"http://{address}:{port}")
    try:
        _make_bucket(found.endpoint, server)
        yield found
    finally:
        server.kill()
        server.wait()


def _make_bucket(endpoint, server, seconds=60):
    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the S3 server doesn't start") from None
            time.sleep(0.1)
        else:
            return
