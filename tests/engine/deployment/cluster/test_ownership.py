"""Ownership of fields as the API server keeps it: taken from others, field by field, and nothing else with it."""

from __future__ import annotations

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import claimed

KEY, OTHER = ("spec", "selector", "a.io/b"), ("spec", "selector", "c")


def entry(manager, operation, fields):
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields}


def service(*entries):
    return {"metadata": {"managedFields": list(entries)}}


OURS = entry("model-deploy", "Apply", {"f:spec": {"f:selector": {"f:a.io/b": {}}, "f:type": {}}})


def test_others_lose_that_field_alone():
    theirs = {"f:spec": {"f:selector": {"f:a.io/b": {}, "f:c": {}}, "f:ports": {".": {}}}}
    left = {"f:spec": {"f:selector": {"f:c": {}}, "f:ports": {".": {}}}}
    found = claimed(service(OURS, entry("kubectl-patch", "Update", theirs)), [KEY])
    assert found == [OURS, entry("kubectl-patch", "Update", left)]


def test_an_update_under_our_name_is_another_owner():
    update = entry("model-deploy", "Update", {"f:spec": {"f:selector": {"f:a.io/b": {}}, "f:ports": {}}})
    assert claimed(service(OURS, update), [KEY]) == [OURS, update | {"fieldsV1": {"f:spec": {"f:ports": {}}}}]


def test_what_only_others_or_nobody_has_set_becomes_ours():
    both = {"f:spec": {"f:selector": {"f:a.io/b": {}, "f:c": {}}, "f:type": {}}}
    theirs = entry("kubectl-patch", "Update", {"f:spec": {"f:selector": {"f:c": {}}}})
    assert claimed(service(OURS, theirs), [OTHER]) == [OURS | {"fieldsV1": both}]
    assert claimed(service(OURS), [OTHER]) == [OURS | {"fieldsV1": both}]


def test_nobody_is_left_owning_a_map_whose_field_was_taken():
    theirs = {"f:metadata": {"f:labels": {}}, "f:spec": {"f:selector": {"f:a.io/b": {}}}}
    found = claimed(service(OURS, entry("kubectl-patch", "Update", theirs)), [KEY])
    assert found == [OURS, entry("kubectl-patch", "Update", {"f:metadata": {"f:labels": {}}})]


def test_newer_servers_know_the_owner_of_a_whole_selector_only():
    ours = entry("model-deploy", "Apply", {"f:spec": {"f:selector": {}, "f:type": {}}})
    assert claimed(service(ours), [KEY, OTHER]) is None
    assert claimed(service(ours, entry("kubectl", "Update", {"f:spec": {"f:selector": {}}})), [KEY]) is None


def test_what_is_so_already_needs_no_change():
    assert claimed(service(OURS, entry("kubectl", "Update", {"f:spec": {"f:type": {}}})), [KEY]) is None
    assert claimed({"metadata": {}}, [KEY]) is None
    assert claimed(service(entry("kubectl", "Update", {"f:spec": {"f:type": {}}})), [KEY]) is None
