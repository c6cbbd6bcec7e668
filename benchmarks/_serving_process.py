"""Server processes: started on a core of their own, watched from the other, ended with all their children."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PATIENCE = 60.0  # seconds until a server must be ready
_LOOK = 0.002  # seconds between two looks whether it is


@dataclass(frozen=True)
class Cores:
    """One core for the server, another for the load; the same where there is but one."""

    server: int
    load: int

    @classmethod
    def of_machine(cls) -> Cores:
        """The first and the last that this process may use; this process keeps to the load's."""
        usable = sorted(os.sched_getaffinity(0))
        cores = cls(usable[0], usable[-1])
        os.sched_setaffinity(0, {cores.load})
        return cores

    @contextmanager
    def for_server(self) -> Iterator[None]:
        """What is started in here inherits the server's core."""
        os.sched_setaffinity(0, {self.server})
        try:
            yield
        finally:
            os.sched_setaffinity(0, {self.load})


@dataclass(frozen=True)
class Running:
    """A ready server.

    Args:
        process: its first process.
        port: where it answers on loopback.
        start_s: from the start of the process to the first yes to "are you ready?".
    """

    process: psutil.Process
    port: int
    start_s: float

    def tree(self) -> list[psutil.Process]:
        """It and all its descendants."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """CPU time of the tree so far, of those that have ended too."""
        taken = 0.0
        for one in self.tree():
            with suppress(psutil.NoSuchProcess):
                taken += sum(one.cpu_times()[:4])  # user, system, and both of children that were waited for
        return taken

    def pss_mb(self) -> float:
        """Proportional set size of the tree: shared pages count once among those who share them."""
        taken = 0
        for one in self.tree():
            with suppress(psutil.NoSuchProcess):
                taken += one.memory_full_info().pss
        return taken / 1e6


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], port: int, ready: str, cores: Cores, log: Path
) -> Iterator[Running]:
    """Start a server, wait until it is ready, end it.

    Args:
        command: what starts it.
        environment: all of its environment.
        port: where it will answer.
        ready: the path that answers 200 once it is ready.
        cores: where it runs, and where we do.
        log: gets what it prints; told when it fails.

    Raises:
        RuntimeError: it ended, or wasn't ready in time.
    """
    with log.open("wb") as output:
        begin = time.perf_counter()
        with cores.for_server():
            started = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait(started, port, ready)
            yield Running(psutil.Process(started.pid), port, time.perf_counter() - begin)
        except RuntimeError as error:
            error.add_note(f"{log.stem} says:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
            raise
        finally:
            _end(started)


def _wait(started: subprocess.Popen[bytes], port: int, ready: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _answers(port, ready):
        if started.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{ready} on port {port} isn't ready; its exit code is {started.poll()}")
        time.sleep(_LOOK)


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end(started: subprocess.Popen[bytes]) -> None:
    try:
        tree = psutil.Process(started.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    started.terminate()
    try:
        started.wait(10)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    for one in psutil.wait_procs(tree, timeout=2)[1]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
