from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import delta, parse, share_over


class _Server:
    """A process' metrics, by the library that real servers use."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "request_seconds", "x", ["code"], buckets=(0.01, 0.1, 1.0), registry=self.registry
        )
        self.nan = Counter("nan", "x", registry=self.registry)

    def answer(self, seconds: float, code: str = "200") -> None:
        self.seconds.labels(code).observe(seconds)

    def scrape(self, *, births: bool = True) -> str:
        text = generate_latest(self.registry).decode()
        return (
            text if births else "\n".join(line for line in text.splitlines() if "_created" not in line) + "\n"
        )


def test_the_increase_is_what_happened_in_between() -> None:
    server = _Server()
    server.answer(0.005)
    before = parse(server.scrape())
    server.answer(0.005)
    server.answer(0.5, "500")
    server.nan.inc(3)
    change = delta(before, parse(server.scrape()))
    assert not change.reset
    assert change.total("request_seconds_count") == 2
    assert {labels["code"]: v for labels, v in change.select("request_seconds_count")} == {"200": 1, "500": 1}
    assert change.total("nan_total") == 3


@pytest.mark.parametrize("births", [True, False])
def test_a_restarted_server_counts_from_zero(births: bool) -> None:
    old, new = _Server(), _Server()
    for _ in range(5):
        old.answer(0.005)
    new.answer(0.005)
    new.answer(0.5)
    change = delta(parse(old.scrape(births=births)), parse(new.scrape(births=births)))
    assert change.reset
    assert change.total("request_seconds_count") == 2


def test_a_restart_is_seen_even_where_the_new_process_counted_more() -> None:
    before = parse("# TYPE a_total counter\na_total 5\n# TYPE process_start_time_seconds gauge\n"
                   "process_start_time_seconds 100\n")  # fmt: skip
    after = parse("# TYPE a_total counter\na_total 7\n# TYPE process_start_time_seconds gauge\n"
                  "process_start_time_seconds 160\n")  # fmt: skip
    change = delta(before, after)
    assert change.reset
    assert change.total("a_total") == 7


def test_the_share_over_a_buckets_edge_is_exact() -> None:
    server = _Server()
    before = parse(server.scrape())
    for seconds in (0.005, 0.01, 0.05, 0.05, 2.0):
        server.answer(seconds)
    server.answer(5.0, "500")
    change = delta(before, parse(server.scrape()))
    assert share_over(change, "request_seconds", 0.1, {"code": "200"}) == pytest.approx(1 / 5)
    assert share_over(change, "request_seconds", 0.01, {"code": "200"}) == pytest.approx(3 / 5)
    assert share_over(change, "request_seconds", 0.1) == pytest.approx(2 / 6)


def test_between_two_buckets_there_is_no_answer() -> None:
    server = _Server()
    server.answer(0.05)
    change = delta(parse(""), parse(server.scrape()))
    assert share_over(change, "request_seconds", 0.07) is None
    assert share_over(change, "request_seconds", 0.1, {"code": "201"}) is None
    assert share_over(delta(parse(""), parse("")), "request_seconds", 0.1) is None


def test_a_gauge_is_read_and_a_missing_one_is_none() -> None:
    scrape = parse('# TYPE m gauge\nm{a="1"} 2\nm{a="2"} 3\n')
    assert scrape.gauge("m") == 5
    assert scrape.gauge("n") is None


def test_what_is_no_metrics_text_is_refused() -> None:
    with pytest.raises(InputError, match="Prometheus"):
        parse("<html>not metrics</html>\n")
