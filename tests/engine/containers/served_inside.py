"""A container with a small HTTP server and the tunnel's program, without an image of ours."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.containers import ensure_image
from tests.engine.containers.support import container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient

_SERVING = Path(__file__).parents[3] / "airflow_model_deploy" / "engine" / "serving"
_SERVER = """
import http.server, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1.5)
        self.answer(str(self.client_address[1]).encode())  # tells connections apart

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *arguments):
        pass

time.sleep(0.3)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@contextlib.contextmanager
def with_server(client: APIClient, base: str) -> Iterator[str]:
    """Yield the id of a running container whose server listens on port 8080 a moment later."""
    ensure_image(client, base, log=print)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("__init__.py", "tunnel.py", "health.py"):
            archive.add(_SERVING / name, f"opt/model-server/model_server/{name}")
    with container(
        client,
        base,
        ["python3", "-c", _SERVER],
        environment={"PYTHONPATH": "/opt/model-server"},
        host_config=client.create_host_config(network_mode="none"),
    ) as made:
        client.put_archive(made, "/", packed.getvalue())
        client.start(made)
        yield made
