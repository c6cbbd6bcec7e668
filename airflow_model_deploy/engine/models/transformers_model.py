"""The factory of a text model of the transformers library: built from its config alone, and nothing is fetched."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models.transformers_library import class_options, model_class, read_config

if TYPE_CHECKING:
    from torch import Tensor, nn

FACTORY = f"{__name__}:build"
INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
)  # the last one only where a model and its data have it
Pooling = Literal["mean", "cls", "max"]


def build(
    config: dict[str, Any],
    architecture: str,
    pooling: Pooling | None = None,
    normalize: bool = False,
) -> nn.Module:
    """The factory of an ingested model: forward(input_ids, attention_mask[, token_type_ids]) -> dict of tensors.

    Both inputs are integers [batch, sequence]; a 0 in attention_mask marks padding.

    Args:
        config: the content of config.json.
        architecture: a model class of the installed transformers.
        pooling: how the tokens' vectors become the sample's "embedding"; None: the model's own outputs, such as
            "logits" or "last_hidden_state".
        normalize: whether the embedding gets length 1.
    """
    import torch

    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError("pooling", found=pooling, wanted=", ".join(get_args(Pooling)))
    cls, parsed = model_class(architecture), read_config(config)
    model = cls._from_config(parsed, attn_implementation="eager", dtype=torch.float32, **class_options(cls))
    return _text_model()(model, pooling, normalize)  # type: ignore[no-any-return]


@functools.cache
def _text_model() -> Any:
    """The wrapping module's class, made on first use: importing this file doesn't import torch."""
    import torch
    from torch import nn

    class TextModel(nn.Module):
        """A transformers model as a function of tensors alone."""

        def __init__(self, model: nn.Module, pooling: Pooling | None, normalize: bool) -> None:
            super().__init__()
            self.model, self.pooling, self.normalize = model, pooling, normalize

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
        ) -> dict[str, Tensor]:
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
            if self.pooling is None:
                own = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
                own.pop("pooler_output", None)
                return own
            pooled = pool(found.last_hidden_state, attention_mask, self.pooling)
            return {"embedding": nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled}

    return TextModel


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a sample of its tokens' [batch, sequence, features], as sentence-transformers computes it.

    mean: of the tokens that attention_mask marks; max: the same; cls: the first token's.
    """
    if pooling == "cls":
        return hidden[:, 0]
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "max":
        return hidden.masked_fill(mask == 0, -1e9).max(dim=1).values
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
