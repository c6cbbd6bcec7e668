from __future__ import annotations

import copy
import json
import re
import sys
from html.parser import HTMLParser
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from airflow_model_deploy.engine.artifacts import Description, Store
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.steps.report import plan_of_run, report_of_run, write_run_report
from tests.engine.reporting.plans import digits_plan, encoder_plan, results

if TYPE_CHECKING:
    from pathlib import Path


class _Page(HTMLParser):
    """The text outside plots, the text of each plot with what a screen reader says of it, and the tables' rows."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.plots, self.labels = "", [], [], []  # type: ignore[var-annotated]
        self.rows: list[list[str]] = []
        self._inside, self._cell = False, False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "svg":
            self._inside = True
            self.plots.append("")
            self.labels.append(dict(attrs).get("aria-label"))
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "svg"
        self._cell = self._cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.plots[-1] += data
            return
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data.strip()

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == name)


def _page(
    tmp_path: Path,
    plan: dict[str, Any] | None,
    *,
    plots: bool = False,  # they take most of a test's time
    stages: dict[str, dict[str, Any]] | None = None,
    **changes: Any,
) -> _Page:
    report = report_of_run(stages or results(**changes), run_id="r", plan=plan)
    with pytest.MonkeyPatch.context() as patch:
        if not plots:
            patch.setitem(sys.modules, "matplotlib", None)
        write_run_report(report, tmp_path)
    return _Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> _Page:
    return _page(tmp_path_factory.mktemp("digits"), digits_plan(), plots=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> _Page:
    return _page(
        tmp_path_factory.mktemp("encoder"),
        encoder_plan(blocks=8),
        plots=True,
        metric="cosine",
        before=1.0,
        after=0.9935,
    )


def test_the_chosen_candidate_is_named_and_told_apart_without_colour(digits: _Page) -> None:
    chosen = digits.row("2 · channels 70 %, int8-static")
    assert chosen[1:] == ["26.1 kB", "0.0144 ms", "99.00 %", "0.60 points", "0.00704", "✓ within · ◆ chosen"]
    assert sum("◆" in cell for row in digits.rows for cell in row) == 1
    for plot, label in zip(digits.plots, digits.labels, strict=True):
        if "budget: 1.00 point" in plot:
            assert "2 chosen" in plot
            assert (
                "channels 70 %, int8-static 26.1 kB, lost 0.60 points, within the budget, chosen" in label
                or ("0.0144 ms, lost 0.60 points, within the budget, chosen" in label)
            )
    assert sum("budget: 1.00 point" in plot for plot in digits.plots) == 2
    assert sum("budget: 0.03 ms" in plot for plot in digits.plots) == 1  # only where latency is the axis


def test_why_this_model_is_told_in_words(digits: _Page) -> None:
    for words in (
        "Chosen: the smallest of 12 candidates that keeps the budget.",
        "at most 1.00 point of accuracy lost and at most 0.03 ms",
        "Channels: 70 % removed, the least important by their l2 norm, kept in multiples of 8, 12 epochs of recovery.",
        "8 layers: 7 int8-static and 1 fp32.",
        "The verified model keeps the budget.",
    ):
        assert words in digits.text, words
    assert "The predicted loss is 1.4\N{NO-BREAK SPACE}% below the verified one." in digits.text
    assert digits.row("1 - mean cosine") == ["1 - mean cosine", "–", "0.0071", "0.0072", "–"]
    assert digits.row("Accuracy lost")[3:] == ["0.60 points", "1.00 point"]


def test_a_candidate_that_loses_far_too_much_does_not_flatten_the_others(digits: _Page) -> None:
    assert "△ loses more than the axis shows (1)" in digits.text
    sizes = next(plot for plot in digits.plots if "size" in plot and "budget" in plot)
    assert "24" not in re.findall(r"[\d.]+", sizes)  # the axis ends at three times the budget
    assert "24.80 points" in digits.row("1 · channels 70 %, int8-static with int4 weights")


def test_every_number_of_a_candidate_is_in_both_plots(encoder: _Page) -> None:
    plots = [plot for plot in encoder.plots if "budget: 1.00 point" in plot]
    assert len(plots) == 2
    for plot in plots:
        words = plot.split()
        assert {str(number) for number in range(1, 16)} <= set(words)


def test_of_many_layers_the_most_sensitive_are_drawn_and_all_are_listed(encoder: _Page) -> None:
    plan = encoder_plan(blocks=8)
    total = len(plan["sensitivity"])
    assert total == 49
    assert "The 40 most sensitive of 49 layers" in encoder.text
    assert "All 49 layers as a table" in encoder.text
    ranked = sorted(plan["sensitivity"], key=lambda layer: -max(layer["losses"].values()))
    label = next(label for label in encoder.labels if label.startswith("What each layer"))
    drawn = label.removeprefix("What each layer is sensitive to: ").split("; ")
    assert [entry.partition(":")[0] for entry in drawn] == [layer["layer"] for layer in ranked[:40]]
    for layer in plan["sensitivity"]:
        assert encoder.row(layer["layer"])[-1] == layer["chosen"]


def test_losses_of_nothing_and_unknown_formats_are_drawn(tmp_path: Path) -> None:
    plan = digits_plan()
    plan["sensitivity"][0]["losses"] = {"int8-static": 0.0, "int2-odd": 0.5, "fp8": None}
    plan["candidates"] = []
    page = _page(tmp_path, plan, plots=True)
    assert "At the left edge: no loss was measured." in page.text
    assert "☆ int2-odd" in page.text


@pytest.mark.parametrize("chosen_only", [False, True])
def test_what_a_result_tells_of_a_plan_is_enough_for_all_but_the_layers(
    tmp_path: Path, chosen_only: bool
) -> None:
    plan = digits_plan()
    short = {key: value for key, value in plan.items() if key not in ("formats", "sensitivity")}
    short["layers"] = {"int8-static": 7, "fp32": 1}
    if chosen_only:
        short["candidates"] = [c for c in short["candidates"] if c["chosen"]]
    page = _page(tmp_path, None, plots=True, stages=results(plan=short))
    assert "8 layers: 7 int8-static and 1 fp32." in page.text
    assert "sensitive to" not in page.text
    assert "details" not in page.tags
    assert ("Size and loss" in page.text) is not chosen_only  # one candidate is no trade-off


def test_without_a_plan_there_is_no_section_of_it(tmp_path: Path) -> None:
    page = _page(tmp_path, None)
    for words in ("Why this model", "Candidates", "sensitive", "Asked for", "Promise"):
        assert words not in page.text, words


def test_a_plan_of_reason_alone_leaves_no_empty_tables(tmp_path: Path) -> None:
    page = _page(tmp_path, {"reason": "nothing fits; this loses least"})
    assert "Chosen: nothing fits; this loses least." in page.text
    assert "no limit was set" in page.text
    assert "Candidates" not in page.text
    assert "Promise" not in page.text


def test_a_broken_budget_is_not_called_kept(tmp_path: Path) -> None:
    plan = digits_plan()
    plan["verified"]["latency_ms"] = 0.031
    assert "The verified model does not keep the budget." in _page(tmp_path, plan).text
    plan["verified"]["latency_ms"] = None
    assert (
        "keep"
        not in _page(tmp_path, plan | {"reason": None}).text.partition("Outcome")[2].partition("Before")[0]
    )


def test_names_in_a_plan_are_text_not_markup(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    plan = digits_plan()
    plan |= {"reason": evil, "loss_name": evil, "metric": evil, "structure": {"method": evil, evil: evil}}
    plan["candidates"][3] |= {"name": evil, "chosen": True}
    plan["sensitivity"][2] |= {"layer": evil, "op": evil, "chosen": evil, "losses": {evil: 0.1}}
    page = _page(tmp_path, plan, plots=True)
    assert "script" not in page.tags
    assert page.text.count("alert(1)") >= 10
    assert any("alert(1)" in label for label in page.labels)


def test_without_matplotlib_the_plan_is_told_in_tables(tmp_path: Path) -> None:
    page = _page(tmp_path, digits_plan())
    assert "svg" not in page.tags
    assert "No plots: matplotlib can't be imported" in page.text
    assert "◆ chosen" in page.text
    assert page.row("/head/1/Gemm")[-1] == "int8-static"


@pytest.mark.parametrize(
    ("metric", "before", "after", "words"),
    [
        (
            "accuracy",
            0.996,
            0.99,
            ("Accuracy", "99.00 %", "0.60", "points of accuracy lost", "98.20 to 99.60 %"),
        ),
        ("cosine", 1.0, 0.9935, ("Cosine", "0.9935", "0.65", "points of cosine lost", "0.9855 to 0.9995")),
        (
            "perplexity",
            23.412,
            24.01,
            ("Perplexity", "24.01", "0.598", "higher perplexity"),
        ),
        ("recall_at_ten", 0.9, 0.95, ("Recall at ten", "95.00 %", "recall at ten gained")),
    ],
)
def test_quality_is_told_by_the_kind_of_metric(
    tmp_path: Path, metric: str, before: float, after: float, words: tuple[str, ...]
) -> None:
    page = _page(tmp_path, None, metric=metric, before=before, after=after)
    for word in words:
        assert word in page.text, word
    assert "nan" not in page.text.lower()


def test_zeros_and_compressed_sizes_are_told_where_stages_count_them(digits: _Page) -> None:
    head = digits.row("Stage")
    assert {"After zlib", "Zero weights"} <= set(head)
    thousand = "134\N{NARROW NO-BREAK SPACE}254"
    row = digits.row("quantize_model")
    assert row[head.index("Zero weights")] == f"55.50 %{thousand} → {thousand}"
    assert row[head.index("After zlib")] == "31.2 kB"
    assert digits.row("Size after zlib") == ["Size after zlib", "880 kB", "27.9 kB", "31.6× smaller"]
    assert digits.row("Latency of a request")[1:] == ["1.66 ms", "1.58 ms", "1.05× faster"]


def test_columns_that_nothing_is_known_for_are_left_out(tmp_path: Path) -> None:
    stages = results()
    for stage in stages.values():
        for key in ("zero_fraction", "zeros_before", "zeros_after", "compressed_bytes", "quality_ci"):
            stage["metrics"].pop(key, None)
    page = _page(tmp_path, None, stages=stages)
    assert "Zero weights" not in page.text
    assert "zlib" not in page.text
    assert "confidence" not in page.text


def test_lost_zeros_are_marked(tmp_path: Path) -> None:
    stages = results()
    stages["quantize_model"]["metrics"]["zeros_after"] = 12
    _page(tmp_path, None, stages=stages)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert source.count('<small class="no">134') == 1


def test_the_machine_is_told_as_the_test_recorded_it_else_as_it_is_here() -> None:
    stages = results()
    here = report_of_run(stages, run_id="r")["environment"]
    assert here["threads"] == 1
    assert here["cpus"] >= 1
    assert here["versions"]["onnxruntime"] not in ("", "?")
    stages["test_model"]["details"]["environment"] = {"cpu": "Elsewhere 9000", "threads": 4}
    there = report_of_run(stages, run_id="r")["environment"]
    assert (there["cpu"], there["threads"], there["versions"]) == ("Elsewhere 9000", 4, here["versions"])


def _schema() -> dict[str, Any]:
    path = resources.files("airflow_model_deploy.engine.reporting") / "resources" / "report.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


@pytest.mark.parametrize("plan", [None, digits_plan(), encoder_plan(), {"reason": "one"}])
def test_the_json_keeps_its_schema_and_holds_what_the_page_shows(
    tmp_path: Path, plan: dict[str, Any] | None
) -> None:
    jsonschema.Draft202012Validator.check_schema(_schema())
    page = _page(tmp_path, plan)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, _schema())
    assert report["schema_version"] == 3
    for candidate in report["plan"]["candidates"] if plan else ():
        assert f"{candidate['number']} · {candidate['name']}" in page.text


def test_the_schema_has_teeth() -> None:
    report = report_of_run(results(), run_id="r", plan=digits_plan())
    for break_it in (
        lambda r: r.update(schema_version=1),
        lambda r: r["stages"][0].update(colour="red"),
        lambda r: r["plan"]["candidates"][0].pop("drop"),
        lambda r: r["compression"].update(quality_ci=[0.1]),
    ):
        broken = copy.deepcopy(report)
        break_it(broken)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, _schema())


def test_where_less_is_better_the_plot_says_so(tmp_path: Path) -> None:
    page = _page(tmp_path, None, plots=True, metric="perplexity", before=23.412, after=24.01)
    assert "further to the left is better" in page.text
    assert any(label.startswith("Perplexity: train_model 23.41; ") for label in page.labels)


def test_figures_that_are_not_finite_become_null(tmp_path: Path) -> None:
    plan = digits_plan()
    plan["candidates"][0] |= {"loss": float("nan"), "drop": float("inf")}
    plan["verified"]["loss"] = float("nan")
    stages = results()
    stages["train_model"]["metrics"]["quality"] = float("nan")
    _page(tmp_path, plan, stages=stages)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert report["plan"]["verified"]["loss"] is None
    assert report["stages"][0]["quality"] is None


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("formats", ["int8"]),
        ("candidates", {"a": 1}),
        ("sensitivity", [1]),
        ("verified", {"loss": "small"}),
        ("budget", {"max_drop": True}),
    ],
)
def test_a_plan_of_wrong_types_is_refused_by_name(part: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"the plan's {part}") as caught:
        report_of_run(results(), run_id="r", plan=digits_plan() | {part: value})
    assert "plan.json" in str(caught.value)


def test_the_full_plan_is_read_from_the_artifact_of_the_stage_that_tells_of_it(tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path / "store")), tmp_path / "made"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(encoder_plan()))
    reference, _ = store.publish(folder, Description(name="m", kind="model", format="onnx"))
    stages = results(plan={"reason": "the fastest"})
    assert plan_of_run(results(), store) is None
    stages["compress_model"]["artifact"] = reference.to_json()
    assert plan_of_run(stages, store) == encoder_plan()

    (folder / "plan.json").rename(folder / "other.json")
    reference, _ = store.publish(folder, Description(name="m", kind="model", format="onnx"))
    stages["compress_model"]["artifact"] = reference.to_json()
    with pytest.raises(IntegrityError, match="tells of a plan"):
        plan_of_run(stages, store)


def test_the_same_plan_gives_the_same_page_which_fetches_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        report = report_of_run(results(), run_id="r", plan=encoder_plan(blocks=2))
        write_run_report(report, tmp_path / name)
    source = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert source == (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)", source) == []
    assert "@import" not in source
    assert not re.search(r'(src|href)="(?!#)', source)
    assert len(source) < 150_000
