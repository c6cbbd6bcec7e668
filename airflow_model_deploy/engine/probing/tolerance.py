"""How far an answer may be off, derived from measured outputs; knows arithmetic, no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.probing.golden import Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

_FLOOR_OF_PROMISE = 1e-4  # of the largest original output: what another CPU's fp32 kernels may differ by
_FLOOR_OF_TIGHT = 1e-5  # of the output's range
_TIGHT_MARGIN = 4.0


def derive_tolerance(
    original_outputs: Arrays, built_outputs: Arrays, *, margin: float = 1.25, source: str
) -> dict[str, Tolerance]:
    """What compression promises: how far the built model may be from the original, by output.

    With o the original's and b the built model's outputs over a sample *apart from the golden requests*:

        absolute = max(margin * max|o - b|, 1e-4 * max|o|),   relative = 0

    Args:
        original_outputs: output name -> array, dim 0 = samples.
        built_outputs: the same samples through the built model.
        margin: room for requests outside the sample, 1 or more.
        source: which sample, for the record; the formula is added to it.

    Raises:
        InputError: outputs or shapes differ, a value isn't finite, or the sample is empty.
    """
    if margin < 1:
        raise InputError("the tolerance's margin", found=margin, wanted="1 or more")
    _same_outputs(original_outputs, built_outputs)
    tolerances = {}
    for name, original in original_outputs.items():
        deviation, largest = _deviation(name, original, built_outputs[name]), _largest(original)
        tolerances[name] = Tolerance(
            absolute=max(margin * deviation, _FLOOR_OF_PROMISE * largest),
            relative=0.0,
            source=f"{source}: max({margin:g} * {deviation:.6g}, 1e-4 * {largest:.6g}),"
            f" {len(original)} samples",
        )
    return tolerances


def tight_tolerance(built_outputs: Arrays, variations: Sequence[Arrays]) -> dict[str, Tolerance]:
    """How far the served model may be from its own recorded answers, by output.

    With b the recorded outputs and v the same model's on the same samples at other batch sizes or threads:

        absolute = 4 * max(max|b - v| over the variations, 1e-5 * (max b - min b)),   relative = 0

    An output that is constant over the sample takes max|b| as its range. Kernels for another kind of CPU
    (integer ones above all) may differ by more: a variation measured there belongs into `variations`.

    Raises:
        InputError: no variation, outputs or shapes differ, or a value isn't finite.
    """
    if not variations:
        raise InputError("variations of the built model's outputs", found=0, wanted="1 or more")
    for variation in variations:
        _same_outputs(built_outputs, variation)
    tolerances = {}
    for name, built in built_outputs.items():
        deviation = max(_deviation(name, built, v[name]) for v in variations)
        span = _range(built)
        tolerances[name] = Tolerance(
            absolute=_TIGHT_MARGIN * max(deviation, _FLOOR_OF_TIGHT * span),
            relative=0.0,
            source=f"{len(variations)} variations: 4 * max({deviation:.6g}, 1e-5 * {span:.6g})",
        )
    return tolerances


def _same_outputs(one: Arrays, other: Arrays) -> None:
    if set(one) != set(other) or not one:
        raise InputError("outputs to compare", found=sorted(other), wanted=sorted(one) or "at least one")


def _deviation(name: str, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    import numpy as np

    if one.shape != other.shape or one.size == 0:
        raise InputError(f"samples of output {name!r}", found=other.shape, wanted=f"{one.shape}, not empty")
    deviation = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    if not np.isfinite(deviation):
        raise InputError(f"samples of output {name!r}", found=deviation, wanted="finite numbers")
    return deviation


def _largest(array: np.ndarray[Any, Any]) -> float:
    import numpy as np

    return float(np.abs(array.astype(np.float64)).max())


def _range(array: np.ndarray[Any, Any]) -> float:
    import numpy as np

    wide = array.astype(np.float64)
    return float(wide.max() - wide.min()) or _largest(wide)
