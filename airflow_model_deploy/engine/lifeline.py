"""Ends a step when whoever started it is gone, however that ended: the step's standard input says so."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

# Environment variable by which the processes of one run are known; whoever starts a step gives it a value of its own.
MARK = "MODEL_DEPLOY_RUN"
_KILL_SECONDS = 2.0


def hold(descriptor: int = 0) -> dict[str, Any]:
    """Read the starter's first line, a JSON object, then have the pipe watched; its end ends this process.

    The watch is a process of its own: a thread would wait for the interpreter's lock, which a computation in C may
    hold for minutes. What the step keeps in its temporary folder goes with it, whoever ends it.

    Args:
        descriptor: the pipe; standard input by default, which reads as empty from here on.
    """
    line = b""
    while not line.endswith(b"\n") and (block := os.read(descriptor, 65_536)):
        line += block
    tempfile.tempdir = tempfile.mkdtemp(prefix="model-deploy-run-")
    _start_watch(descriptor, tempfile.tempdir)
    given = json.loads(line) if line.strip() else {}
    return given if isinstance(given, dict) else {}


def _start_watch(descriptor: int, folder: str) -> None:
    step = os.getpid()
    alive, held = os.pipe()  # the step holds the writing end as long as it lives
    watch = os.fork()
    if watch == 0:
        try:
            os.close(held)
            _watch(step, descriptor, alive, folder)
        finally:
            os._exit(0)
    os.close(alive)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, descriptor)
    os.close(empty)
    atexit.register(_release, step, watch, folder)


def _watch(step: int, descriptor: int, alive: int, folder: str) -> None:
    # What ends the step's group by a polite signal is the step's business; this one has to see the step's end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads the step's output sees its end when the step ends, not when this process does.
    for output in (1, 2):
        os.close(output)
    while True:
        ready, _, _ = select.select([descriptor, alive], [], [])
        if alive in ready or not os.read(descriptor, 4096):
            break
    if os.getppid() == step:  # else it has ended, and its number may be another's
        end_tree(step)
    if mark := os.environ.get(MARK):
        _end_marked(mark)
    shutil.rmtree(folder, ignore_errors=True)


def _release(step: int, watch: int, folder: str) -> None:
    if os.getpid() != step:  # a child that the step forked ends
        return
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(watch, signal.SIGKILL)
        os.waitpid(watch, 0)
    shutil.rmtree(folder, ignore_errors=True)


def end_tree(pid: int) -> None:
    """Kill a process and all of its descendants, except the caller; returns when they have ended.

    It is stopped first, so that it starts nothing while its descendants are looked up.
    """
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        top.suspend()
        _kill([*top.children(recursive=True), top])


def _end_marked(mark: str) -> None:
    """Kill what a step left that was itself killed: its children have lost their parent by then."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    _kill(found)


def _kill(processes: list[psutil.Process]) -> None:
    import psutil

    others = [process for process in processes if process.pid != os.getpid()]
    for process in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(others, timeout=_KILL_SECONDS)
