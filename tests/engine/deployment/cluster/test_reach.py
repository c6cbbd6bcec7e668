"""The ways into a real pod and a real Service: by their addresses, and through the API server."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    Connection,
    DirectReach,
    ProxyReach,
    reach_of,
    wait_endpoints,
    wait_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import proxy as proxying
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.probing import Client
from tests.engine.deployment.cluster.manifests import deployment, service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kubernetes
BINARY = "Inference-Header-Content-Length"

# Answers a POST with its own body and headers, or, where that is a JSON request, with its inputs as outputs.
SERVER = """
import json, signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
signal.signal(signal.SIGTERM, lambda *_: exit())
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def reply(self, status, kind, body, extra=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra: self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/metrics": self.reply(200, "text/plain; version=0.0.4", b"model_info 1.0\\n")
        elif self.path.endswith(("/live", "/ready")): self.reply(200, "application/json", b"{}")
        elif self.path == "/busy": self.reply(429, "application/json", b'{"error": "busy"}', [("Retry-After", "1")])
        else: self.reply(404, "application/json", json.dumps({"error": "nothing at " + self.path}).encode())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        size = self.headers.get("Inference-Header-Content-Length")
        if size: self.reply(200, self.headers["Content-Type"], body, [("Inference-Header-Content-Length", size)])
        else: self.reply(200, "application/json", json.dumps({"outputs": json.loads(body)["inputs"]}).encode())
    def log_message(self, *a): pass
ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


@pytest.fixture
def web(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pod that answers, and the Service in front of it."""
    probe = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1}
    cluster.apply(deployment("web", SERVER, container={"readinessProbe": probe}))
    front = cluster.apply(service("web", {"app": "web"}))
    (pod,) = wait_ready(cluster, {"app": "web"}, 1, deadline_s=60, log=print)
    wait_endpoints(cluster, "web", {pod["status"]["podIP"]}, deadline_s=20)
    return pod, front


class Patient(httpx.HTTPTransport):
    """Connects again for some seconds where it is refused."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        until = time.monotonic() + 10
        while True:
            try:
                return super().handle_request(request)
            except httpx.ConnectError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


def urls(cluster: Cluster, web: tuple[dict[str, Any], dict[str, Any]], mode: Any) -> Iterator[str]:
    reach = reach_of(cluster, mode)
    with reach.pod(web[0]) as url:
        yield url
    with reach.public(web[1]) as url:
        yield url


def test_both_ways_lead_to_the_pod_and_to_the_service(cluster, web):
    data = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32).tobytes()
    header = b'{"inputs": []}'
    for url in urls(cluster, web, "direct"):
        # A node's rules for a Service follow its endpoints, a moment later.
        with httpx.Client(transport=Patient(), trust_env=False) as client:
            assert client.get(f"{url}/metrics").text == "model_info 1.0\n"
    for url in urls(cluster, web, "proxy"):
        with Client(url, "digits") as client:
            assert client.live()
            assert client.ready()
            assert client.metrics_text() == "model_info 1.0\n"
            x = np.arange(6, dtype=np.float32).reshape(2, 3)
            np.testing.assert_array_equal(client.infer({"x": x})["x"], x)
        with httpx.Client(base_url=url, trust_env=False) as client:
            headers = {"Content-Type": "application/octet-stream", BINARY: str(len(header))}
            answer = client.post("/v2/models/digits/infer", content=header + data, headers=headers)
            assert answer.content == header + data
            assert answer.headers[BINARY] == str(len(header))
            busy = client.get("/busy")
            assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
            assert client.get("/a%20b?c=d%26e").json()["error"] == "nothing at /a%20b?c=d%26e"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/metrics", trust_env=False)


def test_the_way_through_the_api_server_leads_nowhere_else(cluster, web, monkeypatch):
    monkeypatch.setattr(proxying, "_MOST_BYTES", 1000)
    with ProxyReach(cluster).pod(web[0]) as url:
        parts = urlsplit(url)

        def ask(path: str, method: str = "GET", body: bytes | None = None) -> int:
            connection = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 0), timeout=10)
            connection.request(method, path, body)
            status = connection.getresponse().status
            connection.close()
            return status

        assert ask(f"{parts.path}/metrics") == 200
        assert ask("/metrics") == 404
        assert ask(f"{parts.path}x/metrics") == 404
        for up in ("/..", "/%2e%2e", "/%2E.", "/..%2f..%2f.."):
            assert [ask(f"{parts.path}{up * n}/secrets") for n in range(1, 5)] == [404] * 4
        assert ask(f"{parts.path}/v2/x", "DELETE") == 501
        assert ask(f"{parts.path}/v2/x", "POST", b"x" * 1001) == 413


def test_a_pod_that_is_gone_is_an_answer_that_says_so(cluster):
    with ProxyReach(cluster).pod({"metadata": {"name": "nobody"}}) as url:
        answer = httpx.get(f"{url}/metrics", trust_env=False)
    assert answer.status_code == 502
    assert "nobody" in answer.json()["error"]


def test_an_address_is_needed_for_the_direct_way():
    reach = DirectReach()
    with pytest.raises(UnavailableError, match="no address"), reach.pod({"metadata": {"name": "web"}}):
        pass
    headless = {"metadata": {"name": "web"}, "spec": {"clusterIP": "None"}}
    with pytest.raises(UnavailableError, match="no address"), reach.public(headless):
        pass
    with reach.pod({"metadata": {"name": "web"}, "status": {"podIP": "fd00::1"}}) as url:
        assert url == "http://[fd00::1]:8080"


def test_the_way_follows_from_where_we_run():
    outside, inside = Cluster(Connection(in_cluster=False), "n"), Cluster(Connection(in_cluster=True), "n")
    assert isinstance(reach_of(outside), ProxyReach)
    assert isinstance(reach_of(inside), DirectReach)
    assert isinstance(reach_of(outside, "direct"), DirectReach)
    with pytest.raises(InputError, match="direct or proxy"):
        reach_of(outside, "tunnel")  # type: ignore[arg-type]
