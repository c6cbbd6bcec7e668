"""Plans as the planner writes them: a small CNN on digits, a sentence encoder, and the results of a run's stages."""

from __future__ import annotations

import random
from typing import Any

SHA = "sha256:"


def digits_plan() -> dict[str, Any]:
    """8 layers; 4 structures x 3 mixtures of formats = 12 candidates, one of them far too lossy."""
    sizes = {0: (968_159, 257_300, 240_100), 30: (459_000, 121_000, 118_000), 50: (269_000, 73_000, 71_000),
             70: (87_000, 26_100, 24_900)}  # fmt: skip
    speeds = {0: (0.0507, 0.0255, 0.0249), 30: (0.0337, 0.0212, 0.0209), 50: (0.0178, 0.0165, 0.0163),
              70: (0.0126, 0.0144, 0.0139)}  # fmt: skip
    drops = {0: (0.0, 0.0, 0.2), 30: (0.2, 0.2, 0.4), 50: (0.2, 0.2, 1.4), 70: (0.4, 0.6, 24.8)}
    formats = ("fp32", "int8-static", "int8-static with int4 weights")
    candidates = []
    for ratio, three in sizes.items():
        for place, size in enumerate(three):
            drop = drops[ratio][place]
            candidates.append({
                "name": f"channels {ratio} %, {formats[place]}" if ratio else f"whole, {formats[place]}",
                "size_bytes": size, "latency_ms": speeds[ratio][place], "quality": 0.996 - drop / 100,
                "drop": drop, "loss": 0.0011 * (1 + 9 * drop), "within_budget": drop <= 1.0,
                "chosen": ratio == 70 and place == 1,
            })  # fmt: skip
    layers = ["/features/0/Conv", "/features/3/Conv", "/features/7/Conv", "/features/10/Conv",
              "/features/13/Conv", "/head/1/Gemm", "/head/3/Gemm", "/head/5/Gemm"]  # fmt: skip
    generator = random.Random(3)
    sensitivity = [_layer(name, name.rsplit("/", 1)[1], 288 * 4**min(n, 4), 10 ** generator.uniform(-5, -2.4),
                          ("int8-static", "int8-weight", "int4-weight"), "int8-static" if n else "fp32")
                   for n, name in enumerate(layers)]  # fmt: skip
    return {
        "schema_version": 1, "model": "digits", "metric": "accuracy", "higher_is_better": True,
        "budget": {"max_drop": 1.0, "max_size_bytes": None, "max_latency_ms": 0.03},
        "structure": {"method": "channels", "ratio": 0.7, "norm": "l2", "round_to": 8, "recovery_epochs": 12},
        "formats": dict.fromkeys(layers[1:], "int8-static"),
        "predicted": {"loss": 0.0071, "size_bytes": 25_900, "latency_ms": 0.0139},
        "verified": {"loss": 0.0072, "quality": 0.99, "baseline_quality": 0.996, "drop": 0.6,
                     "size_bytes": 26_100, "latency_ms": 0.0144, "baseline_size_bytes": 968_159,
                     "baseline_latency_ms": 0.0507},
        "reason": "the smallest of 12 candidates that keeps the budget",
        "candidates": candidates, "sensitivity": sensitivity, "loss_name": "1 - mean cosine",
    }  # fmt: skip


def encoder_plan(blocks: int = 6) -> dict[str, Any]:
    """6 linear layers a block and an embedding, 3 formats, 15 candidates."""
    generator = random.Random(7)
    names = [(f"/encoder/layer.{block}/{part}/MatMul", elements) for block in range(blocks) for part, elements in (
        ("attention/self/query", 147_456), ("attention/self/key", 147_456), ("attention/self/value", 147_456),
        ("attention/output/dense", 147_456), ("intermediate/dense", 589_824), ("output/dense", 589_824),
    )]  # fmt: skip
    names.insert(0, ("/embeddings/word_embeddings/Gather", 11_720_448))
    sensitivity, formats = [], {}
    for name, elements in names:
        loss = 10 ** generator.uniform(-6.2, -3.3) * (8 if name.endswith("output/dense/MatMul") else 1)
        chosen = "fp32" if loss > 9e-4 else "int8-weight" if loss > 1.5e-4 else "int8-dynamic"
        sensitivity.append(_layer(name, name.rsplit("/", 1)[1], elements, loss,
                                  ("int8-dynamic", "int8-weight", "int4-weight"), chosen))  # fmt: skip
        if chosen != "fp32":
            formats[name] = chosen
    candidates = []
    for step in range(15):
        size = 90_900_000 * (1 - 0.052 * step)
        drop = 0.002 * 1.62**step  # points: hundredths of the cosine
        candidates.append({
            "name": f"the {step * 2} least sensitive of {len(names)} in int8" if step else "all fp32",
            "size_bytes": int(size), "latency_ms": 15.8 - 0.72 * step + generator.uniform(-0.4, 0.4),
            "quality": 1 - drop / 100, "drop": drop, "loss": drop * 0.0102, "within_budget": drop <= 1.0,
            "chosen": step == 12,
        })  # fmt: skip
    chosen = candidates[12]
    return {
        "schema_version": 1, "model": "sentence-encoder", "metric": "cosine",
        "higher_is_better": True, "budget": {"max_drop": 1.0, "max_size_bytes": 40_000_000, "max_latency_ms": None},
        "structure": None, "formats": formats,
        "predicted": {"loss": chosen["loss"] * 0.97, "size_bytes": 34_100_000, "latency_ms": 6.6},
        "verified": {"loss": chosen["loss"], "quality": chosen["quality"], "baseline_quality": 1.0,
                     "drop": chosen["drop"], "size_bytes": chosen["size_bytes"],
                     "latency_ms": chosen["latency_ms"], "baseline_size_bytes": 90_900_000,
                     "baseline_latency_ms": 15.8},
        "reason": "the fastest of 15 candidates that keeps the budget",
        "candidates": candidates, "sensitivity": sensitivity, "loss_name": "1 - mean cosine",
    }  # fmt: skip


def results(
    metric: str = "accuracy", before: float = 0.996, after: float = 0.99, plan: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """What the ten tasks of a run return, figures of one machine."""
    scored = {"metric": metric, "quality": before, "higher_is_better": metric != "perplexity", "samples": 500}
    less = {**scored, "quality": after}
    steps = (
        ("train_model", "train", 973_312, {**scored, "parameters": 241_898}, {}, {"epochs": 12}),
        ("compress_model", "prune", 150_063,
         {**less, "zero_fraction": 0.555, "zeros_before": 0, "zeros_after": 134_254, "compressed_bytes": 81_000},
         {}, {"method": "channels", **({"plan": plan} if plan else {})}),
        ("quantize_model", "quantize", 45_400,
         {**less, "model_bytes": 45_320, "compressed_bytes": 31_200, "zero_fraction": 0.555,
          "zeros_before": 134_254, "zeros_after": 134_254}, {"latency_ms": 0.0218}, {}),
        ("optimize_model", "optimize", 41_240, {**less, "model_bytes": 41_103}, {"latency_ms": 0.0228}, {}),
        ("build_model", "build", 57_471, {**less, "model_bytes": 41_103}, {}, {}),
        ("test_model", "test", 1003,
         {**less, "size_ratio": 23.55, "quality_ci": [after - 0.008, after + 0.006], "compressed_bytes": 27_900,
          "cosine": 0.9991, "cosine_ci": [0.9989, 0.9993], "agreement": 0.994},
         {"latency_ms": 1.58, "speedup": 7.67, "throughput": 114_463.5, "baseline_throughput": 14_917.6,
          "cpu_ms_p50": 0.0228, "baseline_cpu_ms_p50": 0.0583, "baseline_latency_ms": 1.66,
          "baseline_compressed_bytes": 880_400, "peak_memory_bytes": 77_991_936,
          "baseline_peak_memory_bytes": 81_100_800},
         {"baseline_bytes": 968_159, "model_bytes": 41_103, "baseline_quality": before, "gates": [
             {"name": f"max_drop({metric})", "found": 0.6, "wanted": 1.0, "passed": True, "sentence": "…"},
             {"name": "max_latency_ms", "found": 1.58, "wanted": 100.0, "passed": True, "sentence": "…"}]}),
        ("prepare_deployment", "prepare", 460, {}, {}, {"threads": 1, "target": "host"}),
        ("package_image", "package", 128_638, {"bundle_bytes": 126_217, "revision": "036beeca8867"},
         {"latency_ms": 1.7}, {"matched": 16}),
        ("deploy_model", "deploy", None, {}, {}, {"url": "http://127.0.0.1:8080", "golden": {
            "matched": 16, "total": 16, "max_abs_error": 1.879, "tolerance": 3.416}}),
        ("monitor_model", "monitor", None, {}, {"latency_ms": 3.14}, {"verdict": {
            "status": "healthy", "reasons": ["100 golden answers right, 0 errors in 100 requests"]}}),
    )  # fmt: skip
    return {
        name: {
            "step": step, "name": "digits", "parent": SHA + f"{place - 1:x}" * 64 if place else None,
            "artifact": {"uri": "file:///store", "digest": SHA + f"{place:x}" * 64} if size else None,
            "size_bytes": size, "metrics": metrics, "measurements": measured, "details": details,
            "duration_s": 1.5 + place, "cached": place == 1,
        }
        for place, (name, step, size, metrics, measured, details) in enumerate(steps)
    }  # fmt: skip


def _layer(
    name: str, op: str, elements: int, loss: float, formats: tuple[str, ...], chosen: str
) -> dict[str, Any]:
    bytes_of = {"int8": 1.0, "int4": 0.55}
    factors = (1.0, 0.25, 6.0) if formats[0] == "int8-dynamic" else (1.0, 0.4, 9.0)
    return {
        "layer": name, "op": op, "elements": elements,
        "losses": {key: loss * factor for key, factor in zip(formats, factors, strict=True)},
        "milliseconds": {"fp32": elements * 1.4e-6, **dict.fromkeys(formats, elements * 5e-07)},
        "bytes": {"fp32": 4 * elements, **{key: int(elements * bytes_of[key[:4]]) for key in formats}},
        "chosen": chosen,
    }  # fmt: skip
