"""Small random transformers, built from a config; nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LastHidden(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids).last_hidden_state


def build_bert() -> LastHidden:
    from transformers import BertConfig, BertModel

    return LastHidden(
        BertModel(
            BertConfig(
                vocab_size=50,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=128,
            )
        )
    )


def build_gpt() -> LastHidden:
    from transformers import GPT2Config, GPT2Model

    return LastHidden(
        GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_inner=128, n_positions=16))
    )
