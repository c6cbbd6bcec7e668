"""The objects of a service in a cluster: valid by the API's models and a real API server, confined, and stable."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import replace

import pytest

from airflow_model_deploy.engine.artifacts import canonical_json
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import every, only
from airflow_model_deploy.engine.deployment.targets.kubernetes.objects import (
    DRIVER,
    Target,
    autoscaler,
    deployment,
    live_objects,
    network_policy,
    pending_image,
    progress_seconds,
    read_release_maps,
    release_maps,
    release_name,
    revision_of_template,
    service,
    startup_seconds,
)
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging import Resources, Workload
from airflow_model_deploy.engine.packaging.images.contents import runtime
from airflow_model_deploy.engine.serving import options
from tests.engine.deployment.cluster.api_models import check_object
from tests.engine.deployment.cluster.pod_security import violations

IMAGE = "registry.example/models/digits@sha256:" + "a" * 64
RESOURCES = Resources(cpu=1.0, memory_bytes=128 << 20, threads=1)
PLAIN = Target("digits", "models", IMAGE, RESOURCES, Workload(model_bytes=30_000_000, load_s=0.5))
FULL = Workload(
    replicas=3,
    exposure="NodePort",
    port=8000,
    node_port=30123,
    service_annotations={"example.com/internal": "true"},
    gpus=2,
    node_selector={"pool": "models"},
    tolerations=({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},),
    affinity={
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
                ]
            }
        }
    },
    topology_key="topology.kubernetes.io/zone",
    image_pull_secrets=("registry",),
    min_replicas=2,
    max_replicas=9,
    ingress_from=({"namespaceSelector": {"matchLabels": {"team": "shop"}}},),
    priority_class="system-cluster-critical",
    cpu_limit=True,
    drain_s=20.5,
    model_bytes=140 * 10**9,
    load_s=100.0,
)
TARGETS = {"plain": PLAIN, "full": replace(PLAIN, workload=FULL), "long": replace(PLAIN, name="m" + "x" * 39)}
BLOBS = {"release": b'{"plan":"\xc3\xa4"}', "index": b'{"files":[]}', "golden": b'{"requests":[]}'}


def objects(target):
    maps = release_maps(target.name, target.namespace, revision_of_template(target), **BLOBS)
    return [*live_objects(target), *maps]


def pod(target):
    return deployment(target)["spec"]["template"]["spec"]


def container(target):
    (one,) = pod(target)["containers"]
    return one


def with_settings(**settings):
    return replace(PLAIN, workload=replace(PLAIN.workload, **settings))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_object_keeps_to_the_models_of_the_api(target):
    made = objects(target)
    for one in made:
        check_object(one)
        assert one["metadata"]["namespace"] == "models"
        assert one["metadata"]["labels"]["model-deploy.io/service"] == target.name
    kinds = [one["kind"] for one in made]
    assert len(kinds) == len(set(kinds)) == (7 if target.workload.max_replicas else 6)


def test_the_check_by_models_finds_what_is_wrong():
    for damage in (
        lambda spec: spec.update(replica=1),
        lambda spec: spec.pop("selector"),
        lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
        lambda spec: spec["template"]["spec"]["containers"][0]["startupProbe"].update(periodSeconds="1"),
        lambda spec: spec["template"]["spec"]["containers"][0]["ports"].append("http"),
    ):
        broken = deployment(PLAIN)
        damage(broken["spec"])
        with pytest.raises((AssertionError, ValueError)):
            check_object(broken)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_names_and_labels_fit(target):
    for one in objects(target):
        assert len(one["metadata"]["name"]) <= (63 if one["kind"] == "ConfigMap" else 53)
        labels = dict(one["metadata"]["labels"])
        if one["kind"] == "Deployment":
            labels |= one["spec"]["template"]["metadata"]["labels"]
        for key, value in labels.items():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value), (key, value)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_pods_are_restricted(target):
    spec = pod(target)
    assert violations(spec) == []
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    damages = {
        "hostNetwork": lambda s: s.update(hostNetwork=True),
        "volume": lambda s: s["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "runAsNonRoot": lambda s: s["securityContext"].pop("runAsNonRoot"),
        "seccompProfile": lambda s: s["securityContext"].pop("seccompProfile"),
        "drop ALL": lambda s: s["containers"][0]["securityContext"].pop("capabilities"),
        "allowPrivilegeEscalation": lambda s: s["containers"][0].pop("securityContext"),
    }
    for word, damage in damages.items():
        broken = copy.deepcopy(spec)
        damage(broken)
        assert any(word in found for found in violations(broken)), word


def test_the_server_gets_its_images_paths_user_and_port():
    asked = container(PLAIN)["args"]
    image = ["--servable", runtime.SERVABLE_HOME, "--host", "0.0.0.0", "--port", str(runtime.PORT)]  # noqa: S104
    assert asked[: len(image)] == image
    assert options.parse(container(TARGETS["full"])["args"]).drain_seconds == 20.5
    assert pod(PLAIN)["securityContext"]["runAsUser"] == runtime.USER
    assert {m["mountPath"] for m in container(PLAIN)["volumeMounts"]} == {"/tmp", runtime.RUN_FOLDER}  # noqa: S108


def test_resources():
    assert container(PLAIN)["resources"] == {
        "requests": {"cpu": "1", "memory": "128Mi", "ephemeral-storage": "64Mi"},
        "limits": {"memory": "128Mi"},
    }
    asked = replace(PLAIN, workload=replace(PLAIN.workload, cpu_request=0.1))
    assert container(asked)["resources"]["requests"]["cpu"] == "100m"
    odd = replace(TARGETS["full"], resources=Resources(cpu=0.2501, memory_bytes=3 << 30, threads=1))
    assert container(odd)["resources"] == {
        "requests": {"cpu": "251m", "memory": "3Gi", "ephemeral-storage": "64Mi", "nvidia.com/gpu": "2"},
        "limits": {"cpu": "251m", "memory": "3Gi", "nvidia.com/gpu": "2"},
    }


def test_a_pod_has_time_to_leave_and_to_drain():
    leave = int(
        re.search(r"sleep\((\d+)\)", container(PLAIN)["lifecycle"]["preStop"]["exec"]["command"][-1])[1]
    )
    assert leave == 5
    assert pod(PLAIN)["terminationGracePeriodSeconds"] == leave + 10 + 5
    assert pod(TARGETS["full"])["terminationGracePeriodSeconds"] >= leave + 20.5


def test_nothing_fixes_the_number_of_replicas():
    assert "replicas" not in json.dumps([deployment(one) for one in TARGETS.values()])


@pytest.mark.parametrize(
    ("size", "load_s", "allowed", "period"),
    [(30e6, 0.5, 70, 1), (30e6, None, 70, 1), (5e9, 20, 340, 3), (140e9, 100, 6060, 10)],
)
def test_probes_follow_the_model(size, load_s, allowed, period):
    target = with_settings(model_bytes=int(size), load_s=load_s)
    assert startup_seconds(target.workload) == allowed
    probe = container(target)["startupProbe"]
    assert probe["periodSeconds"] == period
    assert allowed <= probe["periodSeconds"] * probe["failureThreshold"] < allowed + period
    assert probe["httpGet"]["path"] == "/v2/health/ready"
    assert container(target)["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    progress = deployment(target)["spec"]["progressDeadlineSeconds"]
    assert progress == progress_seconds(target.workload)
    # Twice a pull at 30 MB/s and the whole start fit; so does the slowest pull that others measured.
    assert progress >= 600 + 2 * size / 30e6 + allowed
    assert size < 140e9 or progress > 600 + 4586 + allowed


OTHER_TEMPLATES = {
    "gpus": 1,
    "node_selector": {"pool": "a"},
    "tolerations": ({"operator": "Exists"},),
    "affinity": {"podAntiAffinity": {}},
    "topology_key": None,
    "image_pull_secrets": ("a",),
    "priority_class": "a",
    "cpu_limit": True,
    "cpu_request": 0.5,
    "drain_s": 11.0,
    "model_bytes": 10**10,
    "load_s": 50.0,
}
SAME_TEMPLATE = {
    "replicas": 7,
    "exposure": "LoadBalancer",
    "port": 81,
    "service_annotations": {"a": "b"},
    "min_replicas": 1,
    "max_replicas": 5,
    "ingress_from": ({"podSelector": {}},),
    "gpu_resource": "amd.com/gpu",  # of none
}


@pytest.mark.parametrize("name", OTHER_TEMPLATES)
def test_another_pod_is_another_revision(name):
    other = with_settings(**{name: OTHER_TEMPLATES[name]})
    assert revision_of_template(other) != revision_of_template(PLAIN)


def test_another_image_or_need_is_another_revision():
    others = [
        PLAIN,
        replace(PLAIN, image=IMAGE.replace("a" * 64, "b" * 64)),
        replace(PLAIN, resources=replace(RESOURCES, cpu=2.0)),
        replace(PLAIN, resources=replace(RESOURCES, memory_bytes=1 << 30)),
    ]
    revisions = {revision_of_template(one) for one in others}
    assert len(revisions) == len(others)
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in revisions)


@pytest.mark.parametrize("name", SAME_TEMPLATE)
def test_what_is_around_the_pods_is_the_same_revision(name):
    extra = {"max_replicas": 5} if name == "min_replicas" else {}
    other = with_settings(**{name: SAME_TEMPLATE[name]}, **extra)
    assert revision_of_template(other) == revision_of_template(PLAIN)
    assert canonical_json(deployment(other)) == canonical_json(deployment(PLAIN))


def test_a_namespace_is_no_part_of_a_revision():
    elsewhere = replace(PLAIN, namespace="")
    assert revision_of_template(elsewhere) == revision_of_template(PLAIN)
    for here, there in zip(live_objects(PLAIN), live_objects(elsewhere), strict=True):
        assert here["metadata"].pop("namespace") == "models"
        assert here == there


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_equal_input_gives_equal_bytes(target):
    again = replace(target, workload=Workload.from_json(json.loads(json.dumps(target.workload.to_json()))))
    assert json.dumps(objects(again)) == json.dumps(objects(target))


def test_pods_are_selected_by_service_and_revision():
    revision = revision_of_template(PLAIN)
    made = {one["kind"]: one for one in live_objects(PLAIN)}
    spec = made["Deployment"]["spec"]
    assert spec["selector"]["matchLabels"] == only("digits", revision)
    assert only("digits", revision).items() <= spec["template"]["metadata"]["labels"].items()
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == only("digits", revision)
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert made["Service"]["spec"]["selector"] == only("digits", revision)
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        selector = made[kind]["spec"].get("selector") or made[kind]["spec"]["podSelector"]
        assert selector["matchLabels"] == every("digits")


def test_the_traffic_decision_wins_over_the_authors_annotations():
    chosen = Workload(service_annotations={"a": "1", "model-deploy.io/decision": "mine"})
    made = service(
        "digits", "", chosen, selector=every("digits"), annotations={"model-deploy.io/decision": "{}"}
    )
    assert made["metadata"]["annotations"] == {"a": "1", "model-deploy.io/decision": "{}"}
    assert made["spec"]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]


def test_who_may_send_requests():
    (rule,) = network_policy("digits", "", Workload())["spec"]["ingress"]
    assert rule == {"ports": [{"port": 8080, "protocol": "TCP"}]}
    (rule,) = network_policy("digits", "", FULL)["spec"]["ingress"]
    assert rule["from"] == [*FULL.ingress_from, {"podSelector": {"matchLabels": DRIVER}}]
    spec = network_policy("digits", "", FULL)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in spec


def test_the_autoscaler_follows_the_live_revision():
    assert autoscaler("digits", "", Workload(), "0" * 12) is None
    made = autoscaler("digits", "", Workload(max_replicas=4), "0" * 12)["spec"]
    assert made["scaleTargetRef"]["name"] == "digits-" + "0" * 12
    assert (made["minReplicas"], made["maxReplicas"]) == (2, 4)
    assert made["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert autoscaler("digits", "", FULL, "0" * 12)["spec"]["minReplicas"] == 2


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("name", "3d-net", "Give the model"),
        ("name", "Digits", "Give the model"),
        ("name", "d" * 41, "Give the model"),
        ("name", "digits-", "Give the model"),
        ("namespace", "a_b", "kubectl"),
        ("image", "registry.example/digits:latest", "a tag may move"),
        ("image", "registry.example/digits@sha256:ab", "a tag may move"),
    ],
)
def test_what_no_object_can_be_made_of_is_refused(field, value, remedy):
    with pytest.raises(InputError, match=remedy) as caught:
        replace(PLAIN, **{field: value})
    assert value in str(caught.value)
    assert caught.value.wanted


def test_an_image_that_does_not_exist_yet_is_called_pending():
    target = replace(PLAIN, image=pending_image("digits"))
    assert revision_of_template(target) == "pending"
    assert deployment(target)["metadata"]["name"] == "digits-pending"
    assert container(target)["image"] == "digits@pending"
    for one in live_objects(target):
        check_object(one)


def test_a_release_comes_back_from_its_map():
    maps = release_maps("digits", "models", "0" * 12, **BLOBS)
    assert [one["metadata"]["name"] for one in maps] == [release_name("digits", BLOBS["release"])]
    assert maps[0]["immutable"] is True
    assert read_release_maps(maps) == tuple(BLOBS.values())


def test_a_large_release_is_in_several_maps():
    golden = os.urandom(1_500_000)
    maps = release_maps("digits", "models", "0" * 12, **{**BLOBS, "golden": golden})
    main = release_name("digits", BLOBS["release"])
    assert [one["metadata"]["name"] for one in maps] == [f"{main}-golden-{n}" for n in range(3)] + [main]
    assert all(one["immutable"] is True and len(json.dumps(one)) < 1 << 20 for one in maps)
    for one in maps:
        check_object(one)
    assert read_release_maps(maps[::-1]) == (BLOBS["release"], BLOBS["index"], golden)
    for n in range(3):
        with pytest.raises(IntegrityError, match=f"golden-{n}"):
            read_release_maps(maps[:n] + maps[n + 1 :])
    swapped = copy.deepcopy(maps)
    swapped[0]["binaryData"], swapped[1]["binaryData"] = swapped[1]["binaryData"], swapped[0]["binaryData"]
    with pytest.raises(IntegrityError):
        read_release_maps(swapped)


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one["data"].pop("release.json"),
        lambda one: one["data"].pop("servable.json"),
        lambda one: one["data"].update({"golden.sha256": "0" * 64}),
        lambda one: one["data"].update({"golden.chunks": "many"}),
        lambda one: one.pop("binaryData"),
        lambda one: one["binaryData"].update({"golden.json.gz": "!"}),
        lambda one: one["binaryData"].update({"golden.json.gz": "AAAA"}),
        lambda one: one["binaryData"].update({"golden.json.gz": one["binaryData"]["golden.json.gz"][:24]}),
    ],
)
def test_a_damaged_map_is_refused(damage):
    maps = release_maps("digits", "models", "0" * 12, **BLOBS)
    damage(maps[0])
    with pytest.raises(IntegrityError):
        read_release_maps(maps)


def test_a_release_too_large_for_a_cluster_is_refused():
    with pytest.raises(InputError, match="fewer golden requests"):
        release_maps("digits", "models", "0" * 12, **{**BLOBS, "release": b"x" * 800_000})


@pytest.mark.kubernetes
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_real_api_server_takes_them(target):
    from kubernetes import config
    from kubernetes.dynamic import DynamicClient
    from kubernetes.dynamic.exceptions import ResourceNotFoundError

    api = DynamicClient(config.new_client_from_config(os.environ["KUBECONFIG"]))
    left_out = set()
    for one in objects(replace(target, namespace="default")):
        try:
            resource = api.resources.get(api_version=one["apiVersion"], kind=one["kind"])
        except ResourceNotFoundError:
            left_out.add(one["kind"])
            continue
        made = api.create(resource, body=one, dry_run="All").to_dict()
        assert "resourceVersion" not in made["metadata"]  # it was not stored
        # What was sent is what would be stored, in the server's own spelling: nothing was dropped or rewritten.
        assert missing(one, made, one["kind"]) == []
        applied = api.server_side_apply(resource, body=one, field_manager="model-deploy", dry_run="All")
        assert missing(one, applied.to_dict(), one["kind"]) == []
    assert left_out <= {"PodDisruptionBudget", "HorizontalPodAutoscaler"}


def missing(sent, made, path):
    """Where what the server made differs from what was sent; what it added is no matter."""
    if isinstance(sent, dict) and isinstance(made, dict):
        return [p for key, item in sent.items() for p in missing(item, made.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(made, list) and len(sent) == len(made):
        return [
            p
            for n, (item, got) in enumerate(zip(sent, made, strict=True))
            for p in missing(item, got, f"{path}[{n}]")
        ]
    return [] if sent == made else [f"{path}: {sent!r} -> {made!r}"]
