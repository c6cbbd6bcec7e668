"""Finds the feed-forward blocks of transformers by the names of their layers, and decides which neurons go."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.compression.channel_groups import ChannelGroup, Part, with_shared_weights
from airflow_model_deploy.engine.compression.removal import (
    Norm,
    check_choice,
    group_scores,
    is_sound,
    kept_size,
    surgery_of,
    weakest,
)
from airflow_model_deploy.engine.compression.selection import matching
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import Surgery, is_transposed_linear, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from airflow_model_deploy.engine.compression.forward import Example

# (layers that make the neurons, the layer that reads them), below one module; the first rule that fits counts.
RULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("intermediate.dense",), "output.dense"),  # BERT, RoBERTa, ViT, MiniLM
    (("gate_proj", "up_proj"), "down_proj"),  # LLaMA, Mistral, Qwen, Gemma
    (("up_proj",), "down_proj"),
    (("w1", "w3"), "w2"),  # LLaMA's own code
    (("wi_0", "wi_1"), "wo"),  # T5 1.1
    (("wi",), "wo"),  # T5
    (("linear1",), "linear2"),  # torch.nn.TransformerEncoderLayer, TransformerDecoderLayer
    (("c_fc",), "c_proj"),  # GPT-2, GPT-Neo
    (("fc1",), "fc2"),  # OPT, BART, CLIP, Phi
    (("fc_in",), "fc_out"),  # GPT-J
    (("lin1",), "lin2"),  # DistilBERT
    (("ffn",), "ffn_output"),  # ALBERT
    (("dense_h_to_4h",), "dense_4h_to_h"),  # GPT-NeoX, BLOOM, Falcon
)


@dataclass(frozen=True)
class FeedForward:
    """A feed-forward block: `size` neurons, the layers that make them, and the layer that reads them."""

    makers: tuple[str, ...]
    reader: str
    size: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all its layers."""
        return (*self.makers, self.reader)

    def group(self) -> ChannelGroup:
        """Its neurons as channels that can only go together."""
        indices = tuple(range(self.size))
        parts = [Part(name, "out", indices, indices) for name in self.makers]
        return ChannelGroup(
            self.size, (*parts, Part(self.reader, "in", indices, indices)), blocks=1, normalized=False
        )


def prune_ffn(
    model: nn.Module,
    example_inputs: Example,
    *,
    ratio: float,
    round_to: int = 64,
    criterion: Norm = "l2",
    exclude: Sequence[str] = (),
    gradients: Iterable[Mapping[str, Tensor]] | None = None,
) -> Surgery:
    """Choose the weakest `ratio` of the neurons of every feed-forward block, as many in each.

    All blocks keep the same number, as one `intermediate_size` describes them all: the multiple of `round_to`
    nearest to the share that remains. A neuron's strength is counted over the weights that make it and those that
    read it (`group_scores` has the formulas). That the cut model equals the model with those neurons unread is
    computed on the example inputs, not assumed.

    Args:
        model: unchanged. Apply the result with `surgery.apply(model)`.
        example_inputs: arguments of forward, by name or in order.
        ratio: share of neurons to remove, between 0 and 1.
        round_to: multiple that remains.
        criterion: "l2", "l1" or "taylor".
        exclude: patterns of names of layers; a block with such a layer stays whole.
        gradients: of the model's parameters by name, batch by batch (`batch_gradients`); taylor reads them once.

    Raises:
        InputError: there is no such block, blocks differ in size, or nothing can be cut.
    """
    check_choice(ratio, round_to, criterion, gradients)
    blocks = feed_forward_blocks(model, exclude)
    size = blocks[0].size
    keep = kept_size(size, ratio, round_to)
    if keep >= size:
        raise InputError(
            f"feed-forward blocks of {type(model).__name__}",
            found=f"{size} neurons, of which {keep} would stay at ratio {ratio}, round_to {round_to}",
            wanted="fewer than there are",
            remedy="Lower round_to or raise ratio.",
        )
    groups = [block.group() for block in blocks]
    scores = group_scores(model, groups, criterion, gradients)
    removals = [(group, weakest(group, score, keep)) for group, score in zip(groups, scores, strict=True)]
    surgery = surgery_of(model, removals)
    if not is_sound(model, example_inputs, surgery, removals):
        raise InputError(
            f"feed-forward blocks of {type(model).__name__}",
            found="a model that does something else, or nothing, without the cut neurons",
            wanted="neurons that only the block's last layer reads",
            remedy=f"Exclude blocks ({blocks[0].reader}, ...) that do more between their layers, or prune channels.",
        )
    return surgery


def feed_forward_blocks(model: nn.Module, exclude: Sequence[str] = ()) -> tuple[FeedForward, ...]:
    """Every feed-forward block that the rules find, all of one size, in the model's order.

    Blocks whose weights another layer shares are left out: cutting one would tear them apart.
    """
    found = list(_blocks(model))
    matching(exclude, [name for block in found for name in block.layers], "exclude")
    chosen = [b for b in found if not any(fnmatchcase(n, pattern) for n in b.layers for pattern in exclude)]
    if not chosen:
        rules = "; ".join(f"{' and '.join(makers)} -> {reader}" for makers, reader in RULES)
        raise InputError(
            f"feed-forward blocks of {type(model).__name__}",
            found="none" if not found else f"{len(found)}, all excluded",
            wanted=f"linear layers from the model's width to another and back, named {rules}",
            remedy="Prune channels or single weights instead.",
        )
    sizes = {block.size: block.makers[0] for block in chosen}
    if len(sizes) > 1:
        raise InputError(
            f"feed-forward blocks of {type(model).__name__}",
            found=", ".join(f"{size} neurons ({name})" for size, name in sorted(sizes.items())),
            wanted="one size, as all blocks keep the same number",
            remedy="Exclude the blocks of all other sizes.",
        )
    return tuple(chosen)


def _blocks(model: nn.Module) -> Iterator[FeedForward]:
    shared = with_shared_weights(model)
    taken: set[str] = set()
    for parent, module in model.named_modules():
        below = dict(module.named_modules())
        for makers, reader in RULES:
            block = _block(parent, below, makers, reader)
            if block and not taken.intersection(block.layers) and not shared.intersection(block.layers):
                taken.update(block.layers)
                yield block
                break


def _block(
    parent: str, below: Mapping[str, nn.Module], makers: tuple[str, ...], reader: str
) -> FeedForward | None:
    """The block of this rule below this module; None where its layers are not there, or of other sizes."""
    layers = [below.get(name) for name in (*makers, reader)]
    linear = [layer for layer in layers if layer is not None and _is_linear(layer)]
    if len(linear) < len(layers):
        return None
    outer, inner = {width(linear[-1], "out")}, {width(linear[-1], "in")}
    for layer in linear[:-1]:
        outer.add(width(layer, "in"))
        inner.add(width(layer, "out"))
    if len(outer) > 1 or len(inner) > 1:
        return None
    prefix = f"{parent}." if parent else ""
    return FeedForward(tuple(prefix + name for name in makers), prefix + reader, width(linear[-1], "in") or 0)


def _is_linear(layer: nn.Module) -> bool:
    from torch import nn

    return isinstance(layer, nn.Linear) or is_transposed_linear(layer)
