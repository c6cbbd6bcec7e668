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
from typing import Any


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
    atexit.register(_release, watch, folder)


def _watch(step: int, descriptor: int, alive: int, folder: str) -> None:
    # What ends the step's group by a polite signal is the step's business; this one has to see the step's end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads the step's output sees its end when the step ends, not when this process does.
    for output in (1, 2):
        os.close(output)
    while True:
        ready, _, _ = select.select([descriptor, alive], [], [])
        if descriptor in ready and not os.read(descriptor, 4096):
            end_tree(step)
            break
        if alive in ready:
            break
    shutil.rmtree(folder, ignore_errors=True)


def _release(watch: int, folder: str) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(watch, signal.SIGKILL)
        os.waitpid(watch, 0)
    shutil.rmtree(folder, ignore_errors=True)


def end_tree(pid: int) -> None:
    """Kill a process and all of its descendants, except the caller.

    It is stopped first, so that it starts nothing while its descendants are looked up.
    """
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        top.suspend()
        for process in [*top.children(recursive=True), top]:
            if process.pid != os.getpid():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
