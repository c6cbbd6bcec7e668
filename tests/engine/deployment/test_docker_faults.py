"""The engine's API fails, or the deployer dies, at any call: the same call again comes to the same end."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.containers import Engine, connect
from airflow_model_deploy.engine.deployment import docker
from airflow_model_deploy.engine.deployment.targets.docker import rollout
from airflow_model_deploy.engine.errors import ModelDeployError
from tests.engine.deployment.places import DockerSetting, deployed, version
from tests.engine.deployment.traffic import Check, driving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.docker

HOWS = ("before", "after", "killed")
SAMPLE = 2
CALLS = {
    *("containers", "create_container", "create_volume", "exec_create", "exec_inspect", "exec_start"),
    *("get_archive", "inspect_container", "inspect_image", "logs", "remove_container", "remove_image"),
    *("start", "stop", "update_container"),
}


class KilledError(BaseException):
    """The process is no more: nothing that it does from here on reaches the engine."""


class FaultyClient:
    """An API client whose call number `at` fails, before it is sent or after it was applied, or kills its process."""

    def __init__(self, at: int = 0, how: str = "before") -> None:
        self._client = connect(Engine())
        self._at, self._how = at, how
        self.made: list[str] = []
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._client, name)
        # Threads of the tunnel come and go with connections: their calls would make the numbers differ.
        if name not in CALLS or threading.current_thread() is not threading.main_thread():
            return function
        return lambda *arguments, **named: self._call(name, function, arguments, named)

    def _call(self, name: str, function: Any, arguments: Any, named: Any) -> Any:
        from requests.exceptions import ConnectionError as LostError

        if self.dead:
            raise KilledError
        self.made.append(name)
        if len(self.made) != self._at:
            return function(*arguments, **named)
        if self._how == "before":
            raise LostError("lost before it was sent")
        answer = function(*arguments, **named)
        if name == "exec_start":
            # The program runs; only the connection to it is lost, as the end of a process loses it.
            getattr(answer, "_sock", answer).shutdown(socket.SHUT_RDWR)
            answer._response.close()
        if self._how == "after":
            raise LostError("lost with the answer")
        self.dead = True
        raise KilledError


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    clients = []

    def use(at: int = 0, how: str = "before") -> FaultyClient:
        client = FaultyClient(at, how)
        clients.append(client)
        monkeypatch.setattr(rollout, "connect", lambda engine: client)
        return client

    yield use
    for client in clients:
        client._client.close()


def _hold(setting: DockerSetting, faulty: Any, chosen: Any) -> None:
    """Deploy v2 over v1 with each fault, then again without: every time the same end, and no failed request."""
    service = setting.service
    releases = {scale: setting.release(f"v{scale}", scale) for scale in (1, 2)}
    deployed(setting, releases[2], Check(2))
    deployed(setting, releases[1], Check(1))
    client, live = connect(Engine()), 1
    with driving(service) as traffic:
        counted = _once(setting, faulty(), client, releases, live := 3 - live)
        for at, how in chosen(len(counted.made)):
            flawed = _once(setting, faulty(at, how), client, releases, live := 3 - live)
            where = f"{how} call {at} of {len(counted.made)}, {flawed.made[at - 1 : at]}"
            faulty()
            again = deployed(setting, releases[live], Check(live))
            status = docker.status(service)
            old = docker.revision_of(releases[3 - live])
            assert (again.revision, again.previous) == (docker.revision_of(releases[live]), old), where
            assert (status.live, status.previous, status.candidate) == (again.revision, old, None), where
            assert (status.serving, version(service)) == (True, f"v{live}"), where
            states = {one.revision: (one.state, one.public) for one in status.processes}
            assert states == {again.revision: ("ready", True), old: ("exited", False)}, where
            assert traffic.failures == [], where
    client.close()


def _once(
    setting: DockerSetting, flawed: FaultyClient, client: Any, releases: dict[int, str], live: int
) -> FaultyClient:
    # As if it had never been here: its container is made, too.
    gone = f"{setting.service.name}-{docker.revision_of(releases[live])}"
    client.remove_container(gone, force=True)
    with contextlib.suppress(ModelDeployError, KilledError):
        deployed(setting, releases[live], Check(live))
    return flawed


def test_a_fault_at_a_call_comes_to_the_same_end(docker_setting: DockerSetting, faulty: Any) -> None:
    # Another sample every day; all of them below.
    dice = random.Random(time.time() // 86400)
    _hold(
        docker_setting,
        faulty,
        lambda calls: [(dice.randint(1, calls), how) for how in dice.sample(HOWS, SAMPLE)],
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_call_comes_to_the_same_end(
    docker_setting: DockerSetting, faulty: Any, how: str
) -> None:
    _hold(docker_setting, faulty, lambda calls: [(at, how) for at in range(1, calls + 1)])
