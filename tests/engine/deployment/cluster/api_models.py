"""Holds JSON to the Kubernetes client's models: every field known and of its type, every required one there."""

from __future__ import annotations

import re

from kubernetes.client import models

MODELS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str}


def check_object(value):
    """Refuse an object that the API's schema would."""
    return check(MODELS[(value["apiVersion"], value["kind"])], value, value["kind"])


def check(kind, value, path):
    if kind == "object":
        assert isinstance(value, (str, int, dict)), path
        return value
    if kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), (path, value)
        assert kind == "bool" or not isinstance(value, bool), (path, value)
        return value
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        assert isinstance(value, list), path
        return [check(inner[1], item, f"{path}[{n}]") for n, item in enumerate(value)]
    if inner := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        assert isinstance(value, dict), path
        return {key: check(inner[1], item, f"{path}.{key}") for key, item in value.items()}
    model = getattr(models, kind)
    names = {api: python for python, api in model.attribute_map.items()}
    assert isinstance(value, dict), path
    assert set(value) <= set(names), (path, sorted(set(value) - set(names)))
    # The model's constructor refuses what lacks a required field.
    return model(
        **{names[k]: check(model.openapi_types[names[k]], v, f"{path}.{k}") for k, v in value.items()}
    )
