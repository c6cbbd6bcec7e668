"""Sentences for a text model of the transformers library, as its own tokenizer numbers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

if TYPE_CHECKING:
    import numpy as np


# [START load]
def load(
    split: str, model: str, sentences: str, length: int = 64
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Return the token numbers of a file of sentences, one a line. Nothing is downloaded."""
    lines = Path(sentences.format(split=split)).read_text(encoding="utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    tokens = tokenizer(lines, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    return {name: tokens[name].astype("int64") for name in ("input_ids", "attention_mask")}, None


# [END load]
