"""Tiny text models of the transformers library with random weights, written as save_pretrained writes them."""

from __future__ import annotations

import json

import torch
import transformers

TOKENS = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, **TOKENS,
}  # fmt: skip
LLAMA = {**BERT, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, **TOKENS}


def make(architecture, **changes):
    """A model of a class by its name, always with the same weights."""
    cls = getattr(transformers, architecture)
    kind = next(k for k in ("Llama", "GPT2", "Bert") if k in architecture)
    values = {"Bert": BERT, "Llama": LLAMA, "GPT2": GPT2}[kind]
    torch.manual_seed(0)
    return cls(cls.config_class(**{**values, **changes})).eval()


def save(folder, architecture="BertModel", *, shard="1GB", dtype=None, **changes):
    """Write a model's folder; returns the model."""
    model = make(architecture, **changes)
    (model.to(dtype) if dtype else model).save_pretrained(folder, max_shard_size=shard)
    return model


def save_embedder(folder, *, pooling=None, normalize=True, kind="sentence_transformers.models", inner=""):
    """Write a folder as sentence-transformers does; returns the model."""
    model = save(folder / inner)
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = [inner, "1_Pooling", "2_Normalize"]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": paths[i], "type": f"{kind}.{name}"}
                for i, name in enumerate(modules)
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(pooling or {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    )
    return model


def texts(lengths, width):
    """Token numbers and mask of texts with these lengths, padded to one width."""
    random = torch.Generator().manual_seed(width)
    ids = torch.randint(3, 64, (len(lengths), width), generator=random)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}
