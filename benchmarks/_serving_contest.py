"""Every server under the same load, in rounds, so that what else the machine does hits all alike; the best counts."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks._serving_load import Connection, Look, check, load, script
from benchmarks._steps import REPOSITORY, environment, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._serving_process import Running
    from benchmarks._serving_requests import Mode
    from benchmarks._serving_servers import Place, Server

MANY, ONE = 32, 1
_TURN = 50  # requests
Key = tuple[str, str, int]  # server, mode, connections


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Args:
        rounds: how often every server is started and loaded.
        many_s: seconds of a run at 32 connections, and of the bare loop.
        one_s: seconds of a run at one connection.
        turns: turns of requests at one connection, that the cost of batching is told from.
        starts: more starts of those whose start is claimed.
    """

    rounds: int = 3
    many_s: int = 4
    one_s: int = 2
    turns: int = 120
    starts: int = 6


QUICK = Effort(rounds=1, many_s=2, one_s=1, turns=30, starts=1)


@dataclass(frozen=True)
class Taken:
    """All that was measured."""

    bare_us: list[float] = field(default_factory=list)
    looks: dict[Key, list[Look]] = field(default_factory=lambda: defaultdict(list))
    starts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pss_mb: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def cpu_us(self, server: str, mode: str) -> float:
        """The least CPU time a request of a server, at 32 connections."""
        return min(look.cpu_us for look in self.looks[server, mode, MANY])

    def best_cpu_us(self, package: str) -> float:
        """The least CPU time a request at 32 connections of all variants and modes of a server."""
        keys = {(name, mode) for name, mode, _ in self.looks if name.split()[0] == package}
        return min(self.cpu_us(name, mode) for name, mode in keys)


def measure(place: Place, servers: Sequence[Server], effort: Effort) -> Taken:
    """Load every server, round by round, in turned order."""
    taken = Taken()
    for turn in range(effort.rounds):
        say(f"round {turn + 1} of {effort.rounds}")
        taken.bare_us.append(bare(place, effort.many_s))
        for server in servers if turn % 2 == 0 else reversed(servers):
            with server.start(place) as process:
                taken.starts[server.name].append(process.start_s)
                for mode in server.modes:
                    _load(taken, place, server.name, process, mode, effort)
                taken.pss_mb[server.name].append(process.pss_mb())
    return taken


def _load(taken: Taken, place: Place, name: str, process: Running, mode: Mode, effort: Effort) -> None:
    check(process, mode)
    lua = script(mode, place.folder)
    load(process, mode, lua, MANY, 1)  # warms up
    for connections, seconds in ((MANY, effort.many_s), (ONE, effort.one_s)):
        look = load(process, mode, lua, connections, seconds)
        say(f"  {name} {mode.name} c={connections}: {look.cpu_us:.0f} us CPU, {look.rps:.0f} rps")
        taken.looks[name, mode.name, connections].append(look)


def bare(place: Place, seconds: float) -> float:
    """CPU microseconds of session.run at batch 1, in a process of its own on the server's core."""
    command = [sys.executable, "-m", "benchmarks._serving_bare", str(place.model), str(seconds)]
    with place.cores.for_server():
        started = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True
        )
    told, _ = started.communicate()
    if started.returncode != 0:
        raise RuntimeError(f"the bare loop ended with {started.returncode}")
    value: float = json.loads(told.splitlines()[-1])["cpu_us"]
    say(f"  bare: {value:.0f} us CPU")
    return value


def idle_cost(place: Place, first: Server, second: Server, mode: Mode, effort: Effort) -> dict[str, Any]:
    """The ratio of two servers' p50 at one connection, both running, asked in turns of some requests each.

    Turns of milliseconds: whatever else the machine does slows both alike.
    """
    found: dict[str, list[float]] = {first.name: [], second.name: []}
    with (
        first.start(place) as one,
        second.start(place) as other,
        Connection(one, mode) as asked,
        Connection(other, mode) as asked_other,
    ):
        both = [(first.name, asked), (second.name, asked_other)]
        for turn in range(effort.turns + 1):
            for name, connection in both if turn % 2 == 0 else reversed(both):
                waits = [connection.ask() for _ in range(_TURN)]
                found[name] += waits if turn > 0 else []  # the first turn warms up
    p50_us = {name: statistics.median(waits) * 1e6 for name, waits in found.items()}
    return {
        "value": p50_us[first.name] / p50_us[second.name],
        "p50_us": {name: round(value, 1) for name, value in p50_us.items()},
    }


def start_more(place: Place, servers: Sequence[Server], taken: Taken, effort: Effort) -> None:
    """Start some servers some more, in turns, to tell how soon they are ready."""
    for _ in range(effort.starts):
        for server in servers:
            with server.start(place) as process:
                taken.starts[server.name].append(process.start_s)
