from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.containers import Limits, ensure_image, host_config, require_limits
from airflow_model_deploy.engine.errors import InputError
from tests.engine.containers.support import container

if TYPE_CHECKING:
    from docker import APIClient

_LOOK = """
import json, os, socket, subprocess
def tried(action):
    try:
        action()
    except Exception as e:
        return getattr(e, "strerror", None) or type(e).__name__
    return "done"
def run_from_tmp():
    open("/tmp/x", "w").write("#!/bin/sh\\n")
    os.chmod("/tmp/x", 0o755)
    subprocess.run(["/tmp/x"], check=True)
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "write": tried(lambda: open("/opt/x", "w")),
    "run_from_tmp": tried(run_from_tmp),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "threads": tried(lambda: [os.fork() or __import__("time").sleep(2) for _ in range(50)]),
}))
"""


@pytest.mark.docker
def test_a_confined_container_can_do_nothing_but_compute(client: APIClient, base: str) -> None:
    ensure_image(client, base, log=print)
    limits = Limits(memory_bytes=96 << 20, cpus=0.5, pids=20)
    with container(
        client, base, ["python3", "-c", _LOOK], user="65532:65532", host_config=host_config(client, limits)
    ) as made:
        client.start(made)
        client.wait(made)
        seen = json.loads(client.logs(made).splitlines()[0])
        inspected = client.inspect_container(made)
    require_limits(inspected, limits)
    found = inspected["HostConfig"]
    threads = seen.pop("threads")
    assert seen == {
        "uid": 65532,
        "capabilities": 0,
        "no_new_privileges": "1",
        "write": "Read-only file system",
        "run_from_tmp": "Permission denied",
        "interfaces": [
            name for name in seen["interfaces"] if name == "lo" or "tunl" in name or "sit" in name
        ],
    }
    assert threads == "Resource temporarily unavailable"
    assert found["Memory"] == found["MemorySwap"] == 96 << 20
    assert found["NanoCpus"] == 500_000_000
    if client.info()["LoggingDriver"] in ("json-file", "local"):
        assert found["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_limits_that_the_engine_discarded_are_named() -> None:
    limits = Limits(memory_bytes=96 << 20, cpus=0.5, pids=20)
    kept = {"Memory": 96 << 20, "NanoCpus": 500_000_000, "PidsLimit": 20}
    require_limits({"Id": "f00d", "HostConfig": kept}, limits)
    said = ["Your kernel does not support memory limit capabilities. Limitation discarded."]
    for lost, controller in (
        ({"Memory": 0}, "memory"),
        ({"NanoCpus": 0}, "cpu"),
        ({"PidsLimit": None}, "pids"),
    ):
        with pytest.raises(InputError, match=f"cgroup controllers {controller}: .*Delegate") as caught:
            require_limits({"Id": "f00d", "HostConfig": kept | lost}, limits, said)
        assert said[0] in str(caught.value)


def test_limits_that_make_no_sense_are_refused() -> None:
    for arguments in ({"memory_bytes": 1000, "cpus": 1}, {"memory_bytes": 1 << 30, "cpus": 0}):
        with pytest.raises(InputError, match="a container's"):
            Limits(**arguments)
