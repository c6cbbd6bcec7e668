"""The gates bite: a sick service is called sick, a wrong release gets no request, a worse model is not released."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from airflow_model_deploy.engine.artifacts import Reference, Store
from airflow_model_deploy.engine.probing import Client, load_golden
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from tests.hardening.flow import Workspace, until
from tests.hardening.releases import other_weights, remade


@dataclass
class Host:
    """A host with a service, driven by the steps."""

    root: object
    port: int
    store: Store

    def run(self, step, inputs, **spec):
        request = StepRequest(step, {"root": str(self.root), **spec}, inputs, self.store.url)
        return run_request(request)

    def deploy(self, release):
        return self.run("deploy", {"release": release}, port=self.port, ready_timeout_s=30)

    def monitor(self, release, **spec):
        result = self.run("monitor", {"release": release}, **spec)
        assert result.status == "succeeded", result.error
        return result.details["verdict"]

    def live(self):
        return service_status(self.root, "toy")["live"]

    def pids(self):
        """The supervisor's, then the server's."""
        status = service_status(self.root, "toy")
        return [status["supervisor"], *(process["pid"] for process in status["processes"])]


@pytest.fixture(scope="module")
def store(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    shutil.copytree(undisturbed.folder / "store", folder / "store")
    return Store(f"file://{folder}/store")


@pytest.fixture
def release(store, undisturbed):
    return store.reference(undisturbed.made["package"].digest)


@pytest.fixture
def host(tmp_path, unused_port, store, release):
    host = Host(tmp_path / "host", unused_port, store)
    try:
        assert host.deploy(release).status == "succeeded"
        yield host
    finally:
        stop_service(host.root, "toy")


@dataclass
class Seen:
    versions: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)


@contextlib.contextmanager
def asking(host, release):
    """Ask the public port all the time, one connection for each question and one for all of them."""
    golden = load_golden(Store(host.store.url).fetch(release)[0] / "bundle" / "servable" / "golden.json")
    inputs, url = golden.requests[0].inputs, f"http://127.0.0.1:{host.port}"
    seen, done = Seen(), threading.Event()

    def ask(client):
        try:
            client.infer(inputs)
            seen.versions[client.metadata()["versions"][0]] += 1
        except Exception as error:
            seen.failures.append(repr(error))

    def with_one_connection():
        with Client(url, "toy") as client:
            while not done.is_set():
                ask(client)
                time.sleep(0.005)

    def with_many():
        while not done.is_set():
            with Client(url, "toy") as client:
                ask(client)

    threads = [threading.Thread(target=target) for target in (with_one_connection, with_many)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def meanwhile(action):
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_sound_service_is_healthy_and_too_few_requests_decide_nothing(host, release):
    verdict = host.monitor(release, window_s=1, interval_s=0.02)
    assert verdict["status"] == "healthy", verdict
    verdict = host.monitor(release, window_s=0.3, interval_s=0.1)
    assert verdict["status"] == "inconclusive", verdict
    assert "20 wanted" in verdict["reasons"][0]


def test_a_killed_service_is_failing(host, release):
    pids = host.pids()

    def kill():
        time.sleep(0.5)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    with meanwhile(kill):
        verdict = host.monitor(release, window_s=1.2, interval_s=0.02)
    assert verdict["status"] == "failing", verdict
    assert "no answer" in " ".join(verdict["reasons"])


def test_a_slowed_service_is_degraded(host, release):
    """Stopped and continued again and again, as on a machine that does too much: every sixth answer is late."""
    _, server = host.pids()
    done = threading.Event()

    def slow():
        while not done.is_set():
            os.kill(server, signal.SIGSTOP)
            done.wait(0.6)  # the objective is 500 ms
            os.kill(server, signal.SIGCONT)
            done.wait(0.1)

    with meanwhile(slow):
        try:
            verdict = host.monitor(release, window_s=3.5, interval_s=0.02)
        finally:
            done.set()
    assert verdict["status"] == "degraded", verdict
    assert "within 500 ms" in " ".join(verdict["reasons"])


def test_a_server_whose_metrics_can_not_be_read_is_not_called_healthy(host, release, monkeypatch):
    """Behind a proxy that lets the protocol through and nothing else."""
    import http.server
    import urllib.error
    import urllib.request

    class Proxy(http.server.BaseHTTPRequestHandler):
        def forward(self):
            if self.path == "/metrics":
                self.send_error(403)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            url = f"http://127.0.0.1:{host.port}{self.path}"
            with urllib.request.urlopen(urllib.request.Request(url, body, method=self.command)) as answer:
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = forward  # noqa: N815 - the base class's names

        def log_message(self, *_):
            pass

    from airflow_model_deploy.engine.monitoring import judge, observe
    from airflow_model_deploy.engine.packaging import Objectives

    golden = load_golden(host.store.fetch(release)[0] / "bundle" / "servable" / "golden.json")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}", "toy") as client:
            seen = observe(client, golden, window_s=0.6, interval_s=0.02, latency_ms=500)
        server.shutdown()
    verdict = judge(seen, Objectives(latency_ms=500))
    assert verdict.status == "inconclusive", verdict
    assert "metrics" in " ".join(verdict.reasons)


def test_a_release_that_breaks_its_golden_promise_gets_no_request(host, store, release, tmp_path):
    """Its checksums are right and its blessing says yes; only the answers are those of another model."""
    bad = remade(store, release, tmp_path / "bad", "bad", other_weights)
    before, pids = host.live(), host.pids()
    with asking(host, release) as seen:
        until(lambda: sum(seen.versions.values()) > 20, 10)
        result = host.deploy(bad)
        count = sum(seen.versions.values())
        until(lambda: sum(seen.versions.values()) > count + 20, 10)
    assert result.status == "failed"
    assert result.error["type"] == "RolloutError"
    assert result.error["permanent"] is True
    assert "golden" in result.error["message"]
    assert seen.failures == []
    assert "bad" not in seen.versions
    assert (host.live(), host.pids()) == (before, pids)


def test_rolled_back_twice_it_is_where_it_was_and_no_request_failed(host, store, release, tmp_path):
    first = host.live()
    second = host.deploy(remade(store, release, tmp_path / "second", "second"))
    assert second.status == "succeeded", second.error
    with asking(host, release) as seen:
        for wanted, other in ((first, second.details["revision"]), (second.details["revision"], first)):
            result = host.run("rollback", {}, name="toy")
            assert result.status == "succeeded", result.error
            assert (result.details["revision"], result.details["previous"]) == (wanted, other)
            assert host.live() == wanted
    assert seen.failures == []
    assert len(seen.versions) == 2


@pytest.fixture(scope="module")
def weak(undisturbed, tmp_path_factory):
    """A candidate that lost nothing against its own baseline, and is worse than what serves."""
    folder = tmp_path_factory.mktemp("weak")
    shutil.copytree(undisturbed.folder / "store", folder / "store")
    workspace = Workspace(folder, undisturbed.code, dict(undisturbed.made))
    for stage, changes in (("train", {"epochs": 1}), ("quantize", {"mode": "none"}), ("build", {})):
        if stage == "quantize":
            workspace.made["compress"] = workspace.made["train"]
        result = workspace.run(workspace.request(stage, **changes))
        assert result.status == "succeeded", result.error
        workspace.made[stage] = result.artifact
        if stage == "quantize":
            workspace.made["optimize"] = result.artifact
    return workspace


def evaluate(workspace, champion=None, **changes):
    request = workspace.request("test", **changes)
    inputs = {**request.inputs, "champion": workspace.store.reference(champion.digest)} if champion else {}
    return workspace.run(replace(request, inputs=inputs or request.inputs))


def test_a_candidate_worse_than_the_champion_is_refused_and_told_by_how_much(weak, undisturbed):
    for champion in (undisturbed.made["package"], undisturbed.made["build"]):
        result = evaluate(weak, champion, max_drop_from_champion=2)
        assert result.error["type"] == "GateError", result.error
        assert result.error["permanent"] is True
        assert "max_drop_from_champion(accuracy) failed" in result.error["message"]
        assert "wanted at most 2 points" in result.error["message"]
    # Nothing deployed yet, or no such gate wanted: its own baseline is all there is to compare with.
    assert evaluate(weak).status == "succeeded"
    assert evaluate(weak, undisturbed.made["package"], max_drop_from_champion=None).status == "succeeded"


def test_the_champion_is_compared_with_and_not_an_ancestor(undisturbed):
    release = undisturbed.made["package"]
    result = evaluate(undisturbed, release)
    assert result.status == "succeeded", result.error
    passed = [gate for gate in result.details["gates"] if "champion" in gate["name"]]
    assert [(gate["found"], gate["passed"]) for gate in passed] == [(0.0, True)]
    assert release.digest not in undisturbed.store.manifest(result.artifact).description.parents.values()
    assert evaluate(undisturbed, release).cached is True
    wrong = evaluate(undisturbed, undisturbed.made["train"])
    assert "wanted: a release or a servable" in wrong.error["message"]
    blind = evaluate(undisturbed, release, data=None, max_quality_drop=None)
    assert "max_drop_from_champion set, but no data" in blind.error["message"]


def test_the_operator_takes_its_champion_from_the_last_event_of_an_asset(undisturbed):
    from types import SimpleNamespace

    from airflow.sdk import Asset

    from airflow_model_deploy.operators.evaluate import EvaluateModelOperator

    asset, release = Asset("model/toy/deployed"), undisturbed.made["package"]

    def inputs(champion, events=()):
        operator = EvaluateModelOperator(task_id="test_model", servable=1, baseline=2, champion=champion)
        assert operator.inlets == ([asset] if champion is asset else [])
        return operator.full_inputs({"inlet_events": {asset: list(events)}})

    given = {"servable": 1, "baseline": 2}
    assert inputs(None) == inputs("None") == inputs(asset) == given
    events = [SimpleNamespace(extra={"digest": "older"}), SimpleNamespace(extra=release.to_json())]
    assert inputs(asset, events) == {**given, "champion": release.to_json()}
    assert Reference.from_json(inputs(release.uri)["champion"]) == release
