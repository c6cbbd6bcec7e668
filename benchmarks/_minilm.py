"""A sentence embedder (all-MiniLM-L6-v2) compressed to three budgets, beside ONNX Runtime's tools and NNCF."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _samples, _sentences
from benchmarks._claims import Found
from benchmarks._contest import Contestant, contest
from benchmarks._environments import NNCF, minilm, venv
from benchmarks._steps import Steps, files_of, model_of, python, run_json, say, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from benchmarks._contest import Contest

LENGTH, PLANNING_LENGTH = 128, 64
# What is lost at most, in points of cosine: the budget -> the cosine that it leaves.
BUDGETS = {1.0: 0.99, 0.3: 0.997, 0.2: 0.998}
_PADDED = "a real held-out sentence padded to 128, as a service with fixed padding sees it"
_FULL = "128 real tokens"
_COULD_NOT = {
    "onnxruntime quantize_dynamic": "take a budget: every layer gets the same format, whatever it loses",
    "onnxruntime quantize_static": "tell which layers bear it: all kinds of nodes are quantized by default",
    "onnxruntime MatMulNBits 8 bit": "make the embedding smaller, and so the file; keep int8's speed at 128 tokens",
    "onnxruntime MatMulNBits 4 bit": "make the embedding smaller, and so the file; keep int8's speed at 128 tokens",
    "nncf SmoothQuant static int8": "keep the embedding in 8 bits: each request makes all of it fp32; keep a budget",
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Files of token arrays.

    Args:
        folder: of all of them.
        padded: one request: `_PADDED`.
        full: one request: `_FULL`.
        held_out: the sentences that plans are verified on, padded to 128.
        unseen: sentences that neither plans nor their verification have seen.
    """

    folder: Path
    padded: Path
    full: Path
    held_out: Path
    unseen: Path


def measure(folder: Path, *, quick: bool) -> Found:
    """Compress, quantize by the peers, time all of them in turns, compare their answers with the baseline's."""
    found, steps, model = Found(), Steps(folder / "steps"), minilm()
    samples = _write_samples(folder, model, quick=quick)
    say("minilm: baseline")
    ingested = steps.run("ingest", {"name": "minilm", "source": str(model), "task": "embedding"})
    baseline = model_of(steps.run("export", {}, model=ingested["artifact"]))
    contestants = {"baseline": Contestant(baseline, ({},))}
    plans = {}
    for drop in [1.0] if quick else BUDGETS:
        name = f"ours, cosine >= {BUDGETS[drop]}"
        say(f"minilm: {name}")
        plans[name], contestants[name] = _ours(steps, samples, ingested, drop, quick=quick)
    contestants |= _peers(folder, baseline)
    say(f"minilm: {len(contestants)} contestants in turns")
    with contest(contestants, folder, quick=quick) as running:
        rows = _rows(running, contestants, plans, samples)
    found.rows.extend(rows.values())
    _claims(found, rows, plans)
    return found


def _write_samples(folder: Path, model: Path, *, quick: bool) -> Files:
    texts = _sentences.sentences()
    planning, held_out = (24, 32) if quick else (48, 96)
    parts = {
        "planning": (texts[:planning], PLANNING_LENGTH),
        "verification": (texts[planning : planning + held_out], PLANNING_LENGTH),
        "held_out": (texts[planning : planning + held_out], LENGTH),
        "unseen": (texts[planning + held_out :][:held_out], LENGTH),
    }
    by_length = sorted(parts["held_out"][0], key=len)
    parts["padded"] = ([by_length[len(by_length) // 2]], LENGTH)  # the median of them
    parts["full"] = ([" ".join(by_length)], LENGTH)
    written = {
        name: _samples.write(folder / f"{name}.npz", _sentences.tokens(model, *part))
        for name, part in parts.items()
    }
    return Files(folder, written["padded"], written["full"], written["held_out"], written["unseen"])


def _ours(
    steps: Steps, samples: Files, ingested: dict[str, Any], drop: float, *, quick: bool
) -> tuple[dict[str, Any], Contestant]:
    """The plan for a budget, and what the step `optimize` makes of its outcome, in the settings that it chose."""
    spec: dict[str, Any] = {
        "data": _data(samples, "verification"),
        "metric": "cosine",
        "budget": {"max_drop": drop},
        "objective": "latency",
        "planning_samples": 24 if quick else 48,
    }
    compressed = steps.run("autocompress", spec, model=ingested["artifact"])
    asked = {"data": _data(samples, "held_out"), "metric": "cosine", "batch_sizes": [1]}
    optimized = steps.run("optimize", asked, model=compressed["artifact"])
    plan = json.loads((files_of(compressed["artifact"]) / "plan.json").read_bytes())
    return plan, Contestant(model_of(optimized), (settings_of(optimized),))


def _data(samples: Files, test: str) -> dict[str, Any]:
    files = {"train": "planning.npz", "test": f"{test}.npz"}
    return {
        "loader": {"path": "_samples:load", "options": {"folder": str(samples.folder), "files": files}},
        "version": "1",
    }


def _peers(folder: Path, baseline: Path) -> dict[str, Contestant]:
    """The peers' files, made on the same samples; ONNX Runtime's run in ours, NNCF's in its own venv."""
    say("minilm: peers")
    kinds = dict(zip(("dynamic", "static", "nbits8", "nbits4"), _COULD_NOT, strict=False))
    found = {}
    for kind, name in kinds.items():
        target = folder / f"ort-{kind}.onnx"
        python("_ort_quantizers", kind, baseline, target, folder / "planning.npz")
        found[name] = Contestant(target)
    interpreter, target = venv("nncf", NNCF), folder / "nncf.onnx"
    script = str(Path(__file__).with_name("_nncf_quantizer.py"))
    run_json([str(interpreter), script, str(baseline), str(target), str(folder / "planning.npz")])
    found["nncf SmoothQuant static int8"] = Contestant(target, python=interpreter)
    return found


def _rows(
    running: Contest,
    contestants: Mapping[str, Contestant],
    plans: Mapping[str, dict[str, Any]],
    samples: Files,
) -> dict[str, dict[str, Any]]:
    padded, full = running.seconds(samples.padded), running.seconds(samples.full)
    want = {part: running.outputs("baseline", part, 1) for part in (samples.held_out, samples.unseen)}
    base = contestants["baseline"].path.stat().st_size
    rows = {}
    for name, contestant in contestants.items():
        size = contestant.path.stat().st_size
        cosines = {part.stem: _cosine(want[part], running.outputs(name, part, 1)) for part in want}
        rows[name] = {
            "part": "minilm",
            "name": name,
            "bytes": size,
            "size_ratio": round(size / base, 4),
            "cosine_held_out": round(cosines["held_out"], 5),
            "cosine_unseen": round(cosines["unseen"], 5),
            "padded_cpu_ms": round(1e3 * padded[name], 3),
            "padded_ratio": round(padded[name] / padded["baseline"], 4),
            "padded_is": _PADDED,
            "full_cpu_ms": round(1e3 * full[name], 3),
            "full_ratio": round(full[name] / full["baseline"], 4),
            "full_is": _FULL,
            "settings": list(contestant.settings),
        }
        if name in plans:
            rows[name] |= _told(plans[name])
        if name in _COULD_NOT:
            rows[name]["could_not"] = _COULD_NOT[name]
    return rows


def _cosine(wanted: np.ndarray, found: np.ndarray) -> float:
    """Mean cosine of rows, in double precision."""
    import numpy as np

    a, b = wanted.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).mean())


def _told(plan: dict[str, Any]) -> dict[str, Any]:
    """What a row says of its plan."""
    formats: dict[str, int] = {}
    for wanted in plan["formats"].values():
        formats[wanted] = formats.get(wanted, 0) + 1
    verified, predicted = plan["verified"], plan["predicted"]
    return {
        "layers": formats,
        "predicted_loss": predicted["loss"],
        "verified_loss": verified["loss"],
        "verified_loss_held_out": verified["loss_held_out"],
        "verified_cosine": verified["quality"],
        "candidates": [(one["name"], one["drop"], one["loss"]) for one in plan["candidates"]],
    }


def _claims(found: Found, rows: Mapping[str, dict[str, Any]], plans: Mapping[str, dict[str, Any]]) -> None:
    bounds = {0.99: ("minilm_099", 0.27, 0.38), 0.998: ("minilm_0998", 0.28, 0.60)}
    for cosine, (name, size, latency) in bounds.items():
        row = rows.get(f"ours, cosine >= {cosine}")
        if row is not None:
            kept = min(row["cosine_held_out"], row["verified_cosine"])
            more = {"given": kept >= cosine, "cosine": round(kept, 5)}
            found.claim(f"{name}_size", row["size_ratio"], most=size, **more)
            full = {"value_of_128_real_tokens": row["full_ratio"]}
            found.claim(f"{name}_latency", row["padded_ratio"], most=latency, **more, **full)
    ours, theirs = rows.get("ours, cosine >= 0.997"), rows["nncf SmoothQuant static int8"]
    if ours is not None:
        kept = min(ours["cosine_held_out"], ours["verified_cosine"])
        ratio = theirs["padded_cpu_ms"] / ours["padded_cpu_ms"]
        told = {"cosine": round(kept, 5), "cosine_nncf": theirs["cosine_held_out"]}
        found.claim("minilm_vs_nncf", ratio, least=1.6, given=kept >= 0.997, **told)
    for name, loss, bound in (("", "loss", 0.10), ("_held_out", "loss_held_out", 0.25)):
        errors = {
            plan: abs(value["predicted"]["loss"] / value["verified"][loss] - 1)
            for plan, value in plans.items()
        }
        found.claim(f"plan_prediction{name}", max(errors.values()), most=bound)
