from __future__ import annotations

import itertools

import pytest

from airflow_model_deploy.engine.compression import WeightedNode, chosen_nodes, formats_by_pattern
from airflow_model_deploy.engine.errors import InputError

PRODUCT = ("fp32", "int8-dynamic", "int8-weight", "int4-weight")
OPERATORS = {
    "embed": "Gather",
    "layer.0/up": "MatMul",
    "layer.0/down": "MatMul",
    "layer.1/up": "MatMul",
    "a[0]": "Gemm",
}
NODES = [
    WeightedNode(name, op, f"{name}_w", (4, 4), 16, 64, PRODUCT if op != "Gather" else PRODUCT[:3])
    for name, op in OPERATORS.items()
]


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({}, list(OPERATORS)),
        ({"include": ["layer.0/*"]}, ["layer.0/up", "layer.0/down"]),
        ({"include": ["*up"], "exclude": ["layer.1*"]}, ["layer.0/up"]),
        ({"operators": ["Gather", "Gemm"]}, ["embed", "a[0]"]),
        ({"operators": ["MatMul"], "exclude": ["*/down"]}, ["layer.0/up", "layer.1/up"]),
        ({"include": ["a[0]"]}, ["a[0]"]),  # a name is itself, whatever it means as a pattern
        ({"include": ["layer.?/up"]}, ["layer.0/up", "layer.1/up"]),
    ],
)
def test_nodes_by_pattern_and_operator(how, names):
    assert chosen_nodes(OPERATORS, **how) == names


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"include": ["layer.7/*"]}, "include_nodes; found: 'layer.7/.*', which no node's name fits.*embed"),
        ({"exclude": ["nowhere"]}, "exclude_nodes; found: 'nowhere'"),
        ({"operators": ["Conv"]}, "include_ops; found: .'Conv'.; wanted: .*Gather, Gemm, MatMul"),
        ({"exclude": ["*"]}, "nodes to quantize; found: none is left"),
    ],
)
def test_choices_that_choose_nothing(how, reason):
    with pytest.raises(InputError, match=reason):
        chosen_nodes(OPERATORS, **how)


def test_the_most_exact_pattern_counts_whatever_their_order():
    patterns = {
        "*": "int8-dynamic",
        "layer.0/*": "int4-weight",
        "layer.0/down": "fp32",
        "emb*": "int8-weight",
    }
    for order in itertools.permutations(patterns.items()):
        assert formats_by_pattern(NODES, dict(order)) == {
            "embed": "int8-weight", "layer.0/up": "int4-weight", "layer.0/down": "fp32",
            "layer.1/up": "int8-dynamic", "a[0]": "int8-dynamic",
        }  # fmt: skip


def test_a_pattern_passes_over_nodes_that_cannot_take_its_format():
    assert "embed" not in formats_by_pattern(NODES, {"*": "int4-weight"})
    found = formats_by_pattern(NODES, {"*": "int8-weight", "?*": "int4-weight"})
    assert found["embed"] == "int8-weight"
    assert found["a[0]"] == "int4-weight"


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        (
            {"embed": "int4-weight"},
            "int4-weight for 'embed'; found: 1 fitting nodes, such as embed, a Gather",
        ),
        ({"e*": "int4-weight"}, "int4-weight for 'e.*one of fp32, int8-dynamic, int8-weight"),
        ({"conv*": "int8-weight"}, "formats; found: 'conv.*', which no node's name fits"),
        ({"*": "int5"}, "found: int5; wanted: fp32"),
        (
            {"*up": "int8-weight", "l*p": "int4-weight"},
            "node layer.0/up; found: .*equally long; wanted: one format",
        ),
    ],
)
def test_patterns_that_cannot_be_meant(patterns, reason):
    with pytest.raises(InputError, match=reason):
        formats_by_pattern(NODES, patterns)
