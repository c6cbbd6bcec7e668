from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.deployment import host
from airflow_model_deploy.engine.errors import InputError, RolloutError, UnavailableError
from tests.engine.deployment.traffic import Check, Result, alive, driving, every_pid, process
from tests.engine.serving.servables import REPOSITORY, infer_body, linear, request, until

if TYPE_CHECKING:
    from collections.abc import Callable


def version(service: host.Service) -> str:
    return str(request(f"{service.url}/v2/models/tiny")[1]["versions"][0])


def test_first_second_same_and_back(
    service: host.Service, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=(check := Check()))
    assert (first.changed, first.previous, first.url) == (True, None, service.url)
    assert first.golden.passed
    # Before traffic at the private port, then at the public one.
    assert check.urls[0] != service.url
    assert check.urls[1:] == [service.url]
    assert version(service) == "v1"

    second = host.deploy(service, make_bundle("v2", linear(2)), check=Check(2))
    assert (second.changed, second.previous) == (True, first.revision)
    assert version(service) == "v2"
    until(lambda: process(host.status(service), first.revision) is None, "the old one has ended")

    before = host.status(service)
    again = host.deploy(service, tmp_path / "bundle-v2", check=(check := Check(2)))
    assert (again.changed, again.revision, again.previous) == (False, second.revision, first.revision)
    assert check.urls == [service.url]
    assert host.status(service) == before

    back = host.rollback(service, check=Check())
    assert (back.revision, back.previous, back.changed) == (first.revision, second.revision, True)
    assert version(service) == "v1"


def test_promotion_restarts_nothing_and_fails_no_request(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    host.deploy(service, make_bundle("v1"), check=Check())
    seen = []

    def check(url: str, release: Path) -> Result:
        status = host.status(service)
        seen.append({p.revision: p.pid for p in status.processes})
        return Check(2)(url, release)

    with driving(service) as traffic:
        second = host.deploy(service, make_bundle("v2", linear(2)), check=check)
        until(lambda: traffic.versions["v2"] > 50, "the new one answers")
        back = host.rollback(service, check=Check())
        count = traffic.versions["v1"]
        until(lambda: traffic.versions["v1"] > count + 50, "the old one answers again")

    assert traffic.failures == []
    # The process that was checked in private is the one that got the traffic.
    assert seen[0][second.revision] == seen[1][second.revision]
    assert back.revision == second.previous


def test_a_release_that_answers_wrongly_never_gets_a_request(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    pid = process(host.status(service), first.revision).pid
    with driving(service) as traffic:
        with pytest.raises(RolloutError, match="largest difference"):
            host.deploy(service, make_bundle("v2", linear(2)), check=Check())
        until(lambda: traffic.versions["v1"] > 20, "traffic")

    assert traffic.failures == []
    assert set(traffic.versions) == {"v1"}
    status = host.status(service)
    assert (status.live, status.candidate, status.serving) == (first.revision, None, True)
    assert [(p.revision, p.pid) for p in status.processes] == [(first.revision, pid)]


def test_a_release_that_fails_only_in_public_is_taken_back_without_a_failed_request(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    pid = process(host.status(service), first.revision).pid

    def check(url: str, release: Path) -> Result:
        return Result(url != service.url, "not in public")

    with driving(service) as traffic, pytest.raises(RolloutError, match="not in public"):
        host.deploy(service, make_bundle("v2", linear(2)), check=check)

    assert traffic.failures == []
    status = host.status(service)
    assert (status.live, status.previous, status.candidate) == (first.revision, None, None)
    # It was kept at hand: nothing had to be loaded to go back.
    assert process(status, first.revision).pid == pid
    assert version(service) == "v1"


def test_a_failed_check_of_the_first_release_leaves_nothing_running(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    with pytest.raises(RolloutError, match="largest difference"):
        host.deploy(service, make_bundle("v1", linear(5)), check=Check())
    status = host.status(service)
    assert (status.live, status.candidate, status.supervisor, status.processes) == (None, None, None, ())
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.1", service.port), timeout=1)


def test_a_check_that_raises_withdraws_the_candidate(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    def check(url: str, release: Path) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.deploy(service, make_bundle("v1"), check=check)
    assert host.status(service).supervisor is None


def test_a_server_that_does_not_start_says_why(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    crashing = make_bundle("v2", start="import sys; sys.exit('no such luck')")
    with pytest.raises(RolloutError, match=r"exit code 1: no such luck"):
        host.deploy(service, crashing, check=Check())
    refused = make_bundle("v3", start="import sys; print('servable refused: x'); sys.exit(3)")
    with pytest.raises(RolloutError, match="exit code 3: servable refused: x"):
        host.deploy(service, refused, check=Check())
    assert (host.status(service).live, version(service)) == (first.revision, "v1")


def test_the_old_one_serves_until_the_new_one_accepts(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    pid = process(host.status(service), first.revision).pid
    # Nobody would decide so; the supervisor must hold out all the same.
    crashing = host.install(make_bundle("v2", start="import sys; sys.exit('no such luck')"), service)
    path = service.folder / "desired.json"
    desired = json.loads(path.read_text())
    path.write_text(json.dumps({**desired, "generation": desired["generation"] + 1, "live": crashing}))

    with driving(service) as traffic:
        until(lambda: (p := process(host.status(service), crashing)) and p.exits >= 2, "two crashes")
        count = traffic.versions["v1"]
        until(lambda: traffic.versions["v1"] > count + 20, "still answered")
    assert traffic.failures == []
    old = process(host.status(service), first.revision)
    assert (old.pid, old.public) == (pid, True)


def test_rollback_says_what_is_there_and_never_goes_to_something_unhealthy(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    with pytest.raises(RolloutError, match="live None, previous None, installed none"):
        host.rollback(service, check=Check())
    host.deploy(service, make_bundle("v1"), check=Check())
    with pytest.raises(RolloutError, match="previous None"):
        host.rollback(service, check=Check())
    second = host.deploy(service, make_bundle("v2", linear(2)), check=Check(2))
    with pytest.raises(RolloutError, match="largest difference"):
        host.rollback(service, check=Check(2))
    assert (host.status(service).live, version(service)) == (second.revision, "v2")


def test_one_writer_at_a_time(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle("v1")

    def check(url: str, release: Path) -> Result:
        with pytest.raises(UnavailableError, match=f"process {os.getpid()} is changing it"):
            host.deploy(service, bundle, check=Check())
        return Check()(url, release)

    host.deploy(service, bundle, check=check)


def test_a_port_in_use_is_said(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    with (
        socket.create_server(("127.0.0.1", service.port)),
        pytest.raises(UnavailableError, match="can't listen"),
    ):
        host.deploy(service, make_bundle("v1"), check=Check())
    host.deploy(service, make_bundle("v1-b"), check=Check())
    moved = host.Service(service.root, service.name, port=service.port + 1)
    with pytest.raises(InputError, match="Stop the service first"):
        host.deploy(moved, make_bundle("v1-c"), check=Check())


def _deploy_elsewhere(
    service: host.Service, bundle: Path | None, hang_at: int, action: str = "deploy"
) -> subprocess.Popen[bytes]:
    """Deploy in a process that hangs in its check number `hang_at`; return once it does."""
    arguments = f"service, Path({str(bundle)!r}), " if action == "deploy" else "service, "
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from airflow_model_deploy.engine.deployment import host
        from tests.engine.deployment.traffic import Result
        calls = []
        def check(url: str, release: Path) -> Result:
            calls.append(url)
            if len(calls) == {hang_at}:
                print("hangs", flush=True)
                time.sleep(60)
            return Result(True, "fine")
        service = host.Service(Path({str(service.root)!r}), {service.name!r}, port={service.port}, drain_s=3)
        host.{action}({arguments}check=check)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"hangs\n"
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("hang_at", [1, 2], ids=["before the switch", "after the switch"])
def test_a_deployment_killed_anywhere_is_completed_by_the_next(
    service: host.Service, make_bundle: Callable[..., Path], hang_at: int
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    bundle = make_bundle("v2", linear(2))
    with driving(service) as traffic:
        _kill(_deploy_elsewhere(service, bundle, hang_at))
        between = host.status(service)
        again = host.deploy(service, bundle, check=Check(2))

    assert traffic.failures == []
    assert (again.changed, again.previous) == (True, first.revision)
    status = host.status(service)
    assert (status.live, status.previous, status.candidate) == (again.revision, first.revision, None)
    # It went on with the process that ran, under the supervisor that outlived the caller.
    assert process(status, again.revision).pid == process(between, again.revision).pid
    assert status.supervisor == between.supervisor


def test_after_a_kill_behind_the_switch_a_wrong_release_is_still_taken_back(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    bundle = make_bundle("v2", linear(2))
    _kill(_deploy_elsewhere(service, bundle, 2))
    with pytest.raises(RolloutError, match="largest difference"):
        host.deploy(service, bundle, check=Check())
    assert (host.status(service).live, version(service)) == (first.revision, "v1")


def test_a_rollback_killed_behind_the_switch_is_completed_not_undone(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    first = host.deploy(service, make_bundle("v1"), check=Check())
    host.deploy(service, make_bundle("v2", linear(2)), check=Check(2))
    _kill(_deploy_elsewhere(service, None, 2, "rollback"))
    assert host.rollback(service, check=Check()).revision == first.revision
    assert version(service) == "v1"


def test_a_killed_server_is_started_again(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    revision = host.deploy(service, make_bundle("v1"), check=Check()).revision
    pid = process(host.status(service), revision).pid
    os.kill(pid, signal.SIGKILL)

    # The supervisor keeps the socket: who asks meanwhile waits and is answered.
    assert request(f"{service.url}/v2/models/tiny/infer", infer_body([[1, 2, 3, 4]]))[0] == 200
    until(lambda: host.status(service).serving, "serving again")
    now = process(host.status(service), revision)
    assert now.pid != pid
    assert now.exits == 1


def test_a_killed_supervisor_leaves_no_orphan_and_deploy_brings_the_service_back(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle("v1")
    revision = host.deploy(service, bundle, check=Check()).revision
    status = host.status(service)
    supervisor, *servers = every_pid(status)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in servers), "no orphan", 8.0)
    assert host.status(service).processes == ()

    again = host.deploy(service, bundle, check=Check())
    assert (again.revision, again.changed) == (revision, False)
    assert version(service) == "v1"


def test_the_supervisor_is_nobodys_child_and_inherits_no_secret(
    service: host.Service, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "hunter2")
    host.deploy(service, make_bundle("v1"), check=Check())
    status = host.status(service)
    for pid in every_pid(status):
        assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
    fields = Path(f"/proc/{status.supervisor}/stat").read_text().rsplit(")", 1)[1].split()
    parent, session = int(fields[1]), int(fields[3])
    assert parent != os.getpid()
    assert session != os.getsid(0)


def test_stop_ends_every_process_and_a_later_deploy_starts_again(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle("v1")
    host.deploy(service, bundle, check=Check())
    status = host.status(service)
    running = every_pid(status)
    host.stop(service)
    assert not any(alive(pid) for pid in running)
    assert not (service.folder / "status.json").exists()
    host.stop(service)
    assert host.deploy(service, bundle, check=Check()).changed


def test_stop_kills_what_does_not_end(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle("v1")
    host.deploy(service, bundle, check=Check())
    status = host.status(service)
    running = every_pid(status)
    os.kill(running[0], signal.SIGSTOP)
    hurried = host.Service(service.root, service.name, service.port, drain_s=0.1)
    host.stop(hurried)
    until(lambda: not any(alive(pid) for pid in running), "all killed")


def test_a_second_supervisor_leaves_the_first_alone(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    revision = host.deploy(service, make_bundle("v1"), check=Check()).revision
    program = service.releases / revision / "server" / "model_server" / "supervisor.py"
    second = subprocess.run(
        [sys.executable, "-I", str(program), str(service.folder)],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 0
    assert b"another supervisor" in second.stderr
    assert version(service) == "v1"


def test_the_release_stays_as_it_was_installed(
    service: host.Service, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle("v1")
    revision = host.deploy(service, bundle, check=Check()).revision
    files = {p.relative_to(bundle) for p in bundle.rglob("*")}
    assert {
        p.relative_to(service.releases / revision) for p in (service.releases / revision).rglob("*")
    } == files
    # Whoever knows only its folder finds the same service.
    found = host.find_service(service.root, service.name)
    assert found is not None
    assert (found.url, found.folder, found.drain_s) == (service.url, service.folder, service.drain_s)
    assert host.find_service(service.root, "other") is None
    desired = json.loads((service.folder / "desired.json").read_text())
    assert (desired["schema_version"], desired["live"], desired["candidate"]) == (1, revision, None)


def test_old_releases_are_pruned(service: host.Service, make_bundle: Callable[..., Path]) -> None:
    revisions = [
        host.deploy(service, make_bundle(f"v{i}", linear(i)), check=Check(i)).revision for i in range(1, 5)
    ]
    assert {p.name for p in service.releases.iterdir()} == set(revisions[1:])
