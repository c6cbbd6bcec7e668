"""What only a container engine can do to a service, and what the service does about it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.containers import Engine, ExecResult, Limits, connect, find_image, run_inside
from airflow_model_deploy.engine.deployment import docker
from airflow_model_deploy.engine.deployment.targets.docker import front as front_module
from airflow_model_deploy.engine.deployment.targets.docker.front import Front
from airflow_model_deploy.engine.errors import InputError, RolloutError, UnavailableError
from tests.engine.deployment.images import BASE
from tests.engine.deployment.places import DockerSetting, deployed, free_port, version
from tests.engine.deployment.traffic import Check, driving, process
from tests.engine.serving.servables import edit, linear, request, until, write_servable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.fixture
def client() -> Iterator[Any]:
    client = connect(Engine())
    yield client
    client.close()


def names(client: Any, service: docker.Service) -> set[str]:
    found = client.containers(all=True, filters={"label": f"io.model-deploy.service={service.name}"})
    return {one["Names"][0].removeprefix("/") for one in found}


@pytest.mark.parametrize(
    "image", ["digits:latest", "localhost:5000/digits", "sha256:12", "x@sha256:" + "g" * 64, ""]
)
def test_a_tag_is_refused(docker_setting: DockerSetting, image: str) -> None:
    with pytest.raises(InputError, match="no digest"):
        deployed(docker_setting, image, Check())


@pytest.mark.parametrize(
    "wrong", [{"name": "x"}, {"name": "../x"}, {"port": 0}, {"port": 70000}, {"drain_s": 0}]
)
def test_a_service_that_can_not_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong)).split("_")[0]):
        docker.Service(
            **{"name": "tiny", "engine": Engine(), "port": 1, "limits": Limits(64 << 20, 1.0), **wrong}
        )


@pytest.mark.parametrize(
    ("engine", "host", "url"),
    [
        ("unix:///run/docker.sock", "127.0.0.1", "http://127.0.0.1:80"),
        ("unix:///run/docker.sock", "0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("tcp://edge-7:2376", "0.0.0.0", "http://edge-7:80"),  # noqa: S104
        ("tcp://edge-7:2376", "10.0.0.7", "http://10.0.0.7:80"),
        ("ssh://me@edge-7", "::", "http://edge-7:80"),
    ],
)
def test_the_public_url_names_the_engines_machine(engine: str, host: str, url: str) -> None:
    assert docker.Service("tiny", Engine(engine), 80, Limits(64 << 20, 1.0), host=host).url == url


@pytest.mark.parametrize(
    ("engine", "host", "only_there"),
    [
        *((engine, "127.0.0.1", False) for engine in ("unix:///s", "tcp://127.0.0.2:1", "tcp://[::1]:1")),
        *(("tcp://edge-7:1", host, True) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost")),
        *(("tcp://edge-7:1", host, False) for host in ("0.0.0.0", "10.0.0.7", "edge-7")),  # noqa: S104
        ("ssh://me@edge-7", "localhost", True),
        ("tcp://localhost:1", "localhost", False),
    ],
)
def test_a_loopback_address_is_the_engines_machines_own(engine: str, host: str, only_there: bool) -> None:
    service = docker.Service("tiny", Engine(engine), 80, Limits(64 << 20, 1.0), host=host)
    assert service.only_there is only_there


def test_what_is_not_ours_is_left_alone(docker_setting: DockerSetting, client: Any) -> None:
    service = docker_setting.service
    with pytest.raises(InputError, match=r"wanted: model;"):
        deployed(docker_setting, client.inspect_image(BASE)["Id"], Check())
    with pytest.raises(InputError, match="not on this engine"):
        deployed(docker_setting, "sha256:" + "0" * 64, Check())
    stranger = client.create_container(BASE, name=service.name, command=["sleep", "60"])["Id"]
    try:
        with pytest.raises(InputError, match=f"container {service.name}"):
            deployed(docker_setting, docker_setting.release("v1"), Check())
        assert docker.find_service(Engine(), service.name) is None
        assert client.inspect_container(service.name)["Id"] == stranger
    finally:
        client.remove_container(stranger, force=True)
    assert names(client, service) == set()


def test_a_port_in_use_changes_nothing_and_an_address_is_kept(
    docker_setting: DockerSetting, client: Any
) -> None:
    service, release = docker_setting.service, docker_setting.release("v1")
    with (
        socket.create_server(("127.0.0.1", service.port)),
        pytest.raises(UnavailableError, match=rf"public port.*in use.*127\.0\.0\.1:{service.port}"),
    ):
        deployed(docker_setting, release, Check())
    assert names(client, service) == set()
    deployed(docker_setting, release, Check())
    docker.stop(service)
    moved = replace(service, port=free_port())
    for wanted in (service, moved):
        with (
            socket.create_server(("127.0.0.1", wanted.port)),
            pytest.raises(UnavailableError, match="public port"),
        ):
            docker.deploy(wanted, release, check=Check())
        # It is still known, and can still be found.
        assert docker.find_service(Engine(), service.name) == service
    deployed(docker_setting, release, Check())
    with pytest.raises(InputError, match="Stop the service first"):
        docker.deploy(moved, release, check=Check())
    docker.stop(service)
    assert docker.deploy(moved, release, check=Check()).url == moved.url
    assert version(moved) == "v1"


def test_a_candidate_that_ends_says_why_and_the_live_one_serves(
    docker_setting: DockerSetting, tmp_path: Path, client: Any
) -> None:
    service = docker_setting.service
    first = deployed(docker_setting, docker_setting.release("v1"), Check())
    small = replace(service, limits=Limits(24 << 20, 1.0))
    with driving(service) as traffic:
        with pytest.raises(RolloutError, match="OOMKilled: it wanted more than its 24 MiB"):
            docker.deploy(small, docker_setting.release("v2", 2), check=Check(2))
        broken = write_servable(tmp_path / "broken", linear(3), version="v3")
        edit(broken, lambda document: document["files"][0].update(sha256="0" * 64))
        with pytest.raises(RolloutError, match="exit code 3: servable refused"):
            deployed(docker_setting, docker_setting.image(broken), Check())
    assert traffic.failures == []
    assert (docker.status(service).live, version(service)) == (first.revision, "v1")
    # Nothing is kept of what never served.
    assert names(client, service) == {service.name, f"{service.name}-{first.revision}"}


def test_what_runs_is_confined_kept_and_found_by_name(docker_setting: DockerSetting, client: Any) -> None:
    service = docker_setting.service
    revisions = [
        deployed(docker_setting, docker_setting.release(f"v{i}", i), Check(i)).revision for i in (1, 2, 3)
    ]
    assert names(client, service) == {service.name, *(f"{service.name}-{r}" for r in revisions[1:])}

    live = client.inspect_container(f"{service.name}-{revisions[2]}")
    front = client.inspect_container(service.name)
    for one, network, memory in ((live, "none", service.limits.memory_bytes), (front, "bridge", 96 << 20)):
        settings = one["HostConfig"]
        assert (settings["ReadonlyRootfs"], settings["CapDrop"], settings["Privileged"]) == (
            True,
            ["ALL"],
            False,
        )
        assert (settings["NetworkMode"], settings["Memory"], settings["MemorySwap"]) == (
            network,
            memory,
            memory,
        )
        assert settings["SecurityOpt"] == ["no-new-privileges"]
        assert settings["RestartPolicy"]["Name"] == "unless-stopped"
        assert one["Config"]["User"] == "65532:65532"
    assert live["HostConfig"]["PortBindings"] in (None, {})

    assert service.name in docker.service_names(Engine())
    assert docker.find_service(Engine(), service.name) == service
    assert docker.find_service(Engine(), f"{service.name}-other") is None
    # Other limits of what runs: given to it, and written down.
    wider = replace(service, limits=Limits(300 << 20, 1.5, 100))
    assert not docker.deploy(wider, docker_setting.release("v3", 3), check=Check(3)).changed
    settings = client.inspect_container(f"{service.name}-{revisions[2]}")["HostConfig"]
    assert (settings["Memory"], settings["NanoCpus"], settings["PidsLimit"]) == (300 << 20, 1.5e9, 100)
    assert docker.find_service(Engine(), service.name) == wider
    status = docker.status(service)
    assert (status.serving, status.front, status.error) == (True, "running", None)
    assert process(status, revisions[1]).state == "exited"


def test_what_somebody_removed_keeps_nobody_from_deciding(docker_setting: DockerSetting, client: Any) -> None:
    service = docker_setting.service
    releases = [docker_setting.release(f"v{i}", i) for i in (1, 2)]
    revisions = [docker.revision_of(release) for release in releases]
    for i in (0, 1):
        deployed(docker_setting, releases[i], Check(i + 1))
    client.remove_container(f"{service.name}-{revisions[1]}", force=True)
    back = docker.rollback(service, check=Check())
    assert (back.revision, back.previous, version(service)) == (revisions[0], None, "v1")
    for i in (0, 1):
        client.remove_container(f"{service.name}-{revisions[0]}", force=True)
        # The same again, then another.
        deployed(docker_setting, releases[i], Check(i + 1))
        assert version(service) == f"v{i + 1}"


def test_a_service_elsewhere_is_asked_there_and_a_damaged_decision_is_named(
    docker_setting: DockerSetting, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = docker_setting.service
    monkeypatch.setattr(docker.Service, "only_there", True)
    deployed(docker_setting, docker_setting.release("v1"), check := Check())
    assert service.url not in check.urls
    with docker.reach(service) as url:
        assert url != service.url
        assert request(f"{url}/v2/models/tiny")[1]["versions"] == ["v1"]

    run_inside(
        client, service.name, ["python3", "-c", "open('/run/model-server/desired.json', 'w').write('{')"]
    )
    with pytest.raises(InputError, match=f"desired.json in volume {service.name}.*deploy again"):
        docker.find_service(Engine(), service.name)
    # A front that can't read it ends again and again: it is ended for good.
    client.restart(service.name, timeout=5)
    until(lambda: client.inspect_container(service.name)["RestartCount"] > 1, "restarted")
    docker.stop(service)
    assert client.inspect_container(service.name)["State"]["Status"] == "exited"


def test_the_engine_brings_the_live_revision_back_without_us(
    docker_setting: DockerSetting, client: Any
) -> None:
    service = docker_setting.service
    revision = deployed(docker_setting, docker_setting.release("v1"), Check()).revision
    deployed(docker_setting, docker_setting.release("v2", 2), Check(2))
    docker.rollback(service, check=Check())
    live = f"{service.name}-{revision}"

    def serving() -> bool:
        return docker.status(service).serving and version(service) == "v1"

    # As an engine that ends and comes back: in either order, each on its own.
    for first, second in ((service.name, live), (live, service.name)):
        for name in (service.name, live):
            client.stop(name, timeout=5)
        client.start(first)
        client.start(second)
        until(serving, "served again")
    # The front alone: a new socket, for the server that runs.
    client.restart(service.name, timeout=5)
    until(serving, "served at the new socket")
    # A crash: whoever asks meanwhile waits and is answered.
    with driving(service) as traffic:
        os.kill(client.inspect_container(live)["State"]["Pid"], signal.SIGKILL)
        until(lambda: client.inspect_container(live)["RestartCount"] == 1, "started again")
        count = traffic.versions["v1"]
        until(lambda: traffic.versions["v1"] > count + 20, "answered again")
    # What the killed process had accepted is lost; every other request is answered.
    assert len(traffic.failures) <= 2


def test_what_a_front_can_not_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(docker.Service("tiny", Engine(), 80, Limits(64 << 20, 1.0)), None)
    said = {"stdout": b'{"error": "desired.json: No space left on device"}', "exit_code": 6, "stderr": ""}
    monkeypatch.setattr(front_module, "run_inside", lambda *_: ExecResult(**said))
    monkeypatch.setattr(front_module, "tail", lambda *_: "its end")
    with pytest.raises(UnavailableError, match=r"No space left.*free space in volume tiny"):
        front.write(1, {})
    said.update(stdout=b"", exit_code=0)
    with pytest.raises(UnavailableError, match="its last words: its end"):
        front.read()
    said.update(stdout=b'{"protocol": 2}')
    with pytest.raises(InputError, match="found: 2; wanted: 1"):
        front.read()


@pytest.mark.skipif("TESTBED_REGISTRY" not in os.environ, reason="TESTBED_REGISTRY is not set")
def test_an_image_is_pulled_by_its_digest_and_goes_with_what_failed(
    docker_setting: DockerSetting, client: Any
) -> None:
    repository = f"{os.environ['TESTBED_REGISTRY']}/{docker_setting.service.name}"
    # Images of its own: what is in use elsewhere can't be forgotten here.
    own = docker_setting.service.name[-8:]
    first, second = (_pushed(client, repository, docker_setting.release(f"{own}-{i}", i)) for i in (1, 2))
    log: list[str] = []
    assert find_image(client, first) is None
    docker.deploy(docker_setting.service, first, check=Check(), log=log.append)
    assert f"pulling {first}" in log
    with pytest.raises(RolloutError, match="largest difference"):
        docker.deploy(docker_setting.service, second, check=Check())
    assert find_image(client, second) is None
    assert find_image(client, first) is not None
    with pytest.raises(InputError, match="can't be pulled"):
        docker.deploy(docker_setting.service, f"{repository}@sha256:{'0' * 64}", check=Check())
    assert version(docker_setting.service) == f"{own}-1"
    docker.stop(docker_setting.service)
    docker_setting.close()
    client.remove_image(first)


def _pushed(client: Any, repository: str, image: str) -> str:
    """Push an image, forget it here, and return its name by digest."""
    client.tag(image, repository, "x")
    for line in client.push(repository, "x", stream=True, decode=True):
        assert "error" not in line, line
    (digest,) = (
        one for one in client.inspect_image(image)["RepoDigests"] if one.startswith(f"{repository}@")
    )
    for name in (f"{repository}:x", digest, *client.inspect_image(image)["RepoTags"]):
        with contextlib.suppress(Exception):
            client.remove_image(name)
    return str(digest)
