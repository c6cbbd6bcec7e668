from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring import Counts, Scrape, Window, parse
from tests.engine.monitoring.pods import BUCKETS, Pod


class Track:
    """The pods that there are; None stands for one that can't be read."""

    def __init__(self, **pods: Pod | None) -> None:
        self.pods = dict(pods)

    def read(self) -> dict[str, Scrape | None]:
        return {name: pod.scrape() if pod else None for name, pod in self.pods.items()}

    def window(self, latency_ms: float = 50.0) -> Window:
        window = Window(self.read, latency_ms=latency_ms)
        window.start()
        return window


def test_only_what_happened_in_the_window_counts() -> None:
    a, b = Pod(), Pod()
    a.serve(100, code="500")
    window = Track(a=a, b=b).window()
    assert window.counts() == Counts(0, 0, 0, 0, 0)
    a.serve(5)
    b.serve(7, seconds=0.3)
    b.serve(2, code="503")  # a code that was never seen before
    b.serve(3, code="400")
    assert window.counts() == Counts(requests=17, errors=2, timed=12, slow=7, slow_most=7)
    a.serve(1)
    assert window.counts().requests == 18
    window.start()
    assert window.counts().requests == 0


def test_a_pod_born_in_the_window_counts_from_nothing() -> None:
    a, late = Pod(), Pod()
    track = Track(a=a)
    window = track.window()
    track.pods["late"] = None  # it starts
    assert window.counts() == Counts(0, 0, 0, 0, 0, unknown=("late",))
    late.serve(9)
    track.pods["late"] = late
    assert window.counts() == Counts(9, 0, 9, 0, 0)


def test_a_pod_that_is_gone_keeps_what_was_seen_of_it() -> None:
    a, b = Pod(), Pod()
    track = Track(a=a, b=b)
    window = track.window()
    a.serve(4, code="500")
    b.serve(6)
    window.counts()
    del track.pods["a"]
    assert window.counts() == Counts(10, 4, 6, 0, 0)
    track.pods.clear()
    assert window.counts() == Counts(10, 4, 6, 0, 0)


def test_a_restarted_process_adds_to_what_the_old_one_had() -> None:
    a = Pod()
    a.serve(50)
    window = Track(a=a).window()
    a.serve(10, code="500")
    window.counts()
    a.restart()
    a.serve(3)
    assert window.counts() == Counts(13, 10, 3, 0, 0)
    a.restart()
    a.serve(200, seconds=0.2)  # more than before: the series of the 5xx is gone, which tells
    assert window.counts() == Counts(213, 10, 203, 200, 200)


def test_an_unreadable_pod_is_unknown_and_the_rest_is_counted() -> None:
    a, b = Pod(), Pod()
    track = Track(a=a, b=b)
    window = track.window()
    a.serve(5)
    b.serve(5)
    window.counts()
    b.serve(5)
    track.pods["b"] = None
    assert window.counts() == Counts(10, 0, 10, 0, 0, unknown=("b",))
    track.pods["b"] = b
    assert window.counts() == Counts(15, 0, 15, 0, 0)


def test_a_pod_unreadable_at_the_start_counts_from_its_first_scrape() -> None:
    a = Pod()
    a.serve(1000, code="500")
    track = Track(a=None)
    window = track.window()
    track.pods["a"] = a
    assert window.counts() == Counts(0, 0, 0, 0, 0)
    a.serve(2)
    assert window.counts().requests == 2


@pytest.mark.parametrize("track", [Track(), Track(a=None, b=None)])
def test_nothing_known_is_no_zero(track: Track) -> None:
    assert track.window().counts() == Counts(unknown=tuple(track.pods))


def test_a_server_that_counts_no_requests_is_unknown() -> None:
    window = Window(lambda: {"a": parse("up_and_running 1\n")}, latency_ms=50)
    window.start()
    assert window.counts() == Counts(unknown=("a",))


def test_a_count_that_is_no_number_is_unknown() -> None:
    text = '# TYPE model_request_duration_seconds histogram\nmodel_request_duration_seconds_count{code="200"} NaN\n'
    window = Window(lambda: {"a": parse(text)}, latency_ms=50)
    window.start()
    assert window.counts() == Counts(unknown=("a",))


def test_without_buckets_requests_are_known_and_latencies_are_not() -> None:
    text = (
        '# TYPE model_request_duration_seconds histogram\nmodel_request_duration_seconds_count{code="500"} '
    )
    values = iter((3, 5))
    window = Window(lambda: {"a": parse(f"{text}{next(values)}\n")}, latency_ms=50)
    window.start()
    assert window.counts() == Counts(requests=2, errors=2)


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=30), st.floats(1.0, 2000.0))
def test_the_slow_ones_lie_between_both_counts(seconds: list[float], latency_ms: float) -> None:
    pod = Pod()
    window = Track(a=pod).window(latency_ms)
    for each in seconds:
        pod.serve(1, each)
    counts = window.counts()
    assert counts.slow is not None
    assert counts.slow_most is not None
    assert counts.slow <= sum(each > latency_ms / 1000 for each in seconds) <= counts.slow_most


@pytest.mark.parametrize("edge", BUCKETS)
def test_an_objective_at_a_buckets_edge_is_exact(edge: float) -> None:
    pod = Pod()
    window = Track(a=pod).window(edge * 1000)
    for seconds in (0.001, *BUCKETS, 0.02, 0.2, 0.9):
        pod.serve(1, seconds)
    counts = window.counts()
    over = sum(seconds > edge for seconds in (0.001, *BUCKETS, 0.02, 0.2, 0.9))
    assert counts.slow == counts.slow_most == over


def test_a_window_has_a_start() -> None:
    with pytest.raises(InputError, match="no start"):
        Window(dict, latency_ms=50).counts()
