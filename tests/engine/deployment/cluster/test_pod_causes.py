"""What a pod's status tells: which causes end a wait and which may pass."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import classify, is_ready
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.causes import creation_cause

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def pod(*containers: dict[str, Any], phase: str = "Pending", **status: Any) -> dict[str, Any]:
    found = {"phase": phase, "containerStatuses": list(containers)} | status
    return {"metadata": {"name": "web-1"}, "status": found}


def waiting(reason: str, message: str = "", restarts: int = 0, last: Any = None) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    before = {"terminated": last} if last else {}
    return {"name": "server", "restartCount": restarts, "state": state, "lastState": before}


def ended(code: int, reason: str = "Error", restarts: int = 0, last: Any = None) -> dict[str, Any]:
    before = {"terminated": last} if last else {}
    state = {"terminated": exit_of(code, reason, "2026-01-01T12:00:10Z")}
    return {"name": "server", "restartCount": restarts, "state": state, "lastState": before}


def exit_of(code: int, reason: str = "Error", at: str = "2026-01-01T12:00:00Z") -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "finishedAt": at}


PULL = (
    'rpc error: code = {} desc = failed to pull and unpack image "r.io/m:1": failed to resolve reference: {}'
)
BACK_OFF = "back-off 10s restarting failed container=server pod=web-1_n(1)"
OOM = exit_of(137, "OOMKilled")

PERMANENT = {
    "no such tag": waiting("ErrImagePull", PULL.format("NotFound", "r.io/m:1: not found")),
    "no such tag, docker's words": waiting(
        "ErrImagePull", "manifest for r.io/m:1 not found: manifest unknown: manifest unknown"
    ),
    "refused": waiting(
        "ErrImagePull",
        PULL.format("Unknown", "pull access denied, repository does not exist or may require authorization"),
    ),
    "unauthorized": waiting(
        "ErrImagePull",
        PULL.format(
            "Unknown",
            "failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized",
        ),
    ),
    "back-off of a newer cluster": waiting(
        "ImagePullBackOff", 'Back-off pulling image "r.io/m:1": ErrImagePull: r.io/m:1: not found'
    ),
    "not pulled here": waiting(
        "ErrImageNeverPull", 'Container image "m" is not present with pull policy of Never'
    ),
    "no image's name": waiting("InvalidImageName", "couldn't parse image reference"),
    "config": waiting("CreateContainerConfigError", 'configmap "web" not found'),
    "user": waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
    "program": waiting("RunContainerError", 'exec: "nope": executable file not found in $PATH'),
    "program, after a start": ended(128, "StartError"),
    "memory": waiting("CrashLoopBackOff", BACK_OFF, 1, OOM),
    "memory, before the back-off": ended(137, "OOMKilled", 1, OOM),
    "crashes": waiting("CrashLoopBackOff", BACK_OFF, 2, exit_of(1)),
    "crashes, before the back-off": ended(1, restarts=2, last=exit_of(1)),
    "ends without error, again and again": waiting("CrashLoopBackOff", BACK_OFF, 2, exit_of(0, "Completed")),
}
PASSING = {
    "registry down": waiting(
        "ErrImagePull", PULL.format("Unknown", "dial tcp 10.0.0.1:443: connect: connection refused")
    ),
    "registry slow": waiting("ErrImagePull", PULL.format("DeadlineExceeded", "context deadline exceeded")),
    "registry ill": waiting(
        "ErrImagePull", PULL.format("Unknown", "unexpected status code 503 Service Unavailable")
    ),
    "too many pulls": waiting(
        "ErrImagePull", "toomanyrequests: You have reached your pull rate limit as 'unauthorized'"
    ),
    "back-off alone": waiting("ImagePullBackOff", 'Back-off pulling image "r.io/m:1"'),
    "config not there yet": waiting(
        "CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"
    ),
    "slow runtime": waiting("CreateContainerError", "context deadline exceeded"),
    "killed for memory once": ended(137, "OOMKilled"),
    "crashed once": ended(1),
    "crashed twice": waiting("CrashLoopBackOff", BACK_OFF, 1, exit_of(1)),
    "a crash after months": ended(1, restarts=7, last=exit_of(1, at="2025-11-01T12:00:00Z")),
    "killed for memory after months": ended(
        137, "OOMKilled", 7, exit_of(137, "OOMKilled", "2025-11-01T12:00:00Z")
    ),
}


@pytest.mark.parametrize("container", PERMANENT.values(), ids=PERMANENT.keys())
def test_what_waiting_does_not_help(container):
    cause = classify(pod(container))
    assert cause is not None
    assert cause.permanent
    assert cause.text


@pytest.mark.parametrize("container", PASSING.values(), ids=PASSING.keys())
def test_what_may_pass(container):
    cause = classify(pod(container))
    assert cause is not None
    assert not cause.permanent


def test_a_text_is_the_clusters_own():
    cause = classify(pod(PERMANENT["config"]))
    assert str(cause) == 'CreateContainerConfigError: configmap "web" not found'


def test_a_crash_is_told_with_its_code_and_may_have_left_words():
    cause = classify(pod(PERMANENT["crashes"]))
    assert cause is not None
    assert cause.text == "server exited 3 times, last with code 1 (Error)"
    assert cause.exited


def test_the_container_that_never_will_be_ready_is_told_before_one_that_may_be():
    found = classify(pod(waiting("ErrImagePull", "timeout"), waiting("InvalidImageName", "no name")))
    assert found is not None
    assert found.reason == "InvalidImageName"


def test_an_init_container_counts():
    found = classify(pod(initContainerStatuses=[waiting("InvalidImageName", "no name")]))
    assert found is not None
    assert found.permanent


def test_a_pod_without_a_node_tells_the_schedulers_words():
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    found = classify(pod(conditions=[condition("PodScheduled", "False", "Unschedulable", said)]))
    assert found is not None
    assert not found.permanent
    assert str(found) == f"Unschedulable: {said}"


def test_an_evicted_pod_is_followed_by_another():
    found = classify(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert found is not None
    assert not found.permanent
    assert "low on resource" in found.text


def test_a_running_pod_that_does_not_answer_is_not_ready_yet():
    said = condition("Ready", "False", "ContainersNotReady", "containers with unready status: [server]")
    found = classify(pod({"name": "server", "state": RUNNING}, phase="Running", conditions=[said]))
    assert found is not None
    assert not found.permanent


@pytest.mark.parametrize("container", [waiting("ContainerCreating"), {"name": "server", "state": RUNNING}])
def test_a_pod_on_its_way_has_no_cause(container):
    assert classify(pod(container)) is None


def test_a_ready_pod_has_no_cause_however_often_it_crashed():
    container = {
        "name": "server",
        "state": RUNNING,
        "restartCount": 9,
        "lastState": {"terminated": exit_of(1)},
    }
    ready = pod(container, phase="Running", conditions=[condition("Ready", "True")])
    assert is_ready(ready)
    assert classify(ready) is None
    going = ready | {"metadata": {"name": "web-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert not is_ready(going)
    assert classify(going) is None


@pytest.mark.parametrize(
    ("words", "permanent"),
    [
        (
            'pods "web-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
            True,
        ),
        ('pods "web-1" is forbidden: violates PodSecurity "restricted:latest"', True),
        ("etcdserver: request timed out", False),
    ],
)
def test_why_a_deployment_makes_no_pods(words, permanent):
    failing = {"status": {"conditions": [condition("ReplicaFailure", "True", "FailedCreate", words)]}}
    cause = creation_cause(failing)
    assert cause is not None
    assert (cause.permanent, cause.text) == (permanent, words)
    assert creation_cause({"status": {"conditions": [condition("Available", "True")]}}) is None
