"""What a driver is asked for while it may die: the state it begins from, the call, the end it has to come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.deployment.targets.kubernetes import RolloutInterruptedError
from tests.engine.deployment.cluster.crashes import Fault, KilledError, Point, expire
from tests.engine.deployment.cluster.grounds import REPLICAS, Ground

if TYPE_CHECKING:
    from tests.engine.deployment.cluster.crashes import Faulty

NAMES = ("first", "blue-green", "canary", "rolling", "rollback", "way back")
# The second write of a canary's decision lets it have requests.
_IN_THE_MIDDLE = Fault(Point("PATCH services", 2), "killed", "with its answer")


@dataclass
class Scenario:
    """One call of a driver, made as often as it takes.

    Args:
        name: first: the first release of a service; by its strategy, a release after another; rollback: to what
            served before; way back: a rollback in the middle of a canary.
        ground: the service.
    """

    name: str
    ground: Ground
    live: str | None = None
    wanted: str | None = None
    attempt: str = ""
    _release: bytes = field(default=b"", repr=False)

    def begin(self) -> None:
        """Bring the service to where the call begins."""
        ground = self.ground
        if self.name == "first":
            ground.clear()
        elif self.name == "rollback" and ground.live_strategy() == "rolling":
            # A rolling service goes back by rolling, too; here the way back with room for both is meant.
            ground.deploy(ground.release("blue-green"), "another one")
            expire(ground.cluster)
        elif self.name == "way back":
            ground.deploy(ground.release("canary"), "a canary", _IN_THE_MIDDLE)
            expire(ground.cluster)
        strategy = self.name if self.name in ("canary", "rolling") else "blue-green"
        self._release = ground.release(strategy)
        self.attempt = f"attempt {ground.made}"
        decision = ground.decision()
        self.live = decision.live
        self.wanted = {"rollback": decision.previous, "way back": decision.live}.get(
            self.name, ground.revision(self._release)
        )

    def act(self, fault: Fault | None = None) -> Faulty:
        """Make the call, or make it again."""
        if self.name in ("rollback", "way back"):
            return self.ground.rollback(self.attempt, fault)
        return self.ground.deploy(self._release, self.attempt, fault)

    def recorded(self) -> Faulty:
        """Begin, make the call without a fault, and see that it comes to its end."""
        self.begin()
        calls = self.act()
        assert self.flaws() == []
        return calls

    def held_at(self, fault: Fault) -> str | None:
        """Begin, make the call with a fault, then again without; returns what is wrong, None: nothing."""
        self.begin()
        flawed = self.act(fault)
        if flawed.reached_at is None:
            return None  # one watch more or less is a matter of time
        wrong = self._after(fault, flawed)
        expire(self.ground.cluster)
        self.ground.watcher.look("the fault")
        self.act()
        wrong += self.flaws()
        return f"{self.name}, {fault}: {'; '.join(wrong)}" if wrong else None

    def flaws(self) -> list[str]:
        """Say what isn't as it has to be in the end."""
        watcher, decision = self.ground.watcher, self.ground.decision()
        scales, ready = watcher.scales(), watcher.ready()
        states = {
            "live": (decision.live, self.wanted),
            "candidate": (decision.candidate, None),
            "end": (decision.outcome and decision.outcome.result in self._ends, True),
            "replicas": ({one: count for one, count in scales.items() if count}, {self.wanted: REPLICAS}),
            "ready": (ready[str(self.wanted)], REPLICAS),
            "behind": (
                {self.ground.simulation.revisions[one] for one in watcher.behind()},
                {self.wanted},
            ),
        }
        found = [f"{what} {got}, not {want}" for what, (got, want) in states.items() if got != want]
        problems, watcher.problems[:] = list(watcher.problems), []
        return found + problems

    @property
    def _ends(self) -> tuple[str, ...]:
        if self.name in ("rollback", "way back"):
            return ("promoted",) if self.name == "rollback" else ("rolled back",)
        return "promoted", "unchanged"  # done by then, where the fault came late

    def _after(self, fault: Fault, flawed: Faulty) -> list[str]:
        """Say what isn't right about the end that the fault has made."""
        if fault.what != "told to end":
            return []  # its handlers may have had no answer, either
        decision = self.ground.decision()
        wrong = []
        if not isinstance(flawed.error, RolloutInterruptedError | KilledError):
            wrong.append(f"SIGTERM ends in {flawed.error!r}")
        # A way back that ends before it has begun has changed nothing.
        if decision.stage in ("shared", "switched") and self.name != "way back":
            wrong.append(f"after SIGTERM the traffic is {decision.owner}'s, {decision.stage}")
        return wrong
