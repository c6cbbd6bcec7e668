"""The pod of a step as the API has it, and what its end is told as; no cluster."""

from __future__ import annotations

import json

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.steps import StepRequest
from airflow_model_deploy.runners import KubernetesRunner, Pod
from airflow_model_deploy.runners.pod import pod_object
from airflow_model_deploy.runners.pod_ending import ending

POD = Pod("registry.example/worker@sha256:" + "0" * 64, "models", cpus=1.5, memory_bytes=1 << 30, gpus=2)


def request(store="s3://models/store", **spec):
    return StepRequest("train", spec, {}, store, result="runs/1.json")


def described(pod=POD, has_secret=True, **spec):
    return pod_object(pod, request(**spec), "model-deploy-train-1", task="abc", has_secret=has_secret)


def test_limits_devices_and_places_to_write():
    spec = described()["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {
        "requests": {
            "cpu": "1500m",
            "memory": str(1 << 30),
            "nvidia.com/gpu": "2",
            "ephemeral-storage": str(1 << 30),
        },
        "limits": {"memory": str(1 << 30), "nvidia.com/gpu": "2"},
    }
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["OMP_NUM_THREADS"] == "2"
    sizes = {volume["name"]: volume.get("emptyDir") for volume in spec["volumes"]}
    assert sizes["tmp"] == {"sizeLimit": str(16 << 30)}
    assert sizes["shm"] == {"medium": "Memory", "sizeLimit": str(1 << 29)}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "shm": "/dev/shm", "store": "/run/model-deploy"}  # noqa: S108


def test_the_request_arrives_as_it_is_whatever_stands_in_it():
    arguments = described(name="$(HOME) $$ ${x} {{ y }}")["spec"]["containers"][0]["args"]
    assert arguments[:3] == ["run", "train", "--json"]
    assert arguments[4:] == ["--store-options", "/run/model-deploy/store.json"]
    # What a kubelet makes of it: "$$" is "$", "$(NAME)" a variable.
    assert "$(" not in arguments[3].replace("$$", "")
    assert json.loads(arguments[3].replace("$$", "$"))["spec"] == {"name": "$(HOME) $$ ${x} {{ y }}"}


def test_without_credentials_there_is_no_secret():
    spec = described(has_secret=False)["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["tmp", "shm"]
    assert "--store-options" not in spec["containers"][0]["args"]


@pytest.mark.parametrize("store", ["file:///srv/store", "/srv/store"])
def test_a_local_store_is_refused_by_name(store):
    runner = KubernetesRunner(POD, lambda: None, conn_id="", task=None, context={})
    with pytest.raises(InputError, match=r"/srv/store; wanted: a store that worker and cluster both reach"):
        runner.start(request(store))


def test_what_talks_to_engines_does_not_run_there():
    runner = KubernetesRunner(POD, lambda: None, conn_id="", task=None, context={})
    with pytest.raises(InputError, match="talks to engines or clusters"):
        runner.start(request(), connections={"engine": {}})


def ended(**terminated):
    return {
        "metadata": {},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "base", "state": {"terminated": terminated}}],
        },
    }


@pytest.mark.parametrize(
    ("found", "words", "permanent"),
    [
        (ended(exitCode=137, reason="OOMKilled"), "out of memory (limit: 1073741824 bytes)", False),
        (ended(exitCode=3, reason="Error", message="a\nmodel-deploy: no bucket\n"), "no bucket", True),
        (ended(exitCode=137, reason="Error"), "killed from outside", False),
        (
            {
                "metadata": {},
                "status": {
                    "phase": "Failed",
                    "reason": "Evicted",
                    "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "16Gi".',
                },
            },
            'Evicted: Usage of EmptyDir volume "tmp" exceeds',
            False,
        ),
        (None, "the step's pod is gone", False),
    ],
)
def test_an_end_without_a_result_is_told_in_the_clusters_words(found, words, permanent):
    told = ending(POD, found, "Pod took too long", [])
    assert words in told.message
    assert told.permanent is permanent


def test_a_pod_that_never_ran_says_why_once():
    waiting = {"name": "base", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}
    found = {"metadata": {}, "status": {"phase": "Pending", "containerStatuses": [waiting]}}
    warning = 'Failed: Failed to pull image "worker:1": not found'
    told = ending(POD, found, "", [warning, warning])
    assert "ImagePullBackOff" in told.message
    assert told.message.count("not found") == 1
    # Trying again doesn't bring the image, though the pod itself only says that it backs off.
    assert told.permanent is True
    assert ending(POD, found, "", ["Failed: Error: ImagePullBackOff"]).permanent is False
