"""Builds one way of compressing a model and finds out what it is: quality, loss, size, latency."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import digest_of
from airflow_model_deploy.engine.compression import (
    Budget,
    Treatment,
    Verified,
    cosine_loss,
    quantize_mixed,
    relative_error,
)
from airflow_model_deploy.engine.evaluation import Metric, compare_speed, drop_of, evaluate
from airflow_model_deploy.engine.models import (
    Dataset,
    SessionSettings,
    create_session,
    denormals_as_zero,
    file_size,
    onnx_sha256,
    read_signature,
    run,
)
from airflow_model_deploy.engine.steps.plan_file import PLAN_BATCH
from airflow_model_deploy.engine.steps.speed import first_rows
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np  # noqa: TC004 - nobody asks these classes for their types at run time
    from onnxruntime import InferenceSession

    from airflow_model_deploy.engine.compression import Format

    Answers = Mapping[str, np.ndarray]

logger = logging.getLogger(__name__)

BATCH = PLAN_BATCH
# Served without the one fusion that slows transformers on CPUs; `optimize` decides it anew, by measurement.
SERVED = SessionSettings(disabled_optimizers=("SkipLayerNormFusion",))
_ROUNDS = 15


@dataclass(frozen=True)
class Original:
    """The model before compression, and the samples that everything is compared on.

    Args:
        path: its fp32 export.
        metric: the user's.
        options: keyword arguments of a user's metric.
        planning: samples that losses are measured on, formats calibrated with.
        test: samples that quality is measured on.
    """

    path: Path
    metric: Metric
    options: dict[str, Any]
    planning: Dataset
    test: Dataset

    @cached_property
    def feed(self) -> dict[str, np.ndarray]:
        """The planning samples as the file takes them."""
        return data_for(self.planning, read_signature(self.path))

    @cached_property
    def test_feed(self) -> dict[str, np.ndarray]:
        """The test samples as the file takes them."""
        return data_for(self.test, read_signature(self.path))

    @cached_property
    def request(self) -> dict[str, np.ndarray]:
        """One request, or the batch that the file is bound to."""
        return first_rows(self.test_feed, read_signature(self.path).fixed_batch or 1)

    @cached_property
    def session(self) -> InferenceSession:
        """It at ONNX Runtime's defaults: every candidate is timed in turns with it."""
        return create_session(self.path)

    @cached_property
    def test_answers(self) -> Answers:
        """Its answers for the test samples."""
        return run(self.session, self.test_feed, batch_size=BATCH)

    @cached_property
    def quality(self) -> float | None:
        """Its own quality; None where the data can't tell."""
        return self.quality_of(self.test_answers)

    def quality_of(self, answers: Answers) -> float | None:
        """The quality of some answers for the test samples."""
        against_original = self.metric.against == "original"
        if not against_original and self.test.targets is None:
            return None
        return evaluate(
            answers,
            metric=self.metric,
            targets=self.test.targets,
            reference=self.test_answers if against_original else None,
            **self.options,
        )

    def drop(self, quality: float | None) -> float | None:
        """How much worse than the original a quality is; points for shares."""
        if quality is None or self.quality is None:
            return None
        return drop_of(self.metric.name, quality, self.quality, higher_is_better=self.metric.higher_is_better)

    @property
    def by_cosine(self) -> bool:
        """Whether the quality is 1 - the loss: then the budget bounds the loss itself."""
        return self.metric.name.partition(":")[0] == "cosine"

    def loss(self, answers: Answers, changed: Answers) -> float:
        """The distance of answers that adds up over layers; of one output where the metric is of one."""
        name = self.metric.name.partition(":")[2]
        if self.by_cosine:
            name = name or next(iter(answers))  # as the metric picks it
        if name:
            answers, changed = {name: answers[name]}, {name: changed[name]}
        return cosine_loss(answers, changed) if self.by_cosine else relative_error(answers, changed)

    @property
    def loss_name(self) -> str:
        """What that distance is called."""
        return "1 - mean cosine" if self.by_cosine else "relative squared error"

    @cached_property
    def digest(self) -> str:
        """Of the graph and the samples."""
        seen = hashlib.sha256()
        for data in (self.planning, self.test):
            targets = data.targets if isinstance(data.targets, dict) else {"": data.targets}
            for arrays in (data.inputs, targets):
                for name, array in sorted(arrays.items(), key=lambda pair: pair[0]):
                    seen.update(f"{name}:".encode())
                    if array is not None:
                        plain = repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
                        seen.update(f"{array.dtype}{array.shape}".encode() + plain)
        return digest_of({"model": onnx_sha256(self.path), "samples": seen.hexdigest()})


@dataclass(frozen=True)
class Float:
    """A float graph whose formats are chosen: the original's, or that of a model with less structure.

    Args:
        path: its fp32 export.
        treatment: what made it out of the original.
        original: what it is compared with.
        activations: largest activation of channels, once they are known.
    """

    path: Path
    treatment: Treatment
    original: Original
    activations: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def answers(self) -> Answers:
        """Its answers for the planning samples."""
        return run(create_session(self.path), self.original.feed, batch_size=BATCH)

    @cached_property
    def test_answers(self) -> Answers:
        """Its answers for the test samples."""
        if self.path == self.original.path:
            return self.original.test_answers
        return run(create_session(self.path), self.original.test_feed, batch_size=BATCH)


@dataclass(frozen=True)
class Built:
    """A candidate: its file, what was done, what it turned out to be, and what the budget says to it."""

    path: Path
    treatment: Treatment
    verified: Verified
    broken: tuple[str, ...]
    predicted: dict[str, float | None]

    def told(self) -> dict[str, Any]:
        """As plan.json lists it."""
        found = self.verified
        return {
            "name": self.treatment.name,
            "size_bytes": found.size_bytes,
            "latency_ms": found.latency_ms,
            "quality": found.quality,
            "drop": found.drop,
            "loss": found.loss if math.isfinite(found.loss) else None,
            "within_budget": not self.broken,
            "chosen": False,
        }


def build(
    graph: Float,
    formats: Mapping[str, Format],
    target: Path,
    *,
    budget: Budget,
    predicted: Mapping[str, float | None] | None = None,
) -> Built:
    """Write a candidate and verify it."""
    write(graph, formats, target)
    treatment = Treatment(graph.treatment.structure, dict(formats))
    verified = verify(graph, target)
    broken = budget.broken_by(verified)
    logger.info(
        "%s: %d bytes, %.4g ms, drop %s, loss %.3g%s",
        treatment.name,
        verified.size_bytes,
        verified.latency_ms,
        "unknown" if verified.drop is None else f"{verified.drop:.4g}",
        verified.loss,
        f"; exceeds the budget: {'; '.join(broken)}" if broken else "",
    )
    return Built(target, treatment, verified, broken, dict(predicted or {}))


def write(graph: Float, formats: Mapping[str, Format], target: Path) -> None:
    """Write a candidate: the same bytes whether or not activations are known already."""
    quantize_mixed(
        graph.path,
        target,
        formats,
        calibration=graph.original.feed,
        batch_size=calibration_batch(graph.path),
        activations=graph.activations or None,
    )


def verify(graph: Float, path: Path) -> Verified:
    """Measure a file against the float graph that it was made from, and against the original."""
    original = graph.original
    session = create_session(path, SERVED)
    answers = run(session, original.test_feed, batch_size=BATCH)
    quality = original.quality_of(answers)
    latency, baseline_latency = request_ms(original, session)
    return Verified(
        quality=quality,
        baseline_quality=original.quality,
        drop=original.drop(quality),
        loss=original.loss(graph.answers, run(session, original.feed, batch_size=BATCH)),
        loss_held_out=original.loss(graph.test_answers, answers),
        size_bytes=file_size(path),
        latency_ms=latency,
        baseline_size_bytes=file_size(original.path),
        baseline_latency_ms=baseline_latency,
    )


def request_ms(original: Original, session: InferenceSession) -> tuple[float, float]:
    """CPU milliseconds of a request to a session, and of the same to the original, measured in turns."""
    with denormals_as_zero():
        speed = compare_speed(
            {
                "baseline": lambda: original.session.run(None, original.request),
                "candidate": lambda: session.run(None, original.request),
            },
            rounds=_ROUNDS,
            max_seconds=5.0,
        )
    return 1e3 * speed.seconds["candidate"], 1e3 * speed.seconds["baseline"]


def calibration_batch(path: Path) -> int:
    """Samples a calibration run."""
    return read_signature(path).fixed_batch or BATCH
