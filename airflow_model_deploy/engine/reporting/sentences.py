"""What the figures mean, in sentences; works out nothing that the report doesn't hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.reporting import wording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Sequence[dict[str, Any]]

_STRUCTURE: dict[str, Callable[[Any], str]] = {
    "ratio": lambda value: f"{value * 100:.0f} % removed",
    "norm": lambda value: f"the least important by their {value} norm",
    "round_to": lambda value: f"kept in multiples of {value}",
    "recovery_epochs": lambda value: f"{value} epochs of recovery",
}


def of_run(report: dict[str, Any]) -> list[str]:
    """The run in a few sentences, those that its figures are there for."""
    part, found = report["compression"], []
    before, after = part["before"]["size_bytes"], part["after"]["size_bytes"]
    if before is not None and after is not None:
        which = "serves" if report["served"] else "was built"
        found.append(
            f"The model that {which} is {wording.size(after)};"
            f" its export before compression was {wording.size(before)}."
        )
    if report["metric"] and part["quality"] is not None and part["baseline_quality"] is not None:
        found.append(_of_loss(part, report["metric"]["name"]))
    if part["cosine"] is not None:
        found.append(
            f"Its answers have a mean cosine of {wording.quality(part['cosine'], 'cosine')} with the original's"
            + (
                f"; for {wording.percent(part['agreement'])} of the samples the largest score is the same."
                if part["agreement"] is not None
                else "."
            )
        )
    gates = report["gates"]
    if gates:
        passed = sum(bool(gate["passed"]) for gate in gates)
        found.append(f"{passed} of {len(gates)} gates passed before it got any traffic.")
    return found


def of_gaps(report: dict[str, Any]) -> str | None:
    """What the run has no result of; None where nothing is missing."""
    known = report["compression"]
    missing = [
        name
        for name, there in (
            (
                "test",
                bool(report["gates"]) or known["quality"] is not None or known["size_ratio"] is not None,
            ),
            ("deployment", report["served"] is not None),
            ("monitoring", report["verdict"] is not None),
        )
        if not there
    ]
    return f"This run has no result of its {wording.listed(missing)}." if missing else None


def _of_loss(part: dict[str, Any], metric: str) -> str:
    after, before = (
        wording.quality(part["quality"], metric),
        wording.quality(part["baseline_quality"], metric),
    )
    sure = [
        f"{what} {spread}"
        for what, spread in (
            ("it is", wording.interval(part["quality_ci"], metric)),
            ("the loss is", wording.loss_interval(part["drop_ci"], metric)),
        )
        if spread
    ]
    return f"On held-out data its {wording.words(metric)} is {after}; before it was {before}." + (
        f" With 95 % confidence {wording.listed(sure)}." if sure else ""
    )


def before_and_after(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, before, after, and the change in words: the rows that have a figure on both sides."""
    before, after = report["compression"]["before"], report["compression"]["after"]
    kinds: tuple[tuple[str, str, Callable[[float | None], str], str, str], ...] = (
        ("Size", "size_bytes", wording.size, "smaller", "larger"),
        ("Size after zlib", "compressed_bytes", wording.size, "smaller", "larger"),
        ("Throughput, batch 64, one thread", "throughput_per_s", wording.rate, "less", "more"),
        ("CPU time of one sample", "cpu_ms", wording.milliseconds, "faster", "slower"),
        ("Latency of a request", "latency_ms", wording.milliseconds, "faster", "slower"),
        ("Peak memory of the server", "peak_memory_bytes", wording.size, "less", "more"),
    )
    return [
        (
            name,
            say(before[key]),
            say(after[key]),
            " ".join(wording.factor(before[key] / after[key], better, worse)),
        )
        for name, key, say, better, worse in kinds
        if before[key] and after[key]
    ]


def of_sizes(rows: Rows) -> str:
    """What the chart of sizes shows."""
    models = [row for row in rows if row["size_of"] == "model"]
    note = "The stored model after each stage: shorter is better."
    if len(models) > 1 and models[-1]["size_bytes"]:
        figure, word = wording.factor(models[0]["size_bytes"] / models[-1]["size_bytes"], "smaller", "larger")
        note += f" The last is {figure} {word} than the first."
    if any(row["compressed_bytes"] for row in rows):
        note += " The thin bar is the file after zlib, as it travels."
    return note


def of_quality(rows: Rows, metric: dict[str, Any]) -> str:
    """What the chart of the metric shows."""
    better = "right" if metric["higher_is_better"] else "left"
    note = (
        f"On held-out data: further to the {better} is better. The axis is zoomed in; it doesn't start at 0."
    )
    if any(row["quality_ci"] for row in rows):
        note += " A thick line is the 95 % confidence interval: losses inside it may be chance."
    return note


def of_latency(kind: str) -> str:
    """What a chart of latencies shows: of the "model" alone, or of a "request"."""
    if kind == "model":
        return "One sample through the model alone, in CPU time: shorter is better."
    return "One sample to the model's server and back, the median: shorter is better."


def of_times(rows: Rows) -> str:
    """What the chart of stages' durations shows."""
    total = wording.seconds(sum(row["duration_s"] for row in rows))
    note = f"Wall clock of each stage, {total} in all."
    return note + (
        " Hollow bars were found in the store, not computed." if any(r["cached"] for r in rows) else ""
    )


# -- the plan ------------------------------------------------------------------------------------------------


def of_budget(plan: dict[str, Any]) -> str:
    """What was asked for."""
    budget, metric = plan["budget"], plan["metric"]
    asked = []
    if budget["max_drop"] is not None:
        asked.append(f"at most {wording.drop(budget['max_drop'], metric)} of {wording.words(metric)} lost")
    if budget["max_size_bytes"] is not None:
        asked.append(f"at most {wording.size(budget['max_size_bytes'])}")
    if budget["max_latency_ms"] is not None:
        asked.append(f"at most {wording.milliseconds(budget['max_latency_ms'])}")
    return wording.listed(asked) or "no limit was set"


def of_structure(plan: dict[str, Any]) -> str:
    """What was removed."""
    structure = plan["structure"]
    if not structure or structure.get("method") in (None, "none"):
        return "Nothing was removed: every layer keeps its shape."
    parts = [
        _STRUCTURE[name](value) if name in _STRUCTURE and _is_number_or(value, name) else f"{name} {value}"
        for name, value in structure.items()
        if name != "method" and value is not None
    ]
    method = str(structure["method"])
    return ": ".join(filter(None, [wording.title(method), ", ".join(parts)])) + "."


def of_layers(plan: dict[str, Any]) -> str:
    """Which formats the layers got."""
    layers = plan["layers"]
    if not layers:
        return "All layers stay in fp32."
    total = sum(layers.values())
    return (
        f"{total} {'layer' if total == 1 else 'layers'}: "
        + wording.listed([f"{count} {name}" for name, count in layers.items()])
        + "."
    )


def promised(plan: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Name, before, predicted, verified, budget: the rows that have a figure."""
    found, predicted, budget, metric = plan["verified"], plan["predicted"], plan["budget"], plan["metric"]

    def lost(value: float | None) -> str:
        return wording.drop(value, metric)

    def measured(value: float | None) -> str:
        return wording.quality(value, metric)

    none = None
    rows: tuple[tuple[str, Callable[[float | None], str], tuple[float | None, ...]], ...] = (
        (wording.words(metric), measured, (found["baseline_quality"], none, found["quality"], none)),
        (f"{wording.words(metric)} lost", lost, (none, none, found["drop"], budget["max_drop"])),
        (plan["loss_name"], wording.number, (none, predicted["loss"], found["loss"], none)),
        (
            "size",
            wording.size,
            (
                found["baseline_size_bytes"],
                predicted["size_bytes"],
                found["size_bytes"],
                budget["max_size_bytes"],
            ),
        ),
        (
            "latency",
            wording.milliseconds,
            (
                found["baseline_latency_ms"],
                predicted["latency_ms"],
                found["latency_ms"],
                budget["max_latency_ms"],
            ),
        ),
    )
    return [
        (wording.title(name), *(say(value) for value in values))  # type: ignore[misc]
        for name, say, values in rows
        if any(value is not None for value in values)
    ]


def of_outcome(plan: dict[str, Any]) -> str | None:
    """Whether the verified model keeps the budget."""
    pairs = (("drop", "max_drop"), ("size_bytes", "max_size_bytes"), ("latency_ms", "max_latency_ms"))
    limits = [(plan["verified"][found], plan["budget"][limit]) for found, limit in pairs]
    judged = [(found, limit) for found, limit in limits if found is not None and limit is not None]
    if not judged or len(judged) < sum(limit is not None for _, limit in limits):
        return None
    kept = all(found <= limit + 1e-9 * max(1.0, abs(limit)) for found, limit in judged)
    return "The verified model keeps the budget." if kept else "The verified model does not keep the budget."


def of_prediction(plan: dict[str, Any]) -> str | None:
    """How far the predicted loss was off."""
    predicted, verified = plan["predicted"]["loss"], plan["verified"]["loss"]
    if predicted is None or not verified:
        return None
    share, side = abs(predicted / verified - 1), "below" if predicted < verified else "above"
    return f"The predicted loss is {share * 100:.1f}\N{NO-BREAK SPACE}% {side} the verified one."


def _is_number_or(value: Any, name: str) -> bool:
    return name == "norm" or (isinstance(value, int | float) and not isinstance(value, bool))
