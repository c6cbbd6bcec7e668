"""Knows losses by name, and how a user's own is called; knows nothing of models, data or training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from airflow_model_deploy.engine.models import UserFunction

    Resolve = Callable[[str], Callable[..., Any]]

Loss = Callable[[Any, Any], "Tensor"]
LOSSES = ("cross_entropy", "mse", "l1", "cosine")


def resolve_loss(loss: str | UserFunction, resolve: Resolve) -> Loss:
    """Return a loss by its name, or from a user's function, as loss(outputs, targets) -> scalar tensor.

    Args:
        loss: "cross_entropy", "mse", "l1" or "cosine", ":<output>" behind it names the output where the model has
            several; or a function (outputs, targets, **options) -> scalar tensor.
        resolve: imports a function by its path.

    Returns:
        A function of what forward returned and of the batch's targets as tensors (a dict of them where the targets
        have names). An output of one tensor reaches a user's function as that tensor. Where targets have names, a
        named loss takes those of its output's name.
    """
    if not isinstance(loss, str):
        return partial(_own, resolve(loss.path), loss.path, loss.options)
    kind, _, output = loss.partition(":")
    if kind not in LOSSES:
        raise InputError(
            "loss", found=loss, wanted=f"one of {', '.join(LOSSES)}, or a function",
            remedy="Give the import path of a function (outputs, targets) -> scalar tensor.",
        )  # fmt: skip
    return partial(_named, kind, output or None)


def single_output(value: Any) -> Any:
    """Return what forward returned, or, where it holds one tensor only, that tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "items"):
        value = dict(value.items())
        return next(iter(value.values())) if len(value) == 1 else value
    if isinstance(value, (tuple, list)):
        return value[0] if len(value) == 1 else tuple(value)
    return value


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[target], in at least float32.

    Args:
        logits: [samples, classes, ...].
        targets: class numbers [samples, ...], -100 where there is none; or shares of the logits' own shape.
    """
    from torch.nn.functional import cross_entropy as formula

    if logits.ndim < 2:
        raise _misfit("cross_entropy", logits, targets, "logits [samples, classes, ...]")
    if targets.is_floating_point():
        fits = targets.shape == logits.shape
    else:
        fits = targets.shape == (logits.shape[0], *logits.shape[2:])
        outside = (targets != -100) & ((targets < 0) | (targets >= logits.shape[1]))
        if bool(outside.any()):
            raise InputError(
                "targets of cross_entropy",
                found=f"class {int(targets[outside][0])}",
                wanted=f"class numbers 0 to {logits.shape[1] - 1}: the model has {logits.shape[1]} classes",
                remedy="Correct the data's targets, or give the model as many classes.",
            )
        targets = targets.long()
    if not fits:
        raise _misfit(
            "cross_entropy", logits, targets, "class numbers [samples, ...], or shares as the logits"
        )
    wide = wider(logits)
    return formula(wide, targets.to(wide.dtype) if targets.is_floating_point() else targets)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of (output - target)^2, in at least float32."""
    return _difference("mse", outputs, targets).square().mean()


def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of |output - target|, in at least float32."""
    return _difference("l1", outputs, targets).abs().mean()


def cosine(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - x.y / (|x| |y|) over the last dimension, in at least float32; 1 where a vector is zero."""
    from torch.nn.functional import cosine_similarity

    if outputs.shape != targets.shape or outputs.ndim < 2:
        raise _misfit("cosine", outputs, targets, "vectors of the outputs' shape [samples, ..., width]")
    wide = wider(outputs)
    return (1 - cosine_similarity(wide, targets.to(wide.dtype), dim=-1)).mean()


def wider(tensor: Tensor) -> Tensor:
    """Return half precision as float32, all else as it is: sums over many elements need the digits."""
    import torch

    if not tensor.is_floating_point():
        raise InputError(
            "the output that a loss is taken of", found=f"type {tensor.dtype}", wanted="floating-point numbers",
            remedy="Name another output, as in cross_entropy:<output>, or give a loss of your own.",
        )  # fmt: skip
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def output_names(outputs: Any) -> dict[Any, Tensor]:
    """Name what forward returned: a dict's own names, "output" for a tensor, "output_0"… for several."""
    if hasattr(outputs, "items"):
        return dict(outputs.items())
    if isinstance(outputs, (tuple, list)):
        return {f"output_{place}": item for place, item in enumerate(outputs)}
    return {"output": outputs}


def _named(kind: str, output: str | None, outputs: Any, targets: Any) -> Tensor:
    function = {"cross_entropy": cross_entropy, "mse": mse, "l1": l1, "cosine": cosine}[kind]
    return function(*_pick(kind, output, outputs, targets))


def _own(
    function: Callable[..., Any], name: str, options: Mapping[str, Any], outputs: Any, targets: Any
) -> Any:
    import torch

    value = function(single_output(outputs), targets, **options)
    if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
        found = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        raise InputError(
            f"loss {name}", found=found, wanted="a tensor with one floating-point number and no dimension",
            remedy="Return the mean over the batch, as a tensor, so that it has gradients.",
        )  # fmt: skip
    return value


def _pick(kind: str, output: str | None, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Choose one output and its targets."""
    import torch

    if targets is None:
        raise InputError(
            f"loss {kind}", found="data without targets", wanted="targets",
            remedy="Let the loader return targets, or distil without a loss.",
        )  # fmt: skip
    named = output_names(outputs)
    name = next(iter(named)) if output is None and named else output
    if name not in named or (output is None and len(named) > 1 and not isinstance(targets, Mapping)):
        raise InputError(
            f"loss {kind}", found=f"outputs {sorted(named)}", wanted=f"one of them named, as {kind}:<output>",
            remedy="Name it in the loss, or give a function of all of them.",
        )  # fmt: skip
    target = targets
    if isinstance(targets, Mapping):
        target = targets.get(name, next(iter(targets.values())) if len(targets) == 1 else None)
    if not isinstance(target, torch.Tensor):
        raise InputError(
            f"targets of loss {kind}", found=f"targets {sorted(targets)}", wanted=f"some named {name!r}",
            remedy="Name the targets after the outputs, and the loss after one of them.",
        )  # fmt: skip
    return named[name], target


def _difference(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.shape == (*targets.shape, 1):
        outputs = outputs[..., 0]  # one number a sample, as most networks return it
    if outputs.shape != targets.shape or not math.prod(outputs.shape):
        raise _misfit(kind, outputs, targets, "values in the outputs' shape")
    wide = wider(outputs)
    return wide - targets.to(wide.dtype)


def _misfit(kind: str, outputs: Tensor, targets: Tensor, wanted: str) -> InputError:
    return InputError(
        f"targets of loss {kind}", found=f"outputs {list(outputs.shape)}, targets {list(targets.shape)}",
        wanted=wanted, remedy="Give one target a sample, in the shape that the loss takes.",
    )  # fmt: skip
