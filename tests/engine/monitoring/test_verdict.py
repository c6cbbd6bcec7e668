from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.monitoring import Observation, judge
from airflow_model_deploy.engine.packaging import Objectives

GOALS = Objectives(latency_ms=10.0, latency_share=0.95, max_error_share=0.01, min_requests=20)
GOOD = Observation(
    window_s=30.0,
    probes_sent=60,
    probes_answered=60,
    probes_wrong=0,
    last_probe_answered=True,
    probe_latencies_ms=(2.0,) * 60,
    ready=True,
    metrics_readable=True,
    requests=500,
    errors=0,
    over_objective=0.0,
    over_objective_source="histogram",
    memory_bytes=70_000_000,
    nan_inputs=0,
)


def test_positive_evidence_is_healthy() -> None:
    verdict = judge(GOOD, GOALS)
    assert verdict.status == "healthy"
    assert "60 golden answers right" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"ready": False}, "failing", "isn't ready"),
        ({"last_probe_answered": False, "probes_answered": 59}, "failing", "last probe"),
        ({"probes_wrong": 1}, "failing", "1 of 60 golden answers"),
        ({"errors": 25}, "failing", "25 of 500 requests"),
        ({"probes_answered": 50}, "failing", "10 of 60 probes"),
        ({"errors": 6}, "degraded", "6 of 500 requests"),
        ({"probes_answered": 59}, "degraded", "1 of 60 probes"),
        ({"over_objective": 0.06}, "degraded", "94.00% of 500 requests within 10 ms"),
        # Requests that lay in a queue before the server read them: only the callers know.
        ({"probe_latencies_ms": (2.0,) * 52 + (700.0,) * 8}, "degraded", "86.67% of 60 probes"),
        ({"probe_latencies_ms": (2.0,) * 55 + (700.0,) * 5}, "healthy", ""),  # chance gives as many
        ({"reset_seen": True}, "degraded", "restarted"),
        ({"metrics_readable": False, "requests": None, "errors": None}, "inconclusive", "metrics"),
        ({"requests": 19}, "inconclusive", "19 requests counted, 20 wanted"),
        ({"over_objective": None, "over_objective_source": None}, "inconclusive", "latencies measured"),
        (
            {"over_objective_source": "probes", "probes_answered": 5, "probes_sent": 5},
            "inconclusive",
            "5 lat",
        ),
        ({"errors": 5}, "healthy", ""),  # exactly the share that is allowed
        ({"over_objective": 0.05}, "healthy", ""),
        ({"memory_bytes": None}, "healthy", ""),  # no bound, none needed
    ],
)
def test_each_row_of_the_table(change: dict[str, object], status: str, words: str) -> None:
    verdict = judge(replace(GOOD, **change), GOALS)  # type: ignore[arg-type]
    assert verdict.status == status, verdict
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(("memory", "status"), [(101, "degraded"), (100, "healthy"), (None, "inconclusive")])
def test_memory_is_judged_where_it_has_a_bound(memory: int | None, status: str) -> None:
    goals = replace(GOALS, max_memory_bytes=100)
    assert judge(replace(GOOD, memory_bytes=memory), goals).status == status


def test_the_worst_finding_decides_and_all_are_told() -> None:
    seen = replace(GOOD, requests=3, errors=0, reset_seen=True, probes_wrong=2)
    verdict = judge(seen, GOALS)
    assert verdict.status == "failing"
    assert [any(w in r for r in verdict.reasons) for w in ("wrong", "restarted", "3 requests")] == [True] * 3
    assert "wrong" in verdict.reasons[0]


def test_an_error_among_few_requests_is_neither_failing_nor_healthy() -> None:
    """1 of 10 is 10 %, and happens every tenth time to a server that keeps 1 %."""
    seen = replace(GOOD, requests=10, errors=1, over_objective=0.0)
    assert judge(seen, GOALS).status == "inconclusive"


@given(
    ready=st.booleans(),
    answered=st.integers(0, 30),
    requests=st.none() | st.integers(0, 60),
    over=st.none() | st.floats(0, 1),
)
def test_no_data_is_never_healthy(
    ready: bool, answered: int, requests: int | None, over: float | None
) -> None:
    seen = replace(
        GOOD,
        ready=ready,
        probes_answered=answered,
        probes_sent=30,
        requests=requests,
        errors=None if requests is None else 0,
        metrics_readable=requests is not None,
        over_objective=over,
        over_objective_source=None if over is None else "histogram",
    )
    if judge(seen, GOALS).status == "healthy":
        assert ready
        assert answered == 30
        assert requests is not None
        assert requests >= 20
        assert over is not None


def test_a_million_requests_are_judged_at_once() -> None:
    seen = replace(GOOD, requests=1_000_000, errors=10_400)
    assert judge(seen, GOALS).status == "failing"
    assert judge(replace(seen, errors=10_010), GOALS).status == "degraded"
