"""Finds the layers whose channels can only go together; the one module that knows Torch-Pruning."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Dimension, is_depthwise, is_transposed_linear, width

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.forward import Example


@dataclass(frozen=True)
class Part:
    """One dimension of one module, and which channel of the group each of its indices belongs to.

    A flattened feature map gives one channel several indices: `indices` and `roots` then repeat roots.
    """

    module: str
    dimension: Dimension
    indices: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0..size-1 of one layer, and every part that shrinks with them.

    Args:
        size: number of channels.
        parts: what depends on them, the layer itself first.
        blocks: grouped convolutions ask for as many kept channels in each of this many equal blocks.
        normalized: whether a layer norm takes its statistics over these channels.
    """

    size: int
    parts: tuple[Part, ...]
    blocks: int
    normalized: bool

    def scores(self, model: nn.Module, power: int) -> Tensor:
        """Sum of |w|**power over every weight that belongs to a channel; shape [size], float64."""
        import torch

        modules = dict(model.named_modules())

        def values(module: str) -> Tensor | None:
            weight = getattr(modules[module], "weight", None)
            return None if weight is None else weight.detach().to("cpu", torch.float64).abs() ** power

        return self._sums(modules, values)

    def contributions(self, model: nn.Module, gradients: Mapping[str, Tensor]) -> Tensor:
        """Sum of w * g over every weight and bias that belongs to a channel; shape [size], float64.

        Args:
            model: the model that the group was found in.
            gradients: by parameter's name; a parameter without one counts nothing.
        """
        import torch

        modules = dict(model.named_modules())

        def products(module: str, field: str) -> Tensor | None:
            parameter, gradient = getattr(modules[module], field, None), gradients.get(f"{module}.{field}")
            if parameter is None or gradient is None:
                return None
            product: Tensor = parameter.detach().to("cpu", torch.float64) * gradient.to("cpu", torch.float64)
            return product

        total = self._sums(modules, lambda module: products(module, "weight"))
        for part in self.parts:
            bias = products(part.module, "bias") if part.dimension == "out" else None
            if bias is not None:
                total.index_add_(0, torch.tensor(part.roots), bias[list(part.indices)])
        return total

    def _sums(self, modules: Mapping[str, nn.Module], values: Callable[[str], Tensor | None]) -> Tensor:
        """Sum values in the shapes of the modules' weights by channel."""
        import torch

        total = torch.zeros(self.size, dtype=torch.float64)
        for part in self.parts:
            found = values(part.module)
            if found is not None:
                per_index = _per_index(modules[part.module], part.dimension, found)
                total.index_add_(0, torch.tensor(part.roots), per_index[list(part.indices)])
        return total


def _per_index(module: nn.Module, dimension: str, values: Tensor) -> Tensor:
    """Per index of the dimension, the sum of values that have the shape of the module's weight."""
    import torch

    if is_transposed_linear(module):
        values = values.T
    if dimension == "out" or is_depthwise(module):
        return values.flatten(1).sum(1) if values.dim() > 1 else values
    groups = int(getattr(module, "groups", 1))
    return torch.cat([rows.transpose(0, 1).flatten(1).sum(1) for rows in values.chunk(groups, 0)])


def channel_groups(model: nn.Module, example_inputs: Example, kept_whole: set[str]) -> list[ChannelGroup]:
    """Every group that Surgery can cut: no model output, no excluded, shared or unknown layer in it."""
    twin = copy.deepcopy(model).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)  # the tracer follows gradients, through frozen layers too
    names = {module: name for name, module in twin.named_modules()}
    shared = with_shared_weights(twin)
    found = []
    for items, outputs in _trace(twin, example_inputs):
        group = _read_group(items, outputs, names)
        if group is None:
            continue
        producers = {part.module for part in group.parts if part.dimension == "out"}
        if not producers & kept_whole and not {part.module for part in group.parts} & shared:
            found.append(group)
    return found


def _trace(twin: nn.Module, example_inputs: Example) -> list[tuple[list[Any], set[Any]]]:
    """(items of a group, modules or operations at the model's outputs) for every group."""
    import torch
    import torch_pruning

    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(twin, example_inputs, forward_fn=forward, verbose=False)
            ends = {node.module for node in graph.module2node.values() if not node.outputs}
            groups = []
            for group in graph.get_all_groups():
                items = [
                    (item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler),
                     graph.is_in_channel_pruning_fn(item.dep.handler), list(item.idxs), list(item.root_idxs))
                    for item in group
                ]  # fmt: skip
                groups.append((items, ends))
    except (AttributeError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"tracing {type(twin).__name__}",
            found=f"{type(error).__name__}: {error}",
            wanted="a forward that runs on the example inputs and keeps gradients",
            remedy="Give example inputs that fit forward, or prune single weights instead.",
        ) from error
    return groups


def _read_group(items: list[Any], ends: set[Any], names: dict[Any, str]) -> ChannelGroup | None:
    """The group in our terms; None where it reaches an output or a layer that Surgery cannot cut."""
    from torch import nn

    parts: list[Part] = []
    blocks, normalized, size = 1, False, len(items[0][3])
    for module, is_out, is_in, indices, roots in items:
        reads = is_in and not is_out
        if module in ends and not reads:
            return None
        if module not in names:
            if isinstance(module, nn.Parameter):
                return None
            continue  # an operation without weights
        if _has_no_channels(module):
            continue
        dimension: Dimension = "in" if reads else "out"
        limit = width(module, dimension)
        if limit is None or (indices and max(indices) >= limit):
            return None
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1 and not is_depthwise(module):
            if sorted(indices) != list(range(limit)) or indices != roots:
                return None
            blocks = max(blocks, module.groups)
        normalized = normalized or isinstance(module, nn.LayerNorm)
        parts.append(Part(names[module], dimension, tuple(indices), tuple(roots)))
    return ChannelGroup(size, tuple(parts), blocks, normalized)


def _has_no_channels(module: nn.Module) -> bool:
    from torch import nn

    if isinstance(module, nn.PReLU):
        return module.num_parameters == 1
    return not list(module.parameters(recurse=False)) and not list(module.buffers(recurse=False))


def with_shared_weights(model: nn.Module) -> set[str]:
    """Modules whose parameters another module uses too; cutting one would tear them apart."""
    owners = [(name, id(p)) for name, m in model.named_modules() for p in m.parameters(recurse=False)]
    counts = Counter(identity for _, identity in owners)
    return {name for name, identity in owners if counts[identity] > 1}
