"""Equal keys mean equal work: each part of a key counts."""

from __future__ import annotations

import hashlib

import pytest

from airflow_model_deploy.engine.artifacts import canonical_json, digest_of, step_key

PARTS = {
    "step": "prune",
    "version": 1,
    "spec": {"ratio": 0.5},
    "inputs": {"model": "sha256:1"},
    "data": {"data": "a"},
    "code": "sha256:2",
    "libraries": {"torch": "2.13.0"},
}


def test_the_order_of_a_dict_does_not_count():
    assert canonical_json({"b": 1, "a": [1, 2]}) == b'{"a":[1,2],"b":1}'
    assert step_key(**PARTS) == step_key(**dict(reversed(PARTS.items())))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_counts(part):
    changed = {**PARTS, part: {"other": "x"} if isinstance(PARTS[part], dict) else "other"}
    assert step_key(**changed) != step_key(**PARTS)


def test_the_digest_is_sha256_of_the_canonical_form():
    assert digest_of({"a": 1}) == "sha256:" + hashlib.sha256(b'{"a":1}').hexdigest()


def test_nan_has_no_canonical_form():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
