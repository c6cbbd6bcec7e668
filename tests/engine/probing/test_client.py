from __future__ import annotations

import http.server
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.probing import Client, GoldenSet, ProbeError, ask, check_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.served import Served


def f32(values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


X = {"x": f32([[1.0, 2.0, 3.0]])}


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A real HTTP server with one fault that the model server can't be made to show."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _say(status: int, body: bytes) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_running_server_answers_everything(served: Served) -> None:
    with Client(served.url, "affine") as client:
        assert client.live()
        assert client.ready()
        metadata = client.metadata()
        assert (metadata["name"], metadata["inputs"][0]["name"]) == ("affine", "x")
        np.testing.assert_allclose(client.infer(X)["y"], X["x"] @ served.weights, rtol=1e-6)
        assert "model_request_duration_seconds_count" in client.metrics_text()


def test_a_refusal_carries_the_servers_words(served: Served) -> None:
    with Client(served.url, "affine") as client, pytest.raises(ProbeError) as caught:
        client.infer({"wrong": X["x"]})
    assert caught.value.status is not None
    assert 400 <= caught.value.status < 500
    assert "x" in str(caught.value.found)
    assert caught.value.permanent


def test_another_model_is_not_ready(served: Served) -> None:
    with Client(served.url, "other") as client:
        assert client.live()
        assert not client.ready()
        with pytest.raises(ProbeError, match="404"):
            client.metadata()


def test_the_environments_proxy_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client(served.url, "affine") as client:
        assert client.live()


def test_nobody_there_is_unavailable_and_may_be_tried_again() -> None:
    with Client("http://127.0.0.1:9", "affine", timeout_s=1) as client, pytest.raises(UnavailableError) as e:
        client.live()
    assert not e.value.permanent


def test_a_slow_answer_is_unavailable() -> None:
    with answering(lambda h: time.sleep(1)) as url, Client(url, "m", timeout_s=0.2) as client:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="Timeout"):
            client.infer(X)
        assert time.monotonic() - start < 0.9


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"outputs": 3}', b'{"outputs": [{"name": "y"}]}', b'{"outputs": ["y"]}'],
)
def test_an_answer_that_is_not_the_protocols_is_a_probe_error(body: bytes) -> None:
    with answering(_say(200, body)) as url, Client(url, "m") as client, pytest.raises(ProbeError):
        client.infer(X)


def test_an_overloaded_server_may_be_asked_again() -> None:
    busy = _say(503, b'{"error": "too many requests in flight"}')
    with (
        answering(busy) as url,
        Client(url, "m") as client,
        pytest.raises(ProbeError, match="in flight") as e,
    ):
        client.infer(X)
    assert (e.value.status, e.value.permanent) == (503, False)


def test_an_address_without_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="http"):
        Client("localhost:8080", "m")


def test_the_right_model_passes_the_check(served: Served) -> None:
    found = check_server(served.url, "affine", served.golden)
    assert found.passed, found.summary
    assert found.matched == found.total == 4
    assert found.max_abs_error <= found.tolerance


def test_a_server_with_wrong_answers_does_not_pass(golden: GoldenSet) -> None:
    wrong = b'{"outputs": [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [9.0, 9.0]}]}'
    with answering(_say(200, wrong)) as url:
        found = check_server(url, "affine", golden)
    assert (found.passed, found.matched) == (False, 0)
    assert "golden-000: output y[0, 0]: got 9.0" in found.summary


def test_a_server_that_fails_on_every_request_does_not_pass_and_is_quoted_once(golden: GoldenSet) -> None:
    with answering(_say(500, b'{"error": "out of memory"}')) as url, Client(url, "affine") as client:
        found = ask(client, golden)
    assert not found.passed
    assert len(found.mismatches) == len(golden.requests)
    assert "out of memory" in found.mismatches[0]


def test_a_server_that_is_gone_is_waited_for_once(golden: GoldenSet) -> None:
    with answering(lambda h: time.sleep(1)) as url:
        start = time.monotonic()
        found = check_server(url, "affine", golden, timeout_s=0.2)
        assert time.monotonic() - start < 0.7  # not 0.2 s for each of the four
    assert not found.passed
    assert "did not answer" in found.summary
