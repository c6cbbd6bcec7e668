"""Scores a model's answers against targets; by name, or by the user's own function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    MetricFunction = Callable[..., float]  # (outputs by name, targets, **options)
    Targets = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A named score.

    Args:
        name: as reports and gates call it.
        function: (outputs by name, targets) -> score.
        higher_is_better: which way is good.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool = True

    def __call__(self, outputs: Mapping[str, np.ndarray], targets: Targets, **options: Any) -> float:
        """The score; InputError where the function returns no number."""
        value = self.function(outputs, targets, **options)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"metric {self.name}", found=f"a {type(value).__name__}", wanted="one number",
                remedy="Return a float from the metric's function.",
            ) from error  # fmt: skip


def accuracy(outputs: Mapping[str, np.ndarray], targets: Targets, *, output: str | None = None) -> float:
    """Share of positions whose largest score is that of the target's class.

    Scores are [samples, classes, ...], targets class numbers [samples, ...]. A row with a NaN is wrong.
    """
    import numpy as np

    scores, targets = _pick(outputs, targets, output)
    if scores.ndim < 2 or scores.shape[1] < 2:
        raise InputError(
            "scores for accuracy", found=f"shape {scores.shape}",
            wanted="[samples, classes, ...], at least 2 classes",
            remedy="Name the output with class scores, as accuracy:<output>, or give a metric of your own.",
        )  # fmt: skip
    _same_shape((scores.shape[0], *scores.shape[2:]), targets, "accuracy", "class numbers")
    right = scores.argmax(axis=1) == targets
    return float(np.mean(right & ~np.isnan(scores.astype(np.float64)).any(axis=1)))


def mae(outputs: Mapping[str, np.ndarray], targets: Targets, *, output: str | None = None) -> float:
    """Mean of |output - target|, in float64."""
    import numpy as np

    return float(np.mean(np.abs(_difference(outputs, targets, output, "mae"))))


def rmse(outputs: Mapping[str, np.ndarray], targets: Targets, *, output: str | None = None) -> float:
    """Root of the mean of (output - target)^2, in float64."""
    import numpy as np

    return float(np.sqrt(np.mean(np.square(_difference(outputs, targets, output, "rmse")))))


def resolve_metric(
    metric: str | MetricFunction | Metric, *, name: str | None = None, higher_is_better: bool | None = None
) -> Metric:
    """A metric by name, or from a function.

    Args:
        metric: "accuracy", "mae" or "rmse", ":<output>" after it names the output; or a function
            (outputs, targets) -> float.
        name: of a user's function; by default its own name.
        higher_is_better: of a user's function; by default its attribute of that name, or true without one.
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        if not callable(metric):
            raise InputError("metric", found=type(metric).__name__, wanted="a name or a function")
        if higher_is_better is None:
            higher_is_better = bool(getattr(metric, "higher_is_better", True))
        return Metric(name or str(getattr(metric, "__name__", "metric")), metric, higher_is_better)
    known = {"accuracy": (accuracy, True), "mae": (mae, False), "rmse": (rmse, False)}
    kind, _, output = metric.partition(":")
    if kind not in known:
        raise InputError(
            "metric", found=metric, wanted=f"{', '.join(known)}, or a function",
            remedy="Give the import path of a function (outputs, targets) -> float.",
        )  # fmt: skip
    function, higher = known[kind]
    return Metric(metric, lambda outputs, targets: function(outputs, targets, output=output or None), higher)


def _pick(
    outputs: Mapping[str, np.ndarray], targets: Targets, output: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """One output and its targets: where targets have names, those of the same name."""
    from collections.abc import Mapping

    if output is not None and output not in outputs:
        raise InputError("output to score", found=output, wanted=f"one of {sorted(outputs)}")
    if not outputs:
        raise InputError("outputs to score", found="none", wanted="at least one")
    name = output if output is not None else next(iter(outputs))
    if not isinstance(targets, Mapping):
        return outputs[name], targets
    if name not in targets:
        raise InputError(
            f"targets of output {name}", found=f"targets {sorted(targets)}", wanted=f"some named {name!r}",
            remedy="Name the targets after the outputs, and the metric after one of them: accuracy:<output>.",
        )  # fmt: skip
    return outputs[name], targets[name]


def _difference(
    outputs: Mapping[str, np.ndarray], targets: Targets, output: str | None, name: str
) -> np.ndarray:
    import numpy as np

    values, targets = _pick(outputs, targets, output)
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
