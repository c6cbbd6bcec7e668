"""A client that never stops asking, and a check as the golden requests make one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.engine.deployment.cluster.load import Load
from tests.engine.serving.servables import expected, infer_body, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_model_deploy.engine.deployment import docker, host

ROWS = [[1.0, 2.0, 3.0, 4.0]]


@dataclass(frozen=True)
class Result:
    passed: bool
    summary: str


@dataclass
class Check:
    """Passes where the server answers as the linear model of this scale; remembers whom it asked."""

    scale: float = 1.0
    urls: list[str] = field(default_factory=list)

    def __call__(self, url: str, release: Path) -> Result:
        assert (release / "servable" / "servable.json").is_file(), release
        self.urls.append(url)
        _, answer = request(f"{url}/v2/models/tiny/infer", infer_body(ROWS))
        got = np.array(answer["outputs"][0]["data"])
        distance = float(np.abs(got - expected(ROWS, self.scale).reshape(-1)).max())
        return Result(distance < 1e-4, f"largest difference {distance:.3g}")


@contextlib.contextmanager
def driving(service: host.Service | docker.Service, clients: int = 2) -> Iterator[Load]:
    """Ask the public port, a new connection a request, until the block ends."""
    with Load(f"127.0.0.1:{service.port}", clients=clients, fresh=clients, pause_s=0.002) as load:
        yield load


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def process(status: host.HostStatus, revision: str) -> Any:
    return next((p for p in status.processes if p.revision == revision), None)


def every_pid(status: host.HostStatus) -> list[int]:
    """The supervisor's process id, then the servers'."""
    return [pid for pid in (status.supervisor, *(p.pid for p in status.processes)) if pid]
