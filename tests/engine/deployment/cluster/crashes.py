"""A driver whose API calls are numbered, and one of which ends it; and what must hold after each of them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import (
    Cluster,
    LostError,
    is_ready,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.endpoints import ready_addresses
from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import decision_on
from airflow_model_deploy.engine.deployment.targets.kubernetes.names import REVISION, every
from airflow_model_deploy.engine.errors import ModelDeployError
from tests.engine.deployment.cluster.served import NAME

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from _pytest.mark import ParameterSet

    from airflow_model_deploy.engine.deployment import Deployment
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Connection
    from airflow_model_deploy.engine.deployment.targets.kubernetes.decision import Decision

What = Literal["lost", "killed", "told to end"]
When = Literal["before it was sent", "with its answer"]


class KilledError(BaseException):
    """The process is no more: nothing that it does from here on reaches the API server."""


@dataclass(frozen=True)
class Point:
    """One call of a run: what is called, and which time."""

    call: str
    number: int

    @property
    def writes(self) -> bool:
        """Whether the call changes anything."""
        return not self.call.startswith(("GET", "WATCH")) and not self.call.endswith("(dry run)")

    def __str__(self) -> str:
        return f"{self.call} no. {self.number}"


@dataclass(frozen=True)
class Fault:
    """What happens at a point: the call fails for good, the process dies, or it gets a SIGTERM."""

    point: Point
    what: What
    when: When

    def __str__(self) -> str:
        return f"{self.what} {self.when}: {self.point}"


def faults_at(point: Point) -> Iterator[Fault]:
    """Give every fault that makes a difference there.

    Where nothing is written, it is all the same to the cluster whether the call was carried out; and a process that
    dies there leaves what it would have left right after its last write.
    """
    if point.writes:
        yield Fault(point, "lost", "before it was sent")
        yield Fault(point, "killed", "before it was sent")
        yield Fault(point, "killed", "with its answer")
    yield Fault(point, "lost", "with its answer")
    yield Fault(point, "told to end", "with its answer")


class Faulty(Cluster):
    """Notes its calls, and lets one of them fail, for good, or end its process."""

    def __init__(
        self, connection: Connection, namespace: str, watcher: Watcher, fault: Fault | None = None
    ) -> None:
        super().__init__(connection, namespace)
        self.calls: list[Point] = []
        self.reached_at: int | None = None  # how many calls there had been
        self.result: Deployment | None = None
        self.error: BaseException | None = None
        self._watcher, self._fault, self._dead = watcher, fault, False
        self._times = Counter[str]()

    def _send(self, method: str, path: str, **what: Any) -> Any:
        if self._dead:
            raise KilledError
        point = self._noted(method, path, what.get("query") or {})
        here = self._fault is not None and self._fault.point == point
        if here:
            self.reached_at = len(self.calls)
            self._fail("before it was sent")
        try:
            return super()._send(method, path, **what)
        finally:  # an answer may be a refusal
            if point.writes:
                self._watcher.look(str(point))
            if here:
                self._fail("with its answer")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Note how the block ends, where the fault ends it; any other end is the test's."""
        try:
            yield
        except (ModelDeployError, KilledError) as error:
            if self.reached_at is None:
                raise
            self.error = error

    @property
    def counted(self) -> Counter[str]:
        """How many calls of what; watches left out: how many of these there are is a matter of time."""
        return Counter(point.call for point in self.calls if not point.call.startswith("WATCH"))

    def _noted(self, method: str, path: str, query: Mapping[str, str]) -> Point:
        verb = "WATCH" if "watch" in query else method
        call = f"{verb} {_what(path)}" + (" (dry run)" if "dryRun" in query else "")
        self._times[call] += 1
        self.calls.append(Point(call, self._times[call]))
        return self.calls[-1]

    def _fail(self, when: When) -> None:
        assert self._fault is not None
        if self._fault.when != when:
            return
        told = self._fault.what == "told to end"
        if self._fault.what == "killed" or (told and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL):
            self._dead = True
            raise KilledError
        if told:
            signal.raise_signal(signal.SIGTERM)
            return
        # No patience is that long: it isn't tried again.
        raise LostError(str(self._fault.point), found=when, retry_after_s=1e9)


def _what(path: str) -> str:
    """What a path is about, without names: "deployments", "deployments/scale"."""
    _, found, rest = path.partition("/namespaces/")
    parts = rest.split("/")[1:]
    return "/".join(parts[::2]) if found else path


@dataclass
class Watcher:
    """Looks at the cluster after every write of a driver, and notes what must never be.

    Args:
        cluster: its own connection.
        full: replicas that the service is to have.
        unavailable: how many of them a rolling replacement may lack; None: the strategy isn't that one.
    """

    cluster: Cluster
    full: int
    unavailable: int | None = None
    problems: list[str] = field(default_factory=list)

    def look(self, after: str) -> None:
        """Look now."""
        service = self.cluster.get("Service", NAME)
        if service is None:
            return
        decision = decision_on(service)
        scales = self.scales()
        ready = self.ready()
        found = list(self._problems(decision, service["spec"]["selector"], scales, ready))
        self.problems += [
            f"after {after}: {one} ({decision.live} -> {decision.candidate}, {decision.stage}; {scales};"
            f" ready {dict(ready)})"
            for one in found
        ]

    def scales(self) -> dict[str, int]:
        """Return the replicas asked for, by revision."""
        found = self.cluster.list("Deployment", every(NAME))
        return {one["metadata"]["labels"][REVISION]: int(one["spec"]["replicas"]) for one in found}

    def ready(self) -> Counter[str]:
        """Return the ready pods by revision."""
        pods = self.cluster.list("Pod", every(NAME))
        return Counter(pod["metadata"]["labels"][REVISION] for pod in pods if is_ready(pod))

    def behind(self) -> frozenset[str]:
        """Return the addresses that the Service leads to."""
        found = self.cluster.get("Endpoints", NAME)
        return ready_addresses([found] if found else [])

    def _problems(
        self, decision: Decision, selector: dict[str, str], scales: dict[str, int], ready: Counter[str]
    ) -> Iterator[str]:
        if selector != decision.selector(NAME):
            yield f"the selector {selector} isn't the decision's"
        if decision.live is None:
            return
        if not (ready[selector[REVISION]] if REVISION in selector else ready.total()):
            yield "the Service leads to no ready pod"
        others = {one for one, count in scales.items() if count} - {decision.live, decision.candidate}
        if decision.stage == "shared" and others:
            yield f"{others} get requests, too"
        if self.unavailable is None:
            if scales.get(decision.live, 0) < self.full or ready[decision.live] < self.full:
                yield "the live revision isn't at full scale"
        elif decision.candidate and ready.total() < self.full - self.unavailable:
            yield f"fewer than {self.full - self.unavailable} ready pods"


def expire(cluster: Cluster) -> None:
    """Let the Lease that a dead driver has left count as expired; nobody waits for it here."""
    if cluster.get("Lease", NAME):
        cluster.patch("Lease", NAME, {"spec": {"holderIdentity": ""}})


def sample(points: list[Fault], count: int, dice: random.Random) -> list[Fault]:
    """Choose some of them, in their order."""
    return [points[index] for index in sorted(dice.sample(range(len(points)), min(count, len(points))))]


def in_turn(items: Sequence[object]) -> list[ParameterSet]:
    """Leave one of these to every day's run of the tests, and all of them to the full one."""
    today = int(time.time() // 86400) % len(items)
    return [
        pytest.param(
            item, id=getattr(item, "__name__", str(item)), marks=() if number == today else pytest.mark.slow
        )
        for number, item in enumerate(items)
    ]
