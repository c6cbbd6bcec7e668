"""English sentences from the docs of installed packages, and their tokens."""

from __future__ import annotations

import ast
import itertools
import random
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

_PACKAGES = ("torch", "sklearn", "numpy", "scipy", "matplotlib", "airflow", "transformers", "sqlalchemy")
_A_PACKAGE = 400  # so that no single subject rules
_END = re.compile(r"(?<=[.!?])\s+")


def sentences() -> list[str]:
    """All sentences, in an order that is random and always the same for the same packages."""
    found: dict[str, None] = {}
    for package in _PACKAGES:
        found.update(dict.fromkeys(itertools.islice(_of_package(package), _A_PACKAGE)))
    listed = list(found)
    random.Random(0).shuffle(listed)
    return listed


def _of_package(name: str) -> Iterator[str]:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return
    seen: set[str] = set()
    for path in sorted(Path(next(iter(spec.submodule_search_locations))).rglob("*.py")):
        if "tests" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for sentence in _of_tree(tree):
            if sentence not in seen:
                seen.add(sentence)
                yield sentence


def _of_tree(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n")[:3]:
                yield from filter(_is_english, _END.split(" ".join(paragraph.split())))


def _is_english(text: str) -> bool:
    letters = sum(c.isalpha() or c == " " for c in text)
    return (
        8 <= len(text.split()) <= 60
        and text[0].isupper()
        and text.endswith(".")
        and letters > 0.93 * len(text)
    )


def tokens(folder: Path, texts: list[str], length: int) -> dict[str, np.ndarray]:
    """What a model's tokenizer makes of texts, each cut or padded to a length."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
    }
