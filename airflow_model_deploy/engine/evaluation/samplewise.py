"""The named metrics sample by sample: each is a mean over samples, so an interval can be computed for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    import numpy as np  # noqa: TC004 - no one asks this class for its types at run time

    Wanted = np.ndarray | Mapping[str, np.ndarray]  # targets, or the original's outputs

_IGNORED = -100  # the class number that torch's and transformers' losses leave out, too
_BLOCK_ELEMENTS = 1 << 24


def _as_it_is(value: float) -> float:
    return value


@dataclass(frozen=True)
class Scores:
    """A metric of each sample; the metric is finish(sum of totals / sum of weights).

    Args:
        totals: [samples], float64.
        weights: [samples]: positions or elements of the sample that count; 1 for most metrics.
        finish: from the mean to the metric (the root of a mean square).
        binary: every total is 0 or 1 and every weight 1, so that the mean is a proportion.
    """

    totals: np.ndarray
    weights: np.ndarray
    finish: Callable[[float], float] = _as_it_is
    binary: bool = False

    @property
    def value(self) -> float:
        """The metric itself."""
        return float(self.finish(float(self.totals.sum() / self.weights.sum())))


def pick(
    outputs: Mapping[str, np.ndarray], wanted: Wanted, output: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """One output and what it is held against: where that has names, that of the same name."""
    if output is not None and output not in outputs:
        raise InputError("output to score", found=output, wanted=f"one of {sorted(outputs)}")
    if not outputs:
        raise InputError("outputs to score", found="none", wanted="at least one")
    name = output if output is not None else next(iter(outputs))
    if not isinstance(wanted, Mapping):
        return outputs[name], wanted
    if name not in wanted:
        raise InputError(
            f"targets of output {name}", found=f"targets {sorted(wanted)}", wanted=f"some named {name!r}",
            remedy="Name the targets after the outputs, and the metric after one of them: accuracy:<output>.",
        )  # fmt: skip
    return outputs[name], wanted[name]


def accuracy(scores: np.ndarray, targets: np.ndarray) -> Scores:
    """Whether the largest score is that of the target's class; a row with a NaN is wrong.

    Scores are [samples, classes, ...], targets class numbers [samples, ...].
    """
    import numpy as np

    _need_classes(scores, targets, "accuracy")
    return _shares(np.equal(scores.argmax(axis=1), targets) & ~_has_nan(scores))


def top5(scores: np.ndarray, targets: np.ndarray) -> Scores:
    """Whether fewer than five classes score higher than the target's; a row with a NaN is wrong."""
    import numpy as np

    _need_classes(scores, targets, "top5")
    inside = (targets >= 0) & (targets < scores.shape[1])
    own = np.take_along_axis(scores, np.where(inside, targets, 0)[:, None].astype(np.int64), axis=1)
    return _shares(inside & ((scores > own).sum(axis=1) < 5) & ~_has_nan(scores))


def mae(values: np.ndarray, targets: np.ndarray) -> Scores:
    """|output - target|, in float64."""
    import numpy as np

    difference = np.abs(_difference(values, targets, "mae"))
    return Scores(_sums(difference), _sizes(difference))


def rmse(values: np.ndarray, targets: np.ndarray) -> Scores:
    """(output - target)^2, in float64; the metric is the root of its mean."""
    import numpy as np

    difference = np.square(_difference(values, targets, "rmse"))
    return Scores(_sums(difference), _sizes(difference), math.sqrt)


def perplexity(logits: np.ndarray, targets: np.ndarray) -> Scores:
    """Negative log-likelihood of the targets' tokens; the metric is exp of its mean over all counted tokens.

    Logits are [samples, sequence, vocabulary], targets token numbers [samples, sequence], -100 where nothing is
    counted. The log-softmax subtracts the largest logit first, in float64. Targets are held against the logits at
    their own place: a loader for a causal model shifts them by one.
    """
    import numpy as np

    if logits.ndim != 3 or logits.shape[-1] < 2:
        raise InputError(
            "logits for perplexity", found=f"shape {logits.shape}", wanted="[samples, sequence, vocabulary]",
            remedy="Name the output with the logits, as perplexity:<output>.",
        )  # fmt: skip
    _same_shape(logits.shape[:2], targets, "perplexity", "token numbers")
    counted = targets != _IGNORED
    strange = counted & ((targets < 0) | (targets >= logits.shape[-1]))
    if targets.dtype.kind not in "iu" or strange.any() or not counted.any():
        raise InputError(
            "targets of perplexity",
            found=f"{targets.dtype}, {int(strange.sum())} outside the vocabulary, {int(counted.sum())} counted",
            wanted=f"integers from 0 to {logits.shape[-1] - 1}, or {_IGNORED} where nothing is counted; one at least",
        )
    totals = np.zeros(len(logits))
    for row, (scores, wanted, mask) in enumerate(zip(logits, targets, counted, strict=True)):
        kept = scores[mask].astype(np.float64)  # one sample at a time: float64 logits of all would be large
        if kept.size:
            top = kept.max(axis=1)
            spread = np.log(np.exp(kept - top[:, None]).sum(axis=1))
            totals[row] = (top + spread - kept[np.arange(len(kept)), wanted[mask]]).sum()
    return Scores(totals, counted.sum(axis=1).astype(np.float64), _exp)


def cosine(values: np.ndarray, original: np.ndarray) -> Scores:
    """Cosine between a sample's output and the original's, flattened; 1 for two zero rows, 0 for one."""
    import numpy as np

    _same_shape(values.shape, original, "cosine", "the original's outputs")
    found = np.empty(len(values))
    step = max(1, _BLOCK_ELEMENTS // (values.size // len(values)))  # float64 of all samples would be large
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        a, a_zero = _unit_rows(values[rows], "cosine")
        b, b_zero = _unit_rows(original[rows], "cosine of the original")
        found[rows] = np.where(a_zero & b_zero, 1.0, np.clip((a * b).sum(axis=1), -1, 1))
    return Scores(found, np.ones(len(found)))


def agreement(scores: np.ndarray, original: np.ndarray) -> Scores:
    """Whether the largest score is of the class that the original scores highest; a NaN on either side is wrong."""
    import numpy as np

    _same_shape(scores.shape, original, "agreement", "the original's outputs")
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(
            "scores for agreement", found=f"shape {scores.shape}", wanted="[samples, classes], at least 2 classes",
            remedy="Name the output with class scores, as agreement:<output>.",
        )  # fmt: skip
    same = np.equal(scores.argmax(axis=1), original.argmax(axis=1))
    return _shares(same & ~_has_nan(scores) & ~_has_nan(original))


def retrieval(values: np.ndarray, original: np.ndarray) -> Scores:
    """Whether a sample's nearest other sample, by cosine, is the one that it is by the original's outputs.

    Of equally near ones the first counts.
    """
    import numpy as np

    if len(values) < 3:
        raise InputError(
            "samples for retrieval", found=len(values), wanted="3 or more: with 2 there is but one neighbour"
        )
    _same_shape(values.shape, original, "retrieval", "the original's outputs")
    a, _ = _unit_rows(values, "retrieval")
    b, _ = _unit_rows(original, "retrieval of the original")
    return _shares(np.equal(_nearest(a), _nearest(b)))


def _nearest(rows: np.ndarray) -> np.ndarray:
    import numpy as np

    found = np.empty(len(rows), np.int64)
    step = max(1, _BLOCK_ELEMENTS // len(rows))
    for start in range(0, len(rows), step):
        near = rows[start : start + step] @ rows.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf  # not itself
        # Rounded: two equal samples must not be told apart by the order of a sum.
        found[start : start + step] = near.round(12).argmax(axis=1)
    return found


def _unit_rows(values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1, and which of them are zero."""
    import numpy as np

    rows = values.astype(np.float64).reshape(len(values), -1)
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).any(axis=1).sum())
        raise InputError(
            f"outputs for {name}", found=f"NaN or infinity in {bad} of {len(rows)} samples", wanted="finite numbers",
            remedy="Look at the model, or at the test inputs, that give them.",
        )  # fmt: skip
    # Scaled by the largest element first: squares of large values overflow, of small ones vanish.
    scale = np.abs(rows).max(axis=1, keepdims=True)
    zero = scale[:, 0] == 0
    rows /= np.where(scale == 0, 1, scale)
    return rows / np.where(zero[:, None], 1, np.linalg.norm(rows, axis=1, keepdims=True)), zero


def _shares(right: np.ndarray) -> Scores:
    sizes = _sizes(right)
    return Scores(_sums(right), sizes, binary=bool((sizes == 1).all()))


def _sums(values: np.ndarray) -> np.ndarray:
    import numpy as np

    sums: np.ndarray = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    return sums


def _sizes(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.full(len(values), float(math.prod(values.shape[1:])))


def _has_nan(scores: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.asarray(np.isnan(scores.astype(np.float64)).any(axis=1))


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


def _need_classes(scores: np.ndarray, targets: np.ndarray, name: str) -> None:
    if scores.ndim < 2 or scores.shape[1] < 2:
        raise InputError(
            f"scores for {name}", found=f"shape {scores.shape}",
            wanted="[samples, classes, ...], at least 2 classes",
            remedy=f"Name the output with class scores, as {name}:<output>, or give a metric of your own.",
        )  # fmt: skip
    _same_shape((scores.shape[0], *scores.shape[2:]), targets, name, "class numbers")


def _difference(values: np.ndarray, targets: np.ndarray, name: str) -> np.ndarray:
    import numpy as np

    if values.shape == (*targets.shape, 1):
        values = values[..., 0]  # one number a sample, as most networks return it
    _same_shape(values.shape, targets, name, "values")
    difference: np.ndarray = np.subtract(values, targets, dtype=np.float64)
    return difference


def _same_shape(wanted: tuple[int, ...], targets: np.ndarray, name: str, what: str) -> None:
    if targets.shape != wanted or 0 in wanted:
        raise InputError(
            f"targets of {name}", found=f"shape {targets.shape}",
            wanted=f"{what} of shape {wanted}, at least one",
            remedy="Give one target a sample, in the shape that the outputs have.",
        )  # fmt: skip
