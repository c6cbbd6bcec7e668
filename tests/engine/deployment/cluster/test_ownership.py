"""Ownership of fields as the API server keeps it: taken from others, field by field, and nothing else with it."""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import ceded, owned

KEY, OTHER = ("spec", "selector", "a.io/b"), ("spec", "selector", "c")


def entry(manager, operation, fields):
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields}


def service(*entries):
    return {"metadata": {"managedFields": list(entries)}}


OURS = entry("model-deploy", "Apply", {"f:spec": {"f:selector": {"f:a.io/b": {}}, "f:type": {}}})


def test_ours_are_those_of_an_apply_under_our_name():
    assert owned(service(OURS), KEY)
    assert not owned(service(OURS), OTHER)
    assert not owned(service(OURS | {"operation": "Update"}), KEY)
    assert not owned(service(OURS | {"manager": "kubectl"}), KEY)
    assert not owned({"metadata": {}}, KEY)


def test_others_lose_that_field_alone():
    theirs = {"f:spec": {"f:selector": {"f:a.io/b": {}, "f:c": {}}, "f:ports": {".": {}}}}
    left = {"f:spec": {"f:selector": {"f:c": {}}, "f:ports": {".": {}}}}
    found = ceded(service(OURS, entry("kubectl-patch", "Update", theirs)), [KEY])
    assert found == [OURS, entry("kubectl-patch", "Update", left)]


def test_nobody_is_left_owning_a_map_whose_field_was_taken():
    theirs = {"f:metadata": {"f:labels": {}}, "f:spec": {"f:selector": {"f:a.io/b": {}, "f:c": {}}}}
    found = ceded(service(OURS, entry("kubectl-patch", "Update", theirs)), [KEY, OTHER])
    assert found == [OURS, entry("kubectl-patch", "Update", {"f:metadata": {"f:labels": {}}})]
    only = entry("kubectl-patch", "Update", {"f:spec": {"f:selector": {"f:a.io/b": {}}}})
    assert ceded(service(OURS, only), [KEY]) == [OURS]


def test_what_nobody_else_owns_needs_no_change():
    assert ceded(service(OURS, entry("kubectl", "Update", {"f:spec": {"f:type": {}}})), [KEY]) is None
    assert ceded({"metadata": {}}, [KEY]) is None
