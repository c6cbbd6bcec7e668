"""Against a real Prometheus that scrapes real HTTP servers once a second."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.monitoring import Counts, PrometheusSource, PrometheusWindow
from airflow_model_deploy.engine.monitoring.prometheus_api import Series
from airflow_model_deploy.engine.monitoring.prometheus_pods import Target, counts
from tests.engine.monitoring.pods import Pod
from tests.prometheus_server import needs_prometheus, running_prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PODS = {"exact": "a b other", "restarted": "a", "dead": "a b", "old": "a", "mute": "a b", "twice": "a"}
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: pods
  file_sd_configs: [{{files: ["{folder}/targets.json"]}}]
- job_name: pods-again
  file_sd_configs: [{{files: ["{folder}/again.json"]}}]
"""


class Served:
    """Answers every GET with a text, on a free port."""

    def __init__(self, text: Callable[[], str], status: int = 200) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.asked = dict(self.headers), self.path  # type: ignore[attr-defined]
                body = text().encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class World:
    """A namespace of pods that a Prometheus scrapes."""

    def __init__(self, namespace: str, pods: str) -> None:
        self.namespace, self.source = namespace, PrometheusSource("http://localhost")
        self.pods = {name: Pod() for name in pods.split()}
        self.servers = {name: Served(pod.text) for name, pod in self.pods.items()}

    def targets(self) -> list[dict[str, Any]]:
        return [
            {"targets": [server.address], "labels": {"namespace": self.namespace, "pod": name}}
            for name, server in self.servers.items()
        ]

    def window(self, pods: str = "a|b", latency_ms: float = 50.0) -> PrometheusWindow:
        window = self.source.window(pods, latency_ms=latency_ms, namespace=self.namespace)
        window.start()
        return window

    def scraped(self, pods: int) -> None:
        """Wait until a scrape that began after now has reached that many pods."""
        now, query = self.source.now(), f'up{{namespace="{self.namespace}"}}[20s]'
        _wait(
            lambda: (
                sum(at > now and up == 1 for s in self.source._ask(query, None) for at, up in s.samples[-1:])
                >= pods
            )
        )


def _wait(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _becomes(window: PrometheusWindow, wanted: Counts) -> None:
    deadline = time.monotonic() + 20.0
    while (seen := window.counts()) != wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


class Running(dict[str, World]):
    """All namespaces; Prometheus takes up to 5 s to act on a change of its targets, so most are there before."""

    def __init__(self, folder: Path) -> None:
        super().__init__({namespace: World(namespace, pods) for namespace, pods in PODS.items()})
        self.folder = folder
        self.tell()

    def tell(self) -> None:
        _write(self.folder / "targets.json", [t for world in self.values() for t in world.targets()])
        _write(self.folder / "again.json", self["twice"].targets())


def _write(path: Path, targets: list[dict[str, Any]]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(targets))
    new.rename(path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("prometheus")
    running = Running(folder)
    running["mute"].servers["b"].stop()
    try:
        with running_prometheus(folder, CONFIG.format(folder=folder)) as url:
            for world in running.values():
                world.source = PrometheusSource(url)
            yield running
    finally:
        for world in running.values():
            for server in world.servers.values():
                server.stop()


@needs_prometheus
def test_the_counts_are_exact_and_no_traffic_is_zero(running: Running) -> None:
    world = running["exact"]
    a, b = world.pods["a"], world.pods["b"]
    a.serve(100, code="500")
    world.scraped(3)
    window, between = world.window(), world.window(latency_ms=60.0)
    _becomes(window, Counts(0, 0, 0, 0, 0))
    a.serve(3)
    b.serve(4, seconds=0.3)
    b.serve(1, seconds=0.08)
    b.serve(5, code="503")  # its series is born in the window, where increase() would begin at 5
    world.scraped(3)
    _becomes(window, Counts(requests=13, errors=5, timed=8, slow=5, slow_most=5))
    _becomes(between, Counts(requests=13, errors=5, timed=8, slow=4, slow_most=5))
    _becomes(world.window(), Counts(0, 0, 0, 0, 0))
    assert world.window("nobody").counts() == Counts()


@needs_prometheus
def test_a_restarted_server_adds_to_what_it_had(running: Running) -> None:
    world = running["restarted"]
    a = world.pods["a"]
    a.serve(50)
    world.scraped(1)
    window = world.window()
    a.serve(10, code="500")
    world.scraped(1)
    a.restart()
    a.serve(3)
    world.scraped(1)
    _becomes(window, Counts(requests=13, errors=10, timed=3, slow=0, slow_most=0))


@needs_prometheus
def test_a_dead_server_is_unknown_at_once_and_a_replaced_one_keeps_what_it_had(running: Running) -> None:
    world = running["dead"]
    world.scraped(2)
    window = world.window("a|b|late")
    world.pods["a"].serve(6)
    world.pods["b"].serve(2)
    world.scraped(2)
    world.servers.pop("a").stop()  # its numbers stay good in every range of Prometheus
    _becomes(window, Counts(8, 0, 8, 0, 0, unknown=("a",)))
    late = Pod()
    late.serve(7, code="500")
    world.servers["late"] = Served(late.text)
    running.tell()
    _becomes(window, Counts(15, 7, 8, 0, 0))


@needs_prometheus
def test_samples_older_than_two_intervals_are_unknown(running: Running) -> None:
    world = running["old"]
    world.scraped(1)
    start = world.source.now()
    world.pods["a"].serve(5)
    world.scraped(1)
    options: dict[str, Any] = {"start": start, "latency_ms": 50.0, "namespace": world.namespace}
    now = world.source.now()
    assert world.source.counts("a", **options, now=now) == Counts(5, 0, 5, 0, 0)
    world.scraped(1)
    assert world.source.counts("a", **options, now=now + 9) == Counts(5, 0, 5, 0, 0, unknown=("a",))
    slower = PrometheusSource(world.source.url, interval_s=15.0)
    assert slower.counts("a", **options, now=now + 9) == Counts(5, 0, 5, 0, 0)


@needs_prometheus
def test_a_server_that_never_answered_is_unknown(running: Running) -> None:
    world = running["mute"]
    world.scraped(1)
    _becomes(world.window("b"), Counts(unknown=("b",)))


@needs_prometheus
def test_a_pod_scraped_by_two_jobs_counts_once(running: Running) -> None:
    world = running["twice"]
    world.scraped(2)
    window = world.window()
    world.pods["a"].serve(4)
    world.scraped(2)
    assert window.counts().requests == 4


@needs_prometheus
def test_a_question_that_prometheus_refuses_is_told_in_its_words(running: Running) -> None:
    with pytest.raises(InputError, match="error parsing regexp"):
        running["exact"].source.counts("a(", start=0.0, latency_ms=50.0)


def _answer(kind: str, result: object) -> str:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


@pytest.mark.parametrize(
    ("status", "text", "error", "words"),
    [
        (503, "too many queries", UnavailableError, "503 too many queries"),
        (401, "who are you", InputError, "401 who are you"),
        (200, "<html>", InputError, "<html>"),
        (200, "[1]", InputError, "query API"),
        (200, _answer("string", [0, "x"]), InputError, "a string"),
        (200, _answer("vector", [{"value": [1]}]), InputError, "can't be read"),
    ],
)
def test_what_is_no_answer_is_an_error_by_name(
    status: int, text: str, error: type[Exception], words: str
) -> None:
    server = Served(lambda: text, status)
    try:
        with pytest.raises(error, match=rf"Prometheus at http://{server.address}") as caught:
            PrometheusSource(f"http://{server.address}").now()
        assert words in str(caught.value)
    finally:
        server.stop()


def test_a_server_that_is_not_there_may_be_later() -> None:
    server = Served(str)
    server.stop()
    source = PrometheusSource(f"http://me:secret@{server.address}", headers={"Authorization": "Bearer token"})
    with pytest.raises(UnavailableError, match="Prometheus at") as caught:
        source.window("a", latency_ms=50).start()
    assert "secret" not in str(caught.value)
    assert "token" not in repr(source)


def test_headers_are_sent_and_names_are_quoted() -> None:
    server = Served(lambda: _answer("vector", []))
    try:
        source = PrometheusSource(
            f"http://{server.address}/prom/",
            pod_label="kubernetes_pod",
            headers={"Authorization": "Bearer token"},
        )
        assert source.counts('a"b\\.c', start=1.0, now=2.0, latency_ms=50, namespace='n"') == Counts()
        headers, path = server.server.asked  # type: ignore[attr-defined]
        assert headers["Authorization"] == "Bearer token"
        url = httpx.URL(path)
        assert url.path == "/prom/api/v1/query"
        assert url.params["query"] == 'timestamp(up{kubernetes_pod=~"a\\"b\\\\.c",namespace="n\\""})'
    finally:
        server.stop()


def test_a_sample_that_is_no_number_is_none() -> None:
    server = Served(lambda: _answer("vector", [{"metric": {"pod": "a"}, "value": [1.0, "NaN"]}]))
    try:
        source = PrometheusSource(f"http://{server.address}")
        assert source.counts("a", start=1.0, now=2.0, latency_ms=50) == Counts()
    finally:
        server.stop()


@pytest.mark.parametrize(
    "options", [{"url": "prometheus:9090"}, {"pod_label": 'pod"'}, {"namespace_label": ""}]
)
def test_a_source_that_can_not_be_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="Prometheus"):
        PrometheusSource(**({"url": "http://localhost:9090"} | options))


def test_a_window_has_a_start() -> None:
    with pytest.raises(InputError, match="no start"):
        PrometheusSource("http://localhost:9").window("a", latency_ms=50).counts()


def _series(name: str, *values: float, at: float = 1000.0, **labels: str) -> Series:
    return Series(
        name, frozenset(({"pod": "a"} | labels).items()), tuple((at + i, v) for i, v in enumerate(values))
    )


@pytest.mark.parametrize(("born", "requests"), [(100.0, 3), (990.0, 53), (1005.0, 53)])
def test_an_old_process_that_prometheus_just_met_counts_from_its_first_sample(
    born: float, requests: int
) -> None:
    """Started long before the window, it would have been seen in it: its first count isn't the window's."""
    up = _series("up", 1, 1, 1)
    found = [
        up,
        _series("process_start_time_seconds", born, born, born),
        _series("model_request_duration_seconds_count", 50, 51, 53, code="200"),
    ]
    seen = counts(
        [Target(up, found, "a")], {up.labels: 1002.0}, 999.0, 1002.5, latency_s=0.05, interval_s=None
    )
    assert seen == Counts(requests=requests, errors=0)


def test_a_process_that_overtook_the_one_before_it_is_known_by_its_start() -> None:
    up = _series("up", 1, 1)
    found = [
        up,
        _series("process_start_time_seconds", 100.0, 1000.5),
        _series("model_request_duration_seconds_count", 50, 70, code="500"),
    ]
    seen = counts(
        [Target(up, found, "a")], {up.labels: 1001.0}, 1000.5, 1001.5, latency_s=0.05, interval_s=None
    )
    assert seen == Counts(requests=70, errors=70)


def test_where_nothing_is_scraped_any_more_all_is_unknown() -> None:
    up = _series("up", 1, 1)
    found = [up, _series("model_request_duration_seconds_count", 50, 70, code="200")]
    seen = counts([Target(up, found, "a")], {}, 1000.5, 1400.0, latency_s=0.05, interval_s=None)
    assert seen == Counts(requests=20, errors=0, unknown=("a",))
