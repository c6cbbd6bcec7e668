"""Chooses nodes by patterns on their names and by their operators; knows nothing of what is done with them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, get_args

from airflow_model_deploy.engine.compression.weight_nodes import Format
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_model_deploy.engine.compression.weight_nodes import WeightedNode

_SHOWN = 8


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of the patterns, or fits one (`*`, `?` and `[…]` as in a shell; `/` is a letter)."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(thing: str, patterns: Iterable[str], names: Collection[str]) -> None:
    """InputError where a pattern fits no name."""
    for pattern in patterns:
        if not any(matches(name, (pattern,)) for name in names):
            raise InputError(
                thing,
                found=f"{pattern!r}, which no node's name fits",
                wanted=f"names of nodes or patterns for them: {_some(names)}",
                remedy="Correct it; the exported model.onnx shows its nodes' names in any ONNX viewer.",
            )


def chosen_nodes(
    nodes: Mapping[str, str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    operators: Sequence[str] = (),
    all_names: Collection[str] | None = None,
) -> list[str]:
    """Names of the nodes that are included and not excluded.

    Args:
        nodes: name -> operator, of those that can be chosen.
        include: patterns; none: all.
        exclude: patterns; they may name other nodes of the graph too.
        operators: such as "MatMul"; none: all.
        all_names: every node of the graph.
    """
    check_patterns("include_nodes", include, nodes)
    check_patterns("exclude_nodes", exclude, all_names or nodes)
    absent = sorted(set(operators) - set(nodes.values()))
    if absent:
        present = ", ".join(sorted(set(nodes.values()))) or "none"
        raise InputError(
            "include_ops", found=absent, wanted=f"operators with weights in this graph: {present}"
        )
    found = [
        name
        for name, operator in nodes.items()
        if (not include or matches(name, include))
        and not matches(name, exclude)
        and (not operators or operator in operators)
    ]
    if not found:
        raise InputError(
            "nodes to quantize",
            found="none is left",
            wanted=f"at least one of {_some(nodes)}",
            remedy="Include more, or exclude fewer.",
        )
    return found


def formats_by_pattern(nodes: Sequence[WeightedNode], patterns: Mapping[str, Format]) -> dict[str, Format]:
    """Each node's format, by the longest pattern that fits its name and whose format it can take.

    A node's own name counts more than any pattern, and then the format has to suit it. The patterns' order means
    nothing.

    Raises:
        InputError: a pattern that fits no node or none that can take its format, or two equally long ones that
            disagree.
    """
    found: dict[str, Format] = {}
    check_patterns("formats", patterns, [node.name for node in nodes])
    for pattern, wanted in patterns.items():
        _check_useful(pattern, wanted, nodes)
    for node in nodes:
        if node.name in patterns:
            found[node.name] = patterns[node.name]
            continue
        usable = [p for p in patterns if matches(node.name, (p,)) and patterns[p] in node.formats]
        longest = [p for p in usable if len(p) == max(map(len, usable))]
        if len({patterns[p] for p in longest}) > 1:
            raise InputError(
                f"formats of node {node.name}",
                found=f"{' and '.join(f'{p!r}: {patterns[p]}' for p in sorted(longest))}, equally long",
                wanted="one format",
                remedy="Name the node itself, or make one pattern more exact.",
            )
        if longest:
            found[node.name] = patterns[longest[0]]
    return found


def _check_useful(pattern: str, wanted: str, nodes: Sequence[WeightedNode]) -> None:
    if wanted not in get_args(Format):
        raise InputError(f"format of {pattern!r}", found=wanted, wanted=" | ".join(get_args(Format)))
    fitting = [node for node in nodes if matches(node.name, (pattern,))]
    if not any(wanted in node.formats for node in fitting):
        node = fitting[0]
        raise InputError(
            f"format {wanted} for {pattern!r}",
            found=f"{len(fitting)} fitting nodes, such as {node.name}, a {node.op_type}",
            wanted=f"one of {', '.join(node.formats)} for it",
            remedy="Choose one of these.",
        )


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _SHOWN else shown or "there are none"
