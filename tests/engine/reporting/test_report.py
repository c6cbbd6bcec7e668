from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.reporting import build_report, wording, write_html

if TYPE_CHECKING:
    from pathlib import Path

STAGES: list[dict[str, Any]] = [
    {"stage": "train", "digest": "sha256:" + "1" * 64, "size_bytes": 1_060_000, "quality": 0.9806,
     "latency_ms": 0.212, "duration_s": 41.2, "cached": True},
    {"stage": "quantize", "digest": "sha256:" + "2" * 64, "parent": "sha256:" + "1" * 64,
     "size_bytes": 118_000, "quality": 0.9778, "latency_ms": 0.071, "duration_s": 6.3, "cached": False},
    {"stage": "deploy", "parent": "sha256:" + "2" * 64, "duration_s": 4.8},
]  # fmt: skip
PARTS: dict[str, Any] = {
    "compression": {"size_ratio": 8.98, "speedup": 2.99, "drop": 0.28},
    "metric": "accuracy",
    "served": {
        "golden_requests": 16,
        "matched": 16,
        "max_abs_error": 0.02,
        "tolerance": 0.06,
        "url": "http://h",
    },
    "verdict": {"status": "healthy", "reasons": ["60 golden answers right"]},
}


class _Page(HTMLParser):
    """Text, and every address that a browser would fetch."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.fetched, self.tags = "", [], []  # type: ignore[var-annotated]
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            local = (value or "").startswith("#")
            if name in {"src", "href", "srcset", "xlink:href"} and not local:
                self.fetched.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(tmp_path: Path, **changes: Any) -> _Page:
    stages = changes.pop("stages", STAGES)
    write_html(build_report(stages, **(PARTS | changes)), tmp_path / "r.html")
    return _Page((tmp_path / "r.html").read_text())


def test_the_report_is_json_with_null_where_nothing_is_known() -> None:
    report = build_report(STAGES, **PARTS)
    assert json.loads(json.dumps(report)) == report
    assert report["stages"][2]["quality"] is None
    assert [stage["accuracy"] for stage in report["stages"]] == [0.9806, 0.9778, None]
    assert report["compression"]["accuracy_drop_points"] == 0.28
    assert report["plan"] is None
    assert report["verdict"]["status"] == "healthy"


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ([], {}),
        ([{"size_bytes": 3}], {}),
        ([{"stage": "a", "colour": 1}], {}),
        (STAGES, {"served": {"x": 1}}),
        (STAGES, {"compression": {"before": {"colour": 1}}}),
        (STAGES, {"plan": {"candidates": "many"}}),
        (STAGES, {"plan": {"budget": {"max_drop": "1"}}}),
    ],
)
def test_what_the_page_would_not_show_is_refused(stages: list[Any], changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        build_report(stages, **(PARTS | changes))


def test_the_page_tells_headlines_verdict_and_every_stage(tmp_path: Path) -> None:
    page = _page(tmp_path, model="digits", run_id="manual__1")
    for words in (
        "8.98×", "smaller", "2.99×", "faster", "0.28", "points of accuracy lost", "healthy",
        "60 golden answers right", "16 of 16 match", "digits", "manual__1", "97.78 %", "118 kB",
        "111111111111", "train", "quantize", "deploy",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == 4


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert page.fetched == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    source = (tmp_path / "r.html").read_text()
    assert "@import" not in source
    assert re.findall(r"url\((?!#)", source) == []


def test_names_from_outside_are_text_not_markup(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    page = _page(
        tmp_path,
        stages=[{**STAGES[0], "stage": evil}, {**STAGES[1], "stage": evil + "&"}],
        model=evil,
        gates=[{"name": evil, "found": evil, "wanted": 1, "passed": False}],
        verdict={"status": "failing", "reasons": [evil]},
        environment={"versions": {evil: evil}},
    )
    assert "script" not in page.tags
    assert page.text.count("alert(") >= 8


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    page = _page(tmp_path, stages=[{**STAGES[0], "stage": "a $\\frac{ b$"}])
    assert "a $\\frac{ b$" in page.text


def test_colours_come_from_the_page_for_light_and_dark(tmp_path: Path) -> None:
    _page(tmp_path)
    source = (tmp_path / "r.html").read_text()
    assert "prefers-color-scheme: dark" in source
    assert "fill: var(--accent)" in source
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", source)


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    write_html(build_report(STAGES, **PARTS), tmp_path / "a.html")
    write_html(build_report(STAGES, **PARTS), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").stat().st_size < 60_000


def test_without_matplotlib_there_are_tables_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = _page(tmp_path)
    assert "svg" not in page.tags
    assert "No plots: matplotlib can't be imported" in page.text
    assert "97.78 %" in page.text


def test_a_run_that_failed_early_still_has_a_page(tmp_path: Path) -> None:
    page = _page(tmp_path, stages=[{"stage": "train"}], compression=None, served=None, verdict=None)
    assert "not judged" in page.text
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (wording.factor(3.944, "smaller", "larger"), ("3.94×", "smaller")),
        (wording.factor(0.5, "faster", "slower"), ("2×", "slower")),
        (wording.factor(None, "faster", "slower"), ("–", "faster")),
        (wording.lost(-0.5, "accuracy"), ("0.50", "points of accuracy gained")),
        (wording.lost(-1e-14, "accuracy"), ("0.00", "points of accuracy gained")),
        (wording.lost(0.0, "accuracy"), ("0.00", "points of accuracy lost")),
        (wording.lost(0.0021, "cosine"), ("0.0021", "points of cosine lost")),
        (wording.lost(0.598, "perplexity", higher_is_better=False), ("0.598", "higher perplexity")),
        (wording.lost(-2.0, "rmse", higher_is_better=False), ("2", "lower rmse")),
        (wording.quality(0.99, "accuracy:logits"), "99.00 %"),
        (wording.quality(0.99, "my_top5"), "99.00 %"),
        (wording.quality(0.99834, "cosine"), "0.9983"),
        (wording.quality(24.0118, "perplexity"), "24.01"),
        (wording.quality(31234.5, "perplexity"), "31\N{NARROW NO-BREAK SPACE}234"),
        (wording.quality(0.4, "sharpness"), "0.4"),
        (wording.interval([0.982, 0.996], "accuracy"), "98.20 to 99.60 %"),
        (wording.drop(1.0, "accuracy"), "1.00 point"),
        (wording.gate("max_drop_from_champion(accuracy)", 0.5), "0.50 points"),
        (wording.gate("min_value(cosine)", 0.99), "0.9900"),
        (wording.gate("max_latency_ms", 1.5812), "1.58 ms"),
        (wording.gate("max_memory_bytes", 78_000_000.0), "78 MB"),
        (wording.gate("min_speedup", 2), "2×"),
        (wording.gate("max_drop(accuracy)", None), "–"),
        (wording.number(8.673e-05), "8.67·10⁻⁵"),
        (wording.power_of_ten(1e-12), "10⁻¹²"),
        (wording.shortened("/encoder/layer.0/query/MatMul", 15), "/encode…/MatMul"),
        (wording.size(999), "999 B"),
        (wording.size(4_210_000_000), "4.21 GB"),
        (wording.size(999_999), "1 MB"),
        (wording.seconds(125.2), "2 min 05 s"),
        (wording.seconds(59.99), "60 s"),
        (wording.milliseconds(1234.5), "1234 ms"),
        (wording.percent(0.97314), "97.31 %"),
        (wording.rate(16393.4), "16\N{NARROW NO-BREAK SPACE}393 /s"),
    ],
)
def test_figures_read_well(got: object, wanted: object) -> None:
    assert got == wanted
