"""What an ONNX file of a servable may refer to: listed files in its folder, and operators of a stock ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .onnx_references import BadOnnxError, ExternalData, Function, Operator, references
from .refusal import ServableRefusedError
from .servable_files import refuse_escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Those for which ONNX Runtime brings kernels for CPUs; any other needs a library of somebody's.
DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
_READS_FILES = frozenset({Operator("com.microsoft", "EPContext")})  # named by an attribute
_MOST_UNKNOWN = 10_000


def refuse_references(folder: Path, model: str, sizes: Mapping[str, int]) -> None:
    """Refuse a model that reaches further than it may.

    Args:
        folder: the servable's.
        model: the model's path in it.
        sizes: bytes of every listed file, by path in the folder.

    Raises:
        ServableRefusedError: naming the tensor and file, or the operator.
    """
    used: set[Operator] = set()
    defined: set[Operator] = set()
    try:
        for found in references(folder / model):
            if isinstance(found, ExternalData):
                _refuse_unlisted(found, model, sizes)
            elif isinstance(found, Function):
                defined.add(Operator(found.domain, found.op_type))
            elif found.domain not in DOMAINS or found in _READS_FILES:
                used.add(found)
            if max(len(used), len(defined)) > _MOST_UNKNOWN:
                raise BadOnnxError(f"has more than {_MOST_UNKNOWN} operators that are not ONNX's")
    except (BadOnnxError, OSError) as error:
        raise ServableRefusedError(f"{model}: {error}") from error
    foreign = sorted(f"{o.domain}:{o.op_type}" for o in used - (defined - _READS_FILES))
    if foreign:
        raise ServableRefusedError(
            f"{model}: uses operators that a stock ONNX Runtime doesn't have: {', '.join(foreign[:5])}"
        )


def _refuse_unlisted(data: ExternalData, model: str, sizes: Mapping[str, int]) -> None:
    where = f"{model}: external data of tensor {data.tensor!r}"
    refuse_escape(data.location, where)
    parent, slash, _ = model.rpartition("/")
    path = f"{parent}{slash}{data.location}"
    if path not in sizes:
        raise ServableRefusedError(f"{where}: {path!r} is not in files")
    end = data.offset + (data.length or 0)
    if end > sizes[path]:
        raise ServableRefusedError(
            f"{where}: bytes {data.offset} to {end} of {path!r}, which has {sizes[path]}"
        )
