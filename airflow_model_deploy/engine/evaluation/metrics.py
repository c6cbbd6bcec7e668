"""Scores a model's answers against targets, or against the original model's; by name, or by the user's function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.evaluation import samplewise
from airflow_model_deploy.engine.evaluation.samplewise import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from airflow_model_deploy.engine.evaluation.samplewise import Scores, Wanted

    MetricFunction = Callable[..., float]  # (outputs by name, targets or the original's outputs, **options)
    SampleFunction = Callable[..., Scores]

Against = Literal["targets", "original"]


@dataclass(frozen=True)
class Metric:
    """A named score.

    Args:
        name: as reports and gates call it.
        function: (outputs by name, what they are held against) -> score.
        higher_is_better: which way is good.
        against: "targets", or "original": the original model's outputs for the same samples. The original itself
            scores 1 then.
        scores: the same per sample, from which intervals are computed; None where it is no mean over samples.
        resamples: without `scores`: how many bootstrap samples an interval takes; 0: no interval.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool = True
    against: Against = "targets"
    scores: SampleFunction | None = None
    resamples: int = 0

    def __call__(self, outputs: Mapping[str, np.ndarray], wanted: Wanted, **options: Any) -> float:
        """The score; InputError where the function returns no number."""
        value = self.function(outputs, wanted, **options)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"metric {self.name}", found=f"a {type(value).__name__}", wanted="one number",
                remedy="Return a float from the metric's function.",
            ) from error  # fmt: skip


# name -> (scores of the samples, higher is better, against)
_NAMED: dict[str, tuple[SampleFunction, bool, Against]] = {
    "accuracy": (samplewise.accuracy, True, "targets"),
    "top5": (samplewise.top5, True, "targets"),
    "mae": (samplewise.mae, False, "targets"),
    "rmse": (samplewise.rmse, False, "targets"),
    "perplexity": (samplewise.perplexity, False, "targets"),
    "cosine": (samplewise.cosine, True, "original"),
    "agreement": (samplewise.agreement, True, "original"),
    "retrieval": (samplewise.retrieval, True, "original"),
}
METRICS = tuple(_NAMED)
# Shares of 1, whose drop is told in hundredths: percentage points.
_IN_POINTS = ("accuracy", "top5", "cosine", "agreement", "retrieval")


def evaluate(
    outputs: Mapping[str, np.ndarray],
    *,
    metric: str | MetricFunction | Metric,
    targets: Wanted | None = None,
    reference: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> float:
    """The score of some outputs, a finite number.

    Args:
        outputs: by name, samples along dimension 0.
        metric: as `resolve_metric` takes it.
        targets: what metrics against targets need.
        reference: the original model's outputs for the same samples, which metrics against it need.
        **options: keyword arguments of a user's function.
    """
    found = resolve_metric(metric)
    value = found(outputs, wanted_by(found, targets, reference), **options)
    if not math.isfinite(value):
        raise InputError(
            f"the metric {found.name} gave no number", found=value, wanted="a finite float",
            remedy="Check the metric, and the test data for NaN.",
        )  # fmt: skip
    return value


def wanted_by(metric: Metric, targets: Wanted | None, reference: Mapping[str, np.ndarray] | None) -> Wanted:
    """What a metric holds outputs against."""
    if metric.against == "targets":
        wanted, what = targets, "targets"
    else:
        wanted, what = reference, "the original model's outputs for the same samples"
    if wanted is None:
        raise InputError(f"the metric {metric.name} can't be measured", found=f"none of {what}", wanted=what)
    return wanted


def in_points(metric: str) -> bool:
    """Whether a drop of this metric is told in percentage points: hundredths of its own unit."""
    return metric.partition(":")[0] in _IN_POINTS


def drop_of(metric: str, value: float, baseline: float, *, higher_is_better: bool) -> float:
    """How much worse than a baseline; in percentage points where the metric is a share, else in its own unit."""
    drop = baseline - value if higher_is_better else value - baseline
    return drop * 100 if in_points(metric) else drop


def higher_is_better(metric: str) -> bool:
    """Which way a metric of this name is good; of a user's function, higher."""
    named = _NAMED.get(metric.partition(":")[0])
    return named[1] if named else True


def resolve_metric(
    metric: str | MetricFunction | Metric, *, name: str | None = None, higher_is_better: bool | None = None
) -> Metric:
    """A metric by name, or from a function.

    Args:
        metric: "accuracy", "top5", "mae", "rmse" or "perplexity", which need targets; "cosine", "agreement" or
            "retrieval", which compare with the original's outputs; ":<output>" after it names the output. Or a
            function (outputs, targets) -> float; its attributes `higher_is_better`, `against` ("original": it is
            given the original's outputs in place of targets) and `resamples` (bootstrap samples of its interval)
            say what else is to be known.
        name: of a user's function; by default its own name.
        higher_is_better: of a user's function; by default its attribute of that name, or true without one.
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        return _of_function(metric, name, higher_is_better)
    kind, _, output = metric.partition(":")
    if kind not in _NAMED:
        raise InputError(
            "metric", found=metric, wanted=f"{', '.join(_NAMED)}, or a function",
            remedy="Give the import path of a function (outputs, targets) -> float.",
        )  # fmt: skip
    scores, higher, against = _NAMED[kind]

    def per_sample(outputs: Mapping[str, np.ndarray], wanted: Wanted) -> Scores:
        return scores(*pick(outputs, wanted, output or None))

    return Metric(metric, lambda *both: per_sample(*both).value, higher, against, per_sample)


def _of_function(function: Any, name: str | None, higher: bool | None) -> Metric:
    if not callable(function):
        raise InputError("metric", found=type(function).__name__, wanted="a name or a function")
    name = name or str(getattr(function, "__name__", "metric"))
    against: Any = getattr(function, "against", "targets")
    resamples: Any = getattr(function, "resamples", 0)
    if against not in ("targets", "original"):
        raise InputError(f"{name}.against", found=against, wanted="'targets' or 'original'")
    if not isinstance(resamples, int) or not 0 <= resamples <= 100_000:
        raise InputError(f"{name}.resamples", found=resamples, wanted="a whole number from 0 to 100000")
    if higher is None:
        higher = bool(getattr(function, "higher_is_better", True))
    return Metric(name, function, higher, against, resamples=resamples)
