"""A small convolutional network compressed to a budget of accuracy, beside ONNX Runtime's tools and Torch-Pruning."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _samples
from benchmarks._claims import Found
from benchmarks._contest import Contestant, contest
from benchmarks._steps import REPOSITORY, Steps, files_of, model_of, python, say, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np  # noqa: TC004 - nobody asks these classes for their types at run time

    from benchmarks._contest import Contest

EPOCHS, RECOVERY, BATCH, MAX_DROP, OURS = 12, 12, 64, 1.0, "ours"
_CODE = "example_models"
_DATA = {
    "loader": {"path": f"{_CODE}.digits_data:load"},
    "fingerprint": {"path": f"{_CODE}.digits_data:fingerprint"},
}
_FIT = {"path": f"{_CODE}.digits_model:fit"}
_COULD_NOT = {
    "onnxruntime quantize_dynamic": "be faster: it computes convolutions in integers more slowly than in fp32",
    "onnxruntime quantize_static": "make it smaller than int8 is: nothing is cut, and there is no budget to keep",
    "onnxruntime MatMulNBits 8 bit": "change anything: a convolutional network has no MatMul",
    "torch-pruning MagnitudePruner": "find the ratio that a budget bears, quantize, or save without pickle",
}


@dataclass(frozen=True)
class Files:
    """Files of images: calibration, all of the test split, one batch of it; and the test split's labels."""

    calibration: Path
    test: Path
    batch: Path
    labels: np.ndarray


@dataclass(frozen=True)
class Seed:
    """What was made from one seed: the trained model's folder, its contestants and the plan."""

    number: int
    trained: Path
    contestants: dict[str, Contestant]
    plan: dict[str, Any]


def measure(folder: Path, *, quick: bool) -> Found:
    """Train, compress and time from every seed; the peers from the first one."""
    found, steps, samples = Found(), Steps(folder / "steps"), _write_samples(folder)
    rows: list[dict[str, Any]] = []
    for number in range(1 if quick else 3):
        say(f"digits: seed {number}")
        seed = _compressed(steps, number)
        if number == 0:
            seed.contestants.update(_peers(folder, seed, samples))
        with contest(seed.contestants, folder, quick=quick) as running:
            rows += _rows(running, seed, samples)
    found.rows.extend(rows)
    ours = [row for row in rows if row["name"] == OURS]
    drop = statistics.mean(row["drop"] for row in ours)
    sizes, speeds = [1 / row["size_ratio"] for row in ours], [row["speedup"] for row in ours]
    kept = drop <= MAX_DROP
    told = {"seeds": _rounded(sizes), "of_the_mean_size": round(1 / statistics.mean(1 / s for s in sizes), 3)}
    found.claim("digits_size", statistics.mean(sizes), least=35, given=kept, **told)
    found.claim("digits_throughput", statistics.mean(speeds), least=10, given=kept, seeds=_rounded(speeds))
    found.claim("digits_drop", drop, most=MAX_DROP, seeds=_rounded([row["drop"] for row in ours]))
    return found


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


def _write_samples(folder: Path) -> Files:
    sys.path.append(str(REPOSITORY / "dags"))
    from example_models import digits_data

    (train, _), (test, labels) = digits_data.load("train"), digits_data.load("test")
    folder.mkdir(exist_ok=True)
    return Files(
        _samples.write(folder / "calibration.npz", {"images": train["images"][:256]}),
        _samples.write(folder / "test.npz", test),
        _samples.write(folder / "batch.npz", {"images": test["images"][:BATCH]}),
        labels,
    )


def _compressed(steps: Steps, number: int) -> Seed:
    factory = {"path": f"{_CODE}.digits_model:build_model"}
    code: dict[str, Any] = {"fit": _FIT, "data": _DATA, "seed": number}
    trained = steps.run("train", {"name": "digits", "factory": factory, "epochs": EPOCHS, **code})
    exported = steps.run("export", {}, model=trained["artifact"])
    asked = {"budget": {"max_drop": MAX_DROP}, "recovery_epochs": RECOVERY, **code}
    compressed = steps.run("autocompress", asked, model=trained["artifact"])
    optimized = steps.run(
        "optimize", {"data": _DATA, "batch_sizes": [1, BATCH]}, model=compressed["artifact"]
    )
    return Seed(
        number,
        files_of(trained["artifact"]),
        {
            "baseline": Contestant(model_of(exported), ({},)),
            OURS: Contestant(model_of(optimized), (settings_of(optimized),)),
        },
        json.loads((files_of(compressed["artifact"]) / "plan.json").read_bytes()),
    )


def _peers(folder: Path, seed: Seed, samples: Files) -> dict[str, Contestant]:
    say("digits: peers")
    names = list(_COULD_NOT)
    found = {}
    for kind, name in zip(("dynamic", "static", "nbits8"), names, strict=False):
        target = folder / f"ort-{kind}.onnx"
        python("_ort_quantizers", kind, seed.contestants["baseline"].path, target, samples.calibration)
        found[name] = Contestant(target)
    structure = seed.plan["structure"] or {}
    target = folder / "torch-pruning.onnx"
    more = {
        "ratio": structure.get("ratio", 0.7),
        "round-to": structure.get("round_to") or 8,
        "epochs": RECOVERY,
        "seed": seed.number,
    }
    options = [text for name, value in more.items() for text in (f"--{name}", str(value))]
    python("_torch_pruning", seed.trained, target, *options)
    found[names[-1]] = Contestant(target)
    return found


def _rows(running: Contest, seed: Seed, samples: Files) -> list[dict[str, Any]]:
    seconds = running.seconds(samples.batch)
    baseline = seed.contestants["baseline"].path.stat().st_size
    points = {name: _points(running.outputs(name, samples.test, BATCH), samples) for name in seconds}
    rows = []
    for name, contestant in seed.contestants.items():
        row = {
            "part": "digits",
            "name": name,
            "seed": seed.number,
            "bytes": contestant.path.stat().st_size,
            "size_ratio": round(contestant.path.stat().st_size / baseline, 5),
            "accuracy": round(points[name], 2),
            "drop": round(points["baseline"] - points[name], 3),
            "batch": BATCH,
            "batch_cpu_ms": round(1e3 * seconds[name], 4),
            "speedup": round(seconds["baseline"] / seconds[name], 3),
            "settings": list(contestant.settings),
        }
        if name == OURS:
            row |= _told(seed.plan)
        if name in _COULD_NOT:
            row["could_not"] = _COULD_NOT[name]
        rows.append(row)
    return rows


def _points(logits: np.ndarray, samples: Files) -> float:
    return 100 * float((logits.argmax(axis=1) == samples.labels).mean())


def _told(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "structure": plan["structure"],
        "formats": plan["formats"],
        "verified_drop": plan["verified"]["drop"],
        "candidates": [(one["name"], one["drop"], one["size_bytes"]) for one in plan["candidates"]],
    }
