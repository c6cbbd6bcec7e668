from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from scipy.stats import binomtest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.reporting import build_report, rollout_sentences, wording, write_html
from tests.engine.reporting.test_report import PARTS, STAGES, _Page

if TYPE_CHECKING:
    from pathlib import Path


def _track(requests: int | None, errors: int | None, **more: Any) -> dict[str, Any]:
    return {
        "requests": requests,
        "errors": errors,
        "slow": 0,
        "restarts": 0,
        "ready": 1,
        "wanted": 1,
        **more,
    }


def _phase(
    name: str, status: str, canary: Any, stable: Any = None, *, reason: str = "fine"
) -> dict[str, Any]:
    phase = {"name": name, "status": status, "watched_s": 10.0, "reasons": [reason], "canary": canary}
    return phase | ({"stable": stable} if stable else {})


FIRST: dict[str, Any] = {
    "revision": "111111111111",
    "action": "deploy",
    "result": "promoted",
    "reason": "revision 111111111111 serves; before: nothing",
    "at": "2026-11-22T22:40:00+00:00",
    "changes": ["create Deployment digits-111111111111", "create Service digits"],
    "left_out": ["PodDisruptionBudget"],
    "golden": {"total": 16, "matched": 16, "max_abs_error": 0.1},
    "phases": [_phase("after the switch", "pass", _track(400, 0))],
}
SECOND: dict[str, Any] = {
    **FIRST,
    "revision": "222222222222",
    "at": "2026-11-22T22:43:09+00:00",
    "left_out": [],
    "changes": ["create Deployment digits-222222222222"],
    "phases": [
        _phase("canary 33%", "pass", _track(120, 0), _track(240, 0, ready=2, wanted=2)),
        _phase("after the switch", "pass", _track(390, 0, ready=2, wanted=2)),
    ],
}
WHY = "16 of 300 (5.33%) requests answered with an error, 1.00% allowed (p = 4e-08)"
THIRD: dict[str, Any] = {
    **SECOND,
    "revision": "333333333333",
    "result": "rolled back",
    "reason": f"digits: canary 33% fails; found: {WHY}",
    "at": "2026-11-22T22:46:30+00:00",
    "phases": [_phase("canary 33%", "fail", _track(300, 16, slow=3), _track(600, 0), reason=WHY)],
}


def _report(*rollouts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    report = build_report(STAGES, **(PARTS | {"rollouts": rollouts} | changes))
    folder = resources.files("airflow_model_deploy.engine.reporting") / "resources"
    jsonschema.validate(report, json.loads((folder / "report.schema.json").read_text(encoding="utf-8")))
    return report


def _page(tmp_path: Path, *rollouts: dict[str, Any], **changes: Any) -> _Page:
    write_html(_report(*rollouts, **changes), tmp_path / "r.html")
    return _Page((tmp_path / "r.html").read_text(encoding="utf-8"))


def test_every_rollout_is_told_with_its_phases_and_figures(tmp_path: Path) -> None:
    page = _page(tmp_path, FIRST, SECOND, THIRD)
    for words in (
        "Rollouts", "111111111111", "222222222222", "333333333333", "promoted", "rolled back",
        "It took over all requests (22 Nov 2026, 22:43:09 UTC).",
        "It was watched for 20 s in 2 phases: 510 requests,", "of which none failed.",
        "It was sent back, and all requests went to what served before (22 Nov 2026, 22:46:30 UTC).",
        "It was watched for 10 s in 1 phase: 300 requests, of which 16 failed.", "Why:", "digits: canary 33% fails",
        "16 (5.33 %)", "120 (33 %)", "240 (67 %)", WHY, "16 of 16 golden requests match.",
        "What it changed in the cluster: 2 objects", "create Service digits",
        "Left out, because this cluster doesn't serve it: PodDisruptionBudget.",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.text.count("Why:") == 1  # a rollout that went well needs no reason


def test_shares_have_the_interval_that_a_reference_gives() -> None:
    (phase,) = _report(THIRD)["rollouts"][0]["phases"]
    assert phase["request_share"] == pytest.approx(300 / 900)
    canary = phase["canary"]
    for name, part, whole in (("error", 16, 300), ("slow", 3, 284)):
        wanted = binomtest(part, whole).proportion_ci(0.95, method="wilson")
        assert canary[f"{name}_share"] == pytest.approx(part / whole)
        assert canary[f"{name}_interval"] == pytest.approx([wanted.low, wanted.high], rel=1e-3)


def test_only_what_went_wrong_is_drawn(tmp_path: Path) -> None:
    charts = _page(tmp_path, FIRST, SECOND).tags.count("svg")
    page = _page(tmp_path, FIRST, SECOND, THIRD)
    assert page.tags.count("svg") == charts + 2  # failed requests, and slow ones
    source = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Failed requests: canary 33%, new 5.33 % (16); canary 33%, old 0.00 % (0)" in source


def test_unknown_counts_are_dashes_not_zeros(tmp_path: Path) -> None:
    phase = _phase("canary 50%", "inconclusive", _track(None, None, slow=None), _track(10, 0))
    page = _page(tmp_path, {**THIRD, "phases": [phase, {"name": "after the switch"}]})
    assert "not all of its requests could be counted" in page.text
    (rollout,) = _report({**THIRD, "phases": [phase]})["rollouts"]
    assert rollout["phases"][0]["canary"]["error_share"] is None
    quiet = {**FIRST, "phases": [_phase("after the switch", "inconclusive", _track(0, 0))]}
    assert "nobody asked it" in str(rollout_sentences.of_watch(_report(quiet)["rollouts"][0]))
    row, _ = rollout_sentences.rows(rollout["phases"][0])
    assert row == ("new", "–", "–", "–", "1 of 1")


def test_a_run_that_was_rolled_back_says_so_and_what_is_missing(tmp_path: Path) -> None:
    page = _page(tmp_path, SECOND, THIRD, served=None, verdict=None)
    head = page.text[: page.text.index("What each stage did")]
    assert "rolled back" in head
    assert "not judged" not in head
    assert "This run has no result of its deployment and monitoring." in head
    assert "As served" not in page.text
    assert "has no result" not in _page(tmp_path, SECOND).text


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"result": "unchanged"}, "It served already"),
        ({"result": "interrupted"}, "It was interrupted, and all requests went to what served before"),
        ({"result": "held"}, "neither revision is healthy"),
        ({"action": "rollback"}, "The service went back to it"),
        ({"action": "rollback", "result": "rolled back"}, "was to go back to it, and stayed"),
        ({"action": "rollback", "result": "interrupted", "at": None}, "It ended as interrupted."),
        ({"result": None}, "It ended as nobody knows"),
    ],
)
def test_every_end_has_its_sentence(changes: dict[str, Any], wanted: str) -> None:
    (rollout,) = _report({**SECOND, **changes})["rollouts"]
    assert wanted in rollout_sentences.of_end(rollout)


def test_what_a_cluster_says_is_text_not_markup(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    phase = _phase(evil, evil, _track(9, 3), _track(9, 0), reason=evil)
    page = _page(
        tmp_path, {**THIRD, "revision": evil, "reason": evil, "changes": [evil], "left_out": [evil], "at": evil,
                   "phases": [phase]},
    )  # fmt: skip
    assert "script" not in page.tags
    assert page.text.count("alert(") >= 7


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": "many"},
        {"phases": [1]},
        {"phases": [_phase("a", "pass", "few")]},
        {"phases": [_phase("a", "pass", _track(-1, 0))]},
        {"phases": [{"name": "a", "watched_s": "long"}]},
        {"changes": "all"},
        {"reason": 3},
        {"golden": "16 of 16"},
    ],
)
def test_a_rollout_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a report's rollout"):
        build_report(STAGES, **PARTS, rollouts=[{**FIRST, **changes}])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-11-02T02:04:05+00:00", "2 Nov 2026, 02:04:05 UTC"),
        ("2026-11-02T02:04:05+05:30", "2 Nov 2026, 02:04:05 +05:30"),
        ("2026-11-02T02:04:05", "2 Nov 2026, 02:04:05"),
        ("yesterday", "yesterday"),
        (None, ""),
    ],
)
def test_moments_read_well(text: str | None, told: str) -> None:
    assert wording.moment(text) == told
